"""`Polygons`: many convex polygons in a few arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Polygons:
    """Convex polygons that share points; tens of thousands are a few arrays.

    Attributes:
        points: Array of shape `(n, 2)`: coordinates.
        vertices: Array of shape `(slots,)`: indices of points, polygon after
            polygon, each counter-clockwise.
        offsets: Array of shape `(polygons + 1,)`: where each polygon begins.
        edges: Array of shape `(slots,)`: the number of what drew the edge from each
            vertex to the next, on one of its two sides; -1 on the other.
        born: Array of shape `(polygons,)`: the number of what cut each last, or -1.
        values: Array of shape `(n, columns)`: what is known at the points. Each
            column is affine on each polygon.
    """

    points: np.ndarray
    vertices: np.ndarray
    offsets: np.ndarray
    edges: np.ndarray
    born: np.ndarray
    values: np.ndarray

    @classmethod
    def square(cls, low: float, high: float) -> "Polygons":
        """Make one polygon, the square from `low` to `high` along both axes."""
        points = np.array([[low, low], [high, low], [high, high], [low, high]])
        edges, born = np.full(4, -1), np.array([-1])
        return cls(
            points, np.arange(4), np.array([0, 4]), edges, born, np.empty((4, 0))
        )

    @classmethod
    def joined(cls, parts: Sequence["Polygons"]) -> "Polygons":
        """Put several lots of polygons together."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.points) for part in parts[:-1])])
        moved = [p.vertices + start for p, start in zip(parts, starts, strict=True)]
        return cls(
            np.concatenate([part.points for part in parts]),
            np.concatenate(moved),
            offsets_of(np.concatenate([part.sizes for part in parts])),
            np.concatenate([part.edges for part in parts]),
            np.concatenate([part.born for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.born)

    @property
    def sizes(self) -> np.ndarray:
        """Number of vertices of each polygon."""
        return np.diff(self.offsets)

    def take(self, which: np.ndarray) -> "Polygons":
        """Take some polygons, and only the points that they use."""
        slots, offsets = ragged(self.offsets, which)
        vertices = self.vertices[slots]
        used = np.zeros(len(self.points), bool)
        used[vertices] = True
        return Polygons(
            self.points[used],
            (np.cumsum(used) - 1)[vertices],
            offsets,
            self.edges[slots],
            self.born[which],
            self.values[used],
        )

    def holding(self, values: np.ndarray | None = None) -> "Polygons":
        """Put other values at the points, or none."""
        return replace(
            self, values=np.empty((len(self.points), 0)) if values is None else values
        )

    def means(self, values: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Average over the vertices of each polygon.

        Args:
            values: Array of shape `(n, columns)`: a value a point.
            which: Indices of the polygons that are meant; `None` means all.

        Returns:
            Array of shape `(polygons, columns)`.
        """
        every = np.arange(len(self)) if which is None else which
        slots, offsets = ragged(self.offsets, every)
        sums = np.add.reduceat(values[self.vertices[slots]], offsets[:-1], axis=0)
        return np.asarray(sums / np.diff(offsets)[:, None])

    def areas(self) -> np.ndarray:
        """Give the area of each polygon."""
        # From the first vertex of each: small polygons lose no digits.
        own = self.points[self.vertices]
        x, y = (own - np.repeat(own[self.offsets[:-1]], self.sizes, axis=0)).T
        then = following(self.offsets)
        return np.asarray(
            np.add.reduceat(x * y[then] - x[then] * y, self.offsets[:-1]) / 2
        )

    def segments(self, number: int) -> np.ndarray:
        """Give the edges that a number drew, each once, of shape `(m, 2, 2)`."""
        drawn = np.flatnonzero(self.edges == number)
        ends = np.stack([drawn, following(self.offsets)[drawn]], axis=1)
        return self.points[self.vertices[ends]]


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Give the places at which runs of these sizes begin, and the end."""
    return np.concatenate([[0], np.cumsum(sizes)])


def ragged(offsets: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index some runs of a flat array.

    Args:
        offsets: Where each run begins, and the end.
        which: Which runs to take: indices or booleans.

    Returns:
        The flat indices of their entries, and the offsets of the runs taken.
    """
    sizes = np.diff(offsets)[which]
    taken = offsets_of(sizes)
    moves = np.repeat(offsets[:-1][which] - taken[:-1], sizes)
    return moves + np.arange(taken[-1]), taken


def following(offsets: np.ndarray) -> np.ndarray:
    """For each entry of runs that are circles, index the entry that comes next."""
    then = np.arange(1, offsets[-1] + 1)
    then[offsets[1:] - 1] = offsets[:-1]
    return then
