"""How far the outputs of two models are apart, and how far rounding may take them."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import to_numpy

# How far two equal models may lie apart, relative to the spread of the outputs, and
# what rounding makes of their size: by the dtype of the model, and by that in which
# both were run.
_TOLERANCES = {
    ("float64", "float64"): (1e-9, 1e-13),
    ("float32", "float64"): (1e-5, 1e-6),
    ("float16", "float64"): (1e-2, 1e-3),
    ("float32", "float32"): (1e-4, 1e-5),
}
_COARSE = (5e-2, 5e-2)
# How far apart neighbouring numbers near one are, in the dtype of a run.
_EPSILONS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10}

Outputs = list[np.ndarray]


def tolerances_of(own: str, dtype: str) -> tuple[float, float]:
    """Return what rounding explains, by the spread and by the size of an output."""
    if own == "bfloat16":
        own = "float16"
    return _TOLERANCES.get((own, dtype), _COARSE)


def relative_distance(expected: Outputs, found: Outputs) -> float:
    """Return the largest difference of any output, relative to the output's size."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return float("inf")
        error = difference(one, other)
        worst = larger(worst, error / (_size(one) or 1.0))
    return worst


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two outputs.

    NaN is equal to NaN, and an infinity to itself; NaN if such an entry differs.
    """
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        differences = np.where(equal, 0.0, np.abs(one - other))
    finite = np.isfinite(differences).all()
    return float(differences.max(initial=0.0)) if finite else float("nan")


def _size(output: np.ndarray) -> float:
    """Return the largest number of an output that is finite."""
    return float(np.abs(output).max(initial=0.0, where=np.isfinite(output)))


def scale_of(output: np.ndarray, dtype: str) -> tuple[float, float]:
    """Return the spread of an output over the inputs, and its size.

    An output that is the same for all inputs, but for the rounding of a run in this
    dtype, has its size for a spread. What is NaN or infinite has none.
    """
    if not output.size:
        return 1.0, 0.0
    size = _size(output)
    variances = np.ma.masked_invalid(output).var(axis=0)
    spread = float(np.sqrt(np.ma.filled(np.ma.mean(variances), 0.0)))
    moves = spread > 16 * _EPSILONS.get(dtype, 2**-7) * size
    return spread if moves else size or 1.0, size


def allowed(scale: tuple[float, float], tolerances: tuple[float, float]) -> float:
    """Return the difference that rounding explains."""
    return max(tolerances[0] * scale[0], tolerances[1] * scale[1])


def answers(
    found: Outputs,
    reference: Outputs,
    scales: list[tuple[float, float]],
    tolerances: tuple[float, float],
) -> float:
    """Return how many times what rounding explains an output differs; NaN counts."""
    ratios = (
        difference(one, other) / allowed(scale, tolerances)
        for one, other, scale in zip(found, reference, scales, strict=True)
    )
    return max((float("inf") if np.isnan(r) else r for r in ratios), default=0.0)


def times_apart(expected: Any, found: Any, own: str) -> float:
    """Return how many times what rounding explains the tensors of two runs differ.

    Args:
        expected: Lists of tensors of any kind.
        found: As many of the same shapes.
        own: The coarsest dtype that the model computes in.

    Returns:
        The largest ratio of all; above 1 it is a fault.
    """
    wanted, given = (
        [to_numpy(tensor).astype("float64") for one in lists for tensor in one]
        for lists in (expected, found)
    )
    dtype = "float64" if own == "float64" else "float32"
    scales = [scale_of(one, dtype) for one in wanted]
    return answers(given, wanted, scales, tolerances_of(own, dtype))


def larger(first: float, second: float) -> float:
    """Return the larger number; NaN if one of them is."""
    return float(np.maximum(first, second))
