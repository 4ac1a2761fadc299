"""`max_regions`: into how many regions knots can cut a space at most."""

import functools
import math
from collections.abc import Iterable

import numpy as np
from scipy.special import gammaln

from tf_spline_prune._checks import MOST, Integer, ListOf, checked


@checked(
    knots=[Integer(0, MOST), ListOf(Integer(0, MOST), "integers of at least 0", 0)],
    dimension=Integer(0, MOST),
)
def max_regions(knots: int | Iterable[int], dimension: int) -> int:
    """Bound the number of regions that the knots of a network can make.

    K hyperplanes cut a space of d dimensions into at most `C(K, 0) + … + C(K, d)`
    regions, which is `2^K` where K is at most d: each hyperplane less halves it. The
    knots of a layer are hyperplanes on every region of the layers before, so the
    bounds of several layers multiply.

    Args:
        knots: The number of knots of a layer, or of each layer. A window of k
            positions under a maximum counts as `k (k - 1) / 2`.
        dimension: Dimensions of the space: of the inputs, or 2 for a slice.

    Returns:
        The number, exactly; it can have thousands of digits.

    Raises:
        ValueError: If a number is negative.

    Example:

    ```python
    tsp.max_regions(8, 2), tsp.max_regions(7, 2)      # (37, 29)
    tsp.max_regions([20, 20], 2)                       # 44_521: 211 per layer
    ```

    Source: Zaslavsky, "Facing up to Arrangements", 1975; for layers, Montúfar, "Notes
    on the Number of Linear Regions of Deep Neural Networks", 2017.
    """
    layers = [knots] if isinstance(knots, int) else [int(count) for count in knots]
    return math.prod(
        sum(math.comb(count, i) for i in range(min(count, dimension) + 1))
        for count in layers
    )


@functools.lru_cache(maxsize=65536)
def log_regions(width: int, depth: int) -> float:
    """Return the logarithm of `sum_{j = 0 .. depth} C(width, j)`.

    Args:
        width: Number of hyperplanes.
        depth: Dimension of the space that they cut.

    Returns:
        The natural logarithm, without overflow.
    """
    if depth >= width:
        return width * math.log(2)
    j = np.arange(depth + 1)
    terms = gammaln(width + 1) - gammaln(j + 1) - gammaln(width - j + 1)
    return float(np.logaddexp.reduce(terms))
