"""Linear regression from weights that exist, also through a ReLU."""

import math
from dataclasses import dataclass

import numpy as np

from tf_spline_prune._matrices import solver_of

# A ridge beside which the rounding of float32 is nothing.
_FORGIVING = 1e-6


@dataclass(frozen=True, eq=False)
class Sides:
    """Which outputs a ReLU behind lets through.

    Attributes:
        knots: Array of shape `(n, groups * m)`: where it begins to, output by output.
        signs: Array of shape `(groups * m,)`: 1 if it lets through what is above, -1
            what is below, 0 if nothing that happens here gets there.
    """

    knots: np.ndarray
    signs: np.ndarray


def regress(
    x: np.ndarray,
    y: np.ndarray,
    first: np.ndarray,
    ridge: float,
    centred: bool = True,
    sides: Sides | None = None,
    steps: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the weights that map rows `x` to rows `y`, from first ones.

    Minimises `|X W + b - Y|^2 + ridge * s * |W - W0|^2`, where `s` is the mean square
    of the centred columns of `X`, so that `ridge` has no unit. With `sides`, what a
    ReLU holds back on both sides costs nothing: the error is that behind it, where the
    original is active, and what is active there without being so in the original.

    Args:
        x: Array of shape `(groups, n, d)`; its memory is used up.
        y: Array of shape `(n, groups * m)`.
        first: The weights to start from, `(groups, d, m)`.
        ridge: How strongly the first weights are held to.
        centred: Whether there is an intercept `b` to find.
        sides: The knots of a ReLU behind. Defaults to `None`.
        steps: How often their sides are looked at. Defaults to `2`.

    Returns:
        The weights, shape `(groups, d, m)`, and the intercept, `(groups * m,)`.
    """
    groups, num_rows, size = x.shape
    y = y.reshape(num_rows, groups, -1).swapaxes(0, 1)
    dtype = np.dtype("float64" if ridge < _FORGIVING else "float32")
    x, first = (one.astype(dtype, copy=False) for one in (x, first))
    base = x @ first
    mean = x.mean(axis=1, keepdims=True, dtype="float64") * centred
    x -= mean.astype(dtype)
    few = num_rows <= size
    gram = np.stack([one @ one.T if few else one.T @ one for one in x])
    gram = gram.astype("float64", copy=False)
    noise = ridge * np.trace(gram, axis1=1, axis2=2) / size
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += noise[:, None]
    solvers = [solver_of(one) for one in gram]

    def solve(right: np.ndarray) -> np.ndarray:
        return np.stack([one(part) for one, part in zip(solvers, right, strict=True)])

    def fit(left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit what is left; gives the change of the weights, and the mean of it.

        Its memory is used up.
        """
        middle = left.mean(axis=1, keepdims=True, dtype="float64") * centred
        left -= middle.astype(dtype)
        if few:
            change = x.swapaxes(1, 2) @ solve(left).astype(dtype)
        else:
            change = solve(x.swapaxes(1, 2) @ left).astype(dtype)
        return change, middle

    change, middle = fit((y - base).astype(dtype, copy=False))
    if sides is not None:
        knots = sides.knots.reshape(num_rows, groups, -1).swapaxes(0, 1)
        signs = sides.signs.reshape(groups, 1, -1).astype(dtype)
        active = signs * (y - knots) > 0
        before, pace = base, 1.0
        for _ in range(steps):
            found = base + x @ change + middle.astype(dtype)
            # Nesterov's momentum: few steps do as well as many.
            faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
            ahead = found + dtype.type((pace - 1) / faster) * (found - before)
            before, pace = found, faster
            # Held back in the original: wherever the ReLU holds it back, it is right.
            np.copyto(ahead, knots, where=signs * (ahead - knots) > 0)
            np.copyto(ahead, y, where=active)
            ahead -= base
            change, middle = fit(ahead)
    intercept = middle - mean.astype(dtype) @ change
    change += first
    return change, intercept.reshape(-1)
