"""Critical sparsity: the fraction of weights at which a first layer is empty."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, Array, ListOf, MapOf, Text, checked


@checked(
    scores=MapOf(
        Text("a name"),
        Array("numbers", finite=False),
        "a dictionary from names of layers to arrays of scores",
    )
)
def critical_sparsity(scores: Mapping[str, Any]) -> float:
    """Return the sparsity at which one threshold for all layers empties a first one.

    Args:
        scores: The score of every weight, more is kept longer, by layer.

    Returns:
        The fraction of all scores that are not above the best score of the layer whose
        best score is least.

    Raises:
        ValueError: If there are no scores, or some are NaN.

    Example:

    ```python
    tsp.initialization.critical_sparsity({"fc1": abs(w1 * g1), "fc2": abs(w2 * g2)})
    ```

    Source: Hayou et al., "Robust Pruning at Initialization", ICLR 2021.
    """
    arrays = {name: np.ravel(np.asarray(array)) for name, array in scores.items()}
    bad = [name for name, a in arrays.items() if not a.size or np.isnan(a).any()]
    if bad or not arrays:
        raise ValueError(
            "`scores` must hold at least one layer, and numbers for each. Received: "
            f"none, or NaN, for {bad or 'all'}"
        )
    bound = min(array.max() for array in arrays.values())
    below = sum(int(np.count_nonzero(array <= bound)) for array in arrays.values())
    return below / sum(array.size for array in arrays.values())


@checked(
    shapes=ListOf(ListOf(COUNT, "sizes", 2), "shapes of kernels, such as (784, 300)")
)
def magnitude_critical_sparsity(shapes: Iterable[Sequence[int]]) -> float:
    """Predict the sparsity at which pruning by magnitude empties a first layer.

    It is that of Gaussian weights of one standard deviation times sqrt(fan-in), ranked
    by magnitude over all layers. The layer of the largest fan-in, whose weights
    are the smallest, goes first.

    Args:
        shapes: The shapes of the kernels, whose last axis is that of the units.

    Returns:
        The median over the draws of the weights, in [0, 1], as theory has it.

    Raises:
        ValueError: If there are no shapes, or one is no kernel's.

    Example:

    ```python
    tsp.initialization.magnitude_critical_sparsity([(784, 300), (300, 100), (100, 10)])
    ```
    """
    kernels = [tuple(shape) for shape in shapes]
    sizes = [math.prod(shape) for shape in kernels]
    roots = [math.sqrt(math.prod(shape[:-1])) for shape in kernels]
    normal = NormalDist()
    bound = min(
        normal.inv_cdf(1 - 1 / (2 * size)) / root
        for size, root in zip(sizes, roots, strict=True)
    )
    kept = sum(
        size * math.erfc(bound * root / math.sqrt(2))
        for size, root in zip(sizes, roots, strict=True)
    )
    return 1 - kept / sum(sizes)
