"""`LayerProblem`: what one layer's weights lose, as a quadratic form."""

import functools
from dataclasses import dataclass

import numpy as np

from tf_spline_prune._matrices import solver_of

# Up to so small a part of the mean square a square is rounding.
_DEAD = 1e-12


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """Weights `V` lose `tr((V - B)' G (V - B))` for each group, and a constant.

    `G` holds the products of the layer's inputs and `B` the best weights without any
    mask, both with a ridge towards the present weights `W`. For a layer that is not
    grouped, the stacks have one item.

    Attributes:
        gram: `G`, array of shape `(groups, n, n)`, float64.
        right: `G @ B`, array of shape `(groups, n, m)`, float64.
        first: `W`, array of shape `(groups, n, m)`, float64.
        squares: What the inputs' own products are without the ridge, array of shape
            `(groups, n)`.
        energy: The squares of the outputs that the layer shall have, a sum of the same
            kind as the loss.
    """

    gram: np.ndarray
    right: np.ndarray
    first: np.ndarray
    squares: np.ndarray
    energy: float

    @functools.cached_property
    def best(self) -> np.ndarray:
        """The best weights without any mask: array of shape `(groups, n, m)`."""
        left = self.right - self.gram @ self.first
        pairs = zip(self.gram, left, strict=True)
        return self.first + np.stack([solver_of(gram)(one) for gram, one in pairs])

    def dead(self) -> np.ndarray:
        """Return which inputs never change: array of shape `(groups, n)`, bool."""
        least = _DEAD * self.squares.mean(axis=1, keepdims=True)
        return np.asarray(self.squares <= least)

    def loss(self, weights: np.ndarray) -> float:
        """Return the loss of weights of shape `(groups, n, m)`."""
        apart = weights - self.best
        return float(np.sum(apart * (self.gram @ apart)))


class Moments:
    """Sums up what a layer reads, and what it shall answer, into its problem.

    With an intercept to be found the sums are taken about the means.

    Args:
        first: The layer's weights, array of shape `(groups, n, m)`.
        centred: Whether there is an intercept.

    Attributes:
        num_rows: How many rows came.
    """

    def __init__(self, first: np.ndarray, centred: bool) -> None:
        groups, size, outputs = first.shape
        self.first = first.astype("float64")
        self.centred = centred
        self.num_rows = 0
        self._gram = np.zeros((groups, size, size))
        self._cross = np.zeros((groups, size, outputs))
        self._squares = 0.0
        self._sums = np.zeros((groups, size + outputs))
        self._shift = np.zeros(0)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in rows.

        Args:
            x: What the layer reads, array of shape `(groups, rows, n)`.
            y: What it shall answer before any bias, `(groups, rows, m)`.
        """
        rows = np.concatenate([x, y], axis=2)
        if not self.num_rows:
            # Products of numbers near their mean lose nothing to rounding.
            mean = rows.mean(axis=1) if self.centred else 0 * rows[:, 0]
            self._shift = mean.astype(rows.dtype)
        rows -= self._shift[:, None]
        x, y = np.split(rows, [self.first.shape[1]], axis=2)
        self.num_rows += x.shape[1]
        self._sums += rows.sum(axis=1, dtype="float64")
        self._squares += float(np.square(y).sum(dtype="float64"))
        self._gram += x.swapaxes(1, 2) @ x
        self._cross += x.swapaxes(1, 2) @ y

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the means about the shift: `(groups, n)` and `(groups, m)`."""
        means = self._sums / self.num_rows if self.centred else 0 * self._sums
        inner, outer = np.split(means, [self.first.shape[1]], axis=1)
        return inner, outer

    def problem(self, ridge: float) -> LayerProblem:
        """Return the problem of the rows so far.

        Args:
            ridge: How strongly the present weights are held to, as a fraction of the
                mean square of the inputs.
        """
        inner, outer = self._means()
        gram = self._gram - self.num_rows * inner[:, :, None] * inner[:, None]
        right = self._cross - self.num_rows * inner[:, :, None] * outer[:, None]
        energy = self._squares - self.num_rows * float(np.square(outer).sum())
        size = gram.shape[1]
        squares = np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0)
        damping = ridge * squares.mean(axis=1)
        gram[:, range(size), range(size)] += damping[:, None]
        right += damping[:, None, None] * self.first
        return LayerProblem(gram, right, self.first, squares, energy)

    def intercept(self, weights: np.ndarray) -> np.ndarray:
        """Return what to add to the bias of weights, array of shape `(groups * m,)`."""
        if not self.centred:
            return np.zeros(weights.shape[0] * weights.shape[2])
        inner, outer = (
            mean + shift
            for mean, shift in zip(
                self._means(),
                np.split(self._shift, [self.first.shape[1]], axis=1),
                strict=True,
            )
        )
        return (outer - (inner[:, None] @ weights)[:, 0]).ravel()
