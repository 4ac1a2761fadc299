"""From the scores of layers to those of a group, and from groups to a model."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import OneOf

Reduction = Literal["mean", "sum", "max", "first"]
"""How the scores of a group's layers are joined."""
Normalizer = Literal["none", "mean", "max", "sum"]
"""What scores are divided by before groups are ranked together."""
Rows = Callable[[np.ndarray], np.ndarray]
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "max": np.max,
    "sum": np.sum,
}


# What the two knobs that criteria share must be.
KNOBS = {
    "reduction": OneOf(*get_args(Reduction)),
    "normalizer": OneOf(*get_args(Normalizer)),
}


def reduced(parts: Sequence[np.ndarray], reduction: Reduction) -> np.ndarray:
    """Reduce the scores of several layers to one score a unit.

    Args:
        parts: One array of shape `(units,)` a layer, at least one.
        reduction: How.

    Returns:
        Array of shape `(units,)`.
    """
    if reduction == "first":
        return np.asarray(parts[0])
    return np.asarray(_FUNCTIONS[reduction](np.asarray(parts), axis=0))


def reduced_rows(parts: Sequence[Rows], reduction: Reduction) -> Rows:
    """Reduce the distances of several layers, row by row.

    Args:
        parts: For each layer a function that takes indices of shape `(k,)` and
            gives distances of shape `(k, units)`.
        reduction: How.

    Returns:
        One such function.
    """
    if reduction == "first" or len(parts) == 1:
        return parts[0]
    join = np.maximum if reduction == "max" else np.add

    def rows(chosen: np.ndarray) -> np.ndarray:
        total = parts[0](chosen)
        for part in parts[1:]:
            join(total, part(chosen), out=total)
        return total / len(parts) if reduction == "mean" else total

    return rows


def divisor(scores: np.ndarray, normalizer: Normalizer) -> float:
    """Find what to divide scores by, so that they compare with others.

    Args:
        scores: Array of shape `(units,)`.
        normalizer: What they are measured in.

    Returns:
        A positive number: of the absolute scores the mean, the maximum or the sum;
        1 where that is zero, or for `"none"`.
    """
    if normalizer == "none" or not scores.any():
        return 1.0
    return float(_FUNCTIONS[normalizer](np.abs(scores)))
