"""How much each single weight of a model is worth."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune.criteria._lamp import fractions_among_larger
from tf_spline_prune.errors import CriterionError

WeightScorer = Callable[[str, np.ndarray], Any]
OF_WEIGHTS = {c.name: c for c in (criteria.Magnitude, criteria.LAMP, criteria.Random)}
FROM_DATA = ("wanda", "obs", "sparsegpt")


def weight_scores(
    arrays: Sequence[np.ndarray],
    criterion: str | criteria.Criterion | WeightScorer = "magnitude",
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Score the weights of a model one by one.

    Args:
        arrays: One array of weights per tensor.
        criterion: `"magnitude"`, the absolute value; `"lamp"`, the fraction of the
            square among the squares of the tensor that are at least as large;
            `"random"`, whatever the values; a criterion of one of these names, whose
            arguments are about units and are not read; or a function
            `(name, array) -> array` of the same shape.
        seed: Seed of `"random"`.
        names: One name per tensor, for functions and for `"random"`, which gives
            tensors of one name and shape the same scores. Defaults to `"0"`, `"1"`
            and so on.

    Returns:
        One array per tensor, in its shape; higher means keep.

    Raises:
        ValueError: If the criterion is unknown, or scores units and not weights.
        CriterionError: If there is not one finite score per weight.

    Example:

    ```python
    scores = weight_scores([kernel], lambda name, kernel: kernel**2)
    ```

    Source: `"lamp"`: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based
    Pruning", ICLR 2021, equation 1.
    """
    score = _scorer(criterion, seed)
    if names is None:
        names = [str(place) for place in range(len(arrays))]
    if len(names) != len(arrays):
        raise ValueError(
            f"`names` must have one item per tensor, {len(arrays)}. Received: "
            f"{len(names)} items"
        )
    found = []
    for name, weights in zip(names, map(np.asarray, arrays), strict=True):
        scores = np.asarray(score(name, weights))
        if scores.shape != weights.shape:
            raise CriterionError(
                "A criterion must give one score per weight. Expected: shape "
                f"{weights.shape}. Received: shape {scores.shape} for {name!r}"
            )
        if not np.isfinite(scores).all():
            raise CriterionError(
                "A criterion must give finite scores. Received: NaN or infinite scores "
                f"for {name!r}"
            )
        found.append(scores)
    return found


def _scorer(criterion: Any, seed: int) -> WeightScorer:
    """Find the function that scores the weights of a tensor."""
    name = criterion
    if isinstance(criterion, criteria.Criterion):
        # A subclass scores units in its own way.
        name = criterion.name if type(criterion) in OF_WEIGHTS.values() else None
    elif callable(criterion) and not isinstance(criterion, type):
        return criterion
    if name == "magnitude":
        return lambda name, weights: np.abs(weights)
    if name == "lamp":
        return _lamp
    if name == "random":
        return lambda name, weights: _random(name, weights, seed)
    if _scores_units(criterion):
        raise ValueError(
            "This criterion scores units, not single weights. Ask for "
            '`granularity="unit"`, or for a criterion of weights: '
            f"{tuple(OF_WEIGHTS)}. Received: criterion={criterion!r}"
        )
    if criterion in FROM_DATA:
        raise ValueError(
            "This criterion needs the inputs of each layer, which `tsp.prune_once` "
            f"looks at, given `data`. Received: criterion={criterion!r}"
        )
    raise ValueError(
        f"Expected one of {tuple(OF_WEIGHTS)} or a function of the name and the "
        "weights of a tensor; for `tsp.prune_once` with `data` also one of "
        f"{FROM_DATA}. Received: criterion={criterion!r}"
    )


def _scores_units(criterion: Any) -> bool:
    try:
        criteria.get(criterion)
    except (TypeError, ValueError):
        return False
    return True


def _lamp(name: str, weights: np.ndarray) -> np.ndarray:
    lengths = np.abs(weights.astype("float64")).ravel()
    return fractions_among_larger(lengths).reshape(weights.shape)


def _random(name: str, weights: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.random(weights.shape)
