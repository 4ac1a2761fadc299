"""Interval arithmetic: between which values a tensor lies.

A tensor is bounded position by position, the batch left out. Bounds that meet say
that a value never changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.graph.axes import Shape


@dataclass(frozen=True, eq=False)
class Bounds:
    """The bounds of a tensor.

    Attributes:
        low: Array of the tensor's rank without the batch axis; an axis of size 1
            stands for all positions of an axis of any size.
        high: Array of the same shape.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, low: Any, high: Any) -> "Bounds":
        """Make bounds; what is not a number becomes infinite."""
        low, high = np.broadcast_arrays(low, high)
        return cls(
            np.where(np.isnan(low), -np.inf, low),
            np.where(np.isnan(high), np.inf, high),
        )

    @classmethod
    def unknown(cls, shape: Shape) -> "Bounds":
        """Bound a tensor of a shape, the batch axis first, by infinity."""
        ones = np.ones([1] * (len(shape) - 1))
        return cls(-np.inf * ones, np.inf * ones)

    def with_zero(self) -> "Bounds":
        """Widen the bounds so that they hold zero, as padding does."""
        return Bounds(np.minimum(self.low, 0), np.maximum(self.high, 0))

    def joined(self, axes: list[int], keepdims: bool = True) -> "Bounds":
        """Join the bounds along some axes."""
        where = tuple(axes)
        return Bounds(
            self.low.min(axis=where, keepdims=keepdims),
            self.high.max(axis=where, keepdims=keepdims),
        )

    def spread(self, shape: Shape) -> "Bounds":
        """Write the bounds out for every position; all sizes must be known."""
        sizes = tuple(int(size or 0) for size in shape[1:])
        return Bounds(
            np.broadcast_to(self.low, sizes), np.broadcast_to(self.high, sizes)
        )

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Bounds":
        """Move the positions, the same way for both bounds."""
        return Bounds(change(self.low), change(self.high))

    def full(self, axis: int, size: int) -> "Bounds":
        """Write the bounds out along one axis."""
        shape = list(self.low.shape)
        shape[axis] = size
        return self.map(lambda bound: np.broadcast_to(bound, shape))


def affine(value: Bounds, kernel: np.ndarray) -> Bounds:
    """Bound `x @ kernel`; an infinite bound counts only where a weight reads it."""
    positive, negative = np.maximum(kernel, 0), np.minimum(kernel, 0)
    finite = [np.where(np.isfinite(b), b, 0.0) for b in (value.low, value.high)]
    open_low = (~np.isfinite(value.low)).astype(float)
    open_high = (~np.isfinite(value.high)).astype(float)
    low = finite[0] @ positive + finite[1] @ negative
    high = finite[1] @ positive + finite[0] @ negative
    up, down = (positive > 0).astype(float), (negative < 0).astype(float)
    low = np.where(open_low @ up + open_high @ down > 0, -np.inf, low)
    high = np.where(open_high @ up + open_low @ down > 0, np.inf, high)
    return Bounds(low, high)


def scaled(value: Bounds, scale: np.ndarray, offset: np.ndarray) -> Bounds:
    """Bound `scale * x + offset`, entry by entry."""
    ends = [product(value.low, scale), product(value.high, scale)]
    return Bounds(np.minimum(*ends) + offset, np.maximum(*ends) + offset)


def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Multiply, so that zero times anything is zero."""
    return np.where((one == 0) | (other == 0), 0.0, one * other)
