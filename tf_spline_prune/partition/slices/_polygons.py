"""Cutting convex polygons along the folds of piecewise-affine functions.

A fold is a few functions, affine on each polygon, of which the largest counts: a
value and its knot, the positions of a pooling window, the classes of a network. A
polygon is cut into cells, on each of which one of the functions is the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Polygons:
    """Convex polygons that share points; tens of thousands are a few arrays.

    Attributes:
        points: Array of shape `(n, 2)`: coordinates.
        vertices: Array of shape `(corners,)`: indices of points, polygon after
            polygon, each counter-clockwise.
        offsets: Array of shape `(polygons + 1,)`: where each polygon begins.
        edges: Array of shape `(corners,)`: the number of what drew the edge from each
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
        corners, offsets = ragged(self.offsets, which)
        vertices = self.vertices[corners]
        used = np.zeros(len(self.points), bool)
        used[vertices] = True
        return Polygons(
            self.points[used],
            (np.cumsum(used) - 1)[vertices],
            offsets,
            self.edges[corners],
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
            values: Array of shape `(n, columns)`: a value per point.
            which: Indices of the polygons that are meant; `None` means all.

        Returns:
            Array of shape `(polygons, columns)`.
        """
        every = np.arange(len(self)) if which is None else which
        corners, offsets = ragged(self.offsets, every)
        sums = np.add.reduceat(values[self.vertices[corners]], offsets[:-1], axis=0)
        return np.asarray(sums / np.diff(offsets)[:, None])

    def areas(self) -> np.ndarray:
        """Return the area of each polygon."""
        # From the first vertex of each: small polygons lose no digits.
        own = self.points[self.vertices]
        x, y = (own - np.repeat(own[self.offsets[:-1]], self.sizes, axis=0)).T
        then = following(self.offsets)
        return np.asarray(
            np.add.reduceat(x * y[then] - x[then] * y, self.offsets[:-1]) / 2
        )

    def segments(self, number: int) -> np.ndarray:
        """Return the edges that a number drew, each once, of shape `(m, 2, 2)`."""
        drawn = np.flatnonzero(self.edges == number)
        ends = np.stack([drawn, following(self.offsets)[drawn]], axis=1)
        return self.points[self.vertices[ends]]


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Return the places at which runs of these sizes begin, and the end."""
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


# A polygon is cut along so many folds at a time; more would have to be carried
# along at every new vertex.
_FOLDS = 32


def cut(
    polygons: Polygons,
    functions: Sequence[np.ndarray],
    tolerance: float,
    number: int,
    most: int,
) -> tuple[Polygons, Polygons]:
    """Cut polygons along folds; each fold touches only the polygons it crosses.

    Args:
        polygons: The polygons.
        functions: The functions of the folds, arrays of shape `(n, folds)`: their
            values at the points of the polygons.
        tolerance: Functions that differ by no more are equal at a point.
        number: What to put down for the edges and polygons that are made.
        most: Stop early, with folds left, once there are more polygons than this.

    Returns:
        The polygons that no fold crosses any more; and those that have more folds
        than are cut at a time, and have to come again.
    """
    crossing = _crossings(polygons, functions, tolerance)
    counts = np.count_nonzero(crossing, axis=1)
    cells = [_Cells.of(polygons, np.flatnonzero(counts == 0))]
    rounds = 1
    while rounds <= _FOLDS and sum(map(len, cells)) <= most:
        # Of few folds first, so that no polygon waits for another's many rounds.
        alike = (counts > rounds // 2) & ((counts <= rounds) | (rounds == _FOLDS))
        which = np.flatnonzero(alike)
        if len(which):
            folds = _first_folds(crossing[which], counts[which], rounds)
            cells.append(_Cells.of(polygons, which, folds, functions))
            cells[-1].cut_in_rounds(len(functions), tolerance, number, most)
        rounds *= 2
    whole, owner = _together(polygons, cells, number)
    again = counts[owner] > _FOLDS
    settled = whole.take(~again) if again.any() else whole
    return settled, whole.take(again)


def _crossings(
    polygons: Polygons, functions: Sequence[np.ndarray], tolerance: float
) -> np.ndarray:
    """Find which folds cross which polygons, of shape `(polygons, folds)`.

    On a convex polygon a function is the largest everywhere if it is so at every
    vertex. Bits are looked at eight at a time.
    """
    least = functions[0]
    for function in functions[1:]:
        least = np.maximum(least, function)
    least = least - tolerance
    settled: np.ndarray | None = None
    for function in functions:
        largest = np.packbits(function >= least, axis=1)[polygons.vertices]
        always = np.bitwise_and.reduceat(largest, polygons.offsets[:-1], axis=0)
        settled = always if settled is None else settled | always
    count = least.shape[1]
    return np.unpackbits(~settled, axis=1, count=count).view(bool)  # type: ignore


def _first_folds(crossing: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """List the folds that cross each polygon, the last one again where too few."""
    starts = offsets_of(counts)[:-1]
    places = np.minimum(np.arange(most), counts[:, None] - 1) + starts[:, None]
    return np.nonzero(crossing)[1][places]


@dataclass(eq=False)
class _Cells:
    """Polygons on their way to cells, with the values of the folds to come.

    Attributes:
        table: A row a vertex: the functions of each fold.
        base: For the rows that were there from the start, indices of points.
        rows: For each corner, a row.
        offsets: Where each cell begins among the corners.
        edges: What drew each edge.
        owner: For each cell, the polygon that it is a part of.
        added: The rows that were added, in turns: for each the row before it, the
            row after it, and its fraction of the way between them.
    """

    table: np.ndarray
    base: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    edges: np.ndarray
    owner: np.ndarray
    added: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        polygons: Polygons,
        which: np.ndarray,
        folds: np.ndarray | None = None,
        functions: Sequence[np.ndarray] = (),
    ) -> "_Cells":
        corners, offsets = ragged(polygons.offsets, which)
        base = polygons.vertices[corners]
        table = np.empty((len(base), 0))
        if folds is not None:
            wanted = np.repeat(folds, np.diff(offsets), axis=0)
            values = [function[base[:, None], wanted] for function in functions]
            table = np.stack(values, axis=2).reshape(len(base), -1)
        rows = np.arange(len(base))
        return cls(table, base, rows, offsets, polygons.edges[corners], which)

    def __len__(self) -> int:
        return len(self.owner)

    def cut_in_rounds(self, k: int, tolerance: float, number: int, most: int) -> None:
        """Cut by one fold a round: by the next one of each polygon."""
        for first in range(0, self.table.shape[1], k):
            if len(self) > most:
                return
            values = self.table[self.rows, first : first + k]
            largest = values >= values.max(axis=1, keepdims=True) - tolerance
            always = np.logical_and.reduceat(largest, self.offsets[:-1], axis=0)
            crossed = np.logical_not(always.any(axis=1))
            if crossed.any():
                self._split(crossed, first, k, tolerance, number)

    def _split(
        self, crossed: np.ndarray, first: int, k: int, tolerance: float, number: int
    ) -> None:
        """Put in the place of each crossed cell one for each function."""
        uncut, still = ragged(self.offsets, ~crossed)
        of = np.repeat(np.flatnonzero(crossed), k)
        own = np.tile(np.arange(k), len(of) // k)
        corners, offsets = ragged(self.offsets, of)
        rows, edges = self.rows[corners], self.edges[corners]
        for step in range(1, k):
            other = (own + step) % k
            sizes = np.diff(offsets)
            mine, yours = np.repeat(own, sizes), np.repeat(other, sizes)
            ahead = self.table[rows, first + mine] - self.table[rows, first + yours]
            side = (ahead > tolerance).astype("int8") - (ahead < -tolerance)
            top = np.maximum.reduceat(side, offsets[:-1])
            bottom = np.minimum.reduceat(side, offsets[:-1])
            # Where two functions are one, the first of them is the largest.
            stays = (top > 0) | ((top == bottom) & (top == 0) & (own < other))
            kept, offsets = ragged(offsets, stays)
            of, own, other = of[stays], own[stays], other[stays]
            rows, edges, offsets = self._clip(
                rows[kept],
                edges[kept],
                offsets,
                ahead[kept],
                side[kept],
                np.minimum(mine, yours)[kept] * k + np.maximum(mine, yours)[kept],
                # An edge has two sides, and is put down on one of them.
                np.where(mine < yours, number, -1)[kept],
            )
        self.rows = np.concatenate([self.rows[uncut], rows])
        self.edges = np.concatenate([self.edges[uncut], edges])
        self.owner = np.concatenate([self.owner[~crossed], self.owner[of]])
        self.offsets = offsets_of(np.concatenate([np.diff(still), np.diff(offsets)]))

    def _clip(
        self,
        rows: np.ndarray,
        edges: np.ndarray,
        offsets: np.ndarray,
        ahead: np.ndarray,
        side: np.ndarray,
        pair: np.ndarray,
        drawn: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leave of each cell the part on which its own function is ahead."""
        then = following(offsets)
        after = side[then]
        passing = side * after < 0
        fresh = np.zeros(len(rows), int)
        fresh[passing] = self._add_rows(
            rows[passing],
            rows[then][passing],
            ahead[passing],
            ahead[then][passing],
            pair[passing],
        )
        # Each vertex that is not behind, and after it the crossing of its edge.
        left = np.stack([side >= 0, passing], axis=1)
        rows = np.stack([rows, fresh], axis=1)[left]
        edges = np.stack(
            [
                np.where((side == 0) & (after < 0), drawn, edges),
                np.where(side > 0, drawn, edges),
            ],
            axis=1,
        )[left]
        sizes = np.add.reduceat(left.sum(axis=1), offsets[:-1])
        return rows, edges, offsets_of(sizes)

    def _add_rows(
        self,
        start: np.ndarray,
        end: np.ndarray,
        ahead: np.ndarray,
        after: np.ndarray,
        pair: np.ndarray,
    ) -> np.ndarray:
        """Add a row for each crossing of an edge, one for all cells that share it."""
        low, high = np.minimum(start, end), np.maximum(start, end)
        keys = (pair * len(self.table) + low) * len(self.table) + high
        _, one, which = np.unique(keys, return_index=True, return_inverse=True)
        fraction = (ahead[one] / (ahead[one] - after[one]))[:, None]
        self.added.append((start[one], end[one], fraction))
        count = len(self.table)
        self.table = np.concatenate([self.table, _between(self.table, *self.added[-1])])
        return count + which


def _between(
    table: np.ndarray, start: np.ndarray, end: np.ndarray, fraction: np.ndarray
) -> np.ndarray:
    before = table[start]
    return np.asarray(before + fraction * (table[end] - before))


def _together(
    polygons: Polygons, lots: Sequence[_Cells], number: int
) -> tuple[Polygons, np.ndarray]:
    """Put the cells together, those of one polygon side by side.

    Returns:
        The cells, and for each the polygon that it is a part of.
    """
    places, count = [], len(polygons.points)
    for lot in lots:
        after = count + len(lot.table) - len(lot.base)
        places.append(np.concatenate([lot.base, np.arange(count, after)]))
        count = after
    vertices = [of[lot.rows] for of, lot in zip(places, lots, strict=True)]
    turns = [
        (of[start], of[end], fraction)
        for of, lot in zip(places, lots, strict=True)
        for start, end, fraction in lot.added
    ]
    owner = np.concatenate([lot.owner for lot in lots])
    offsets = offsets_of(np.concatenate([np.diff(lot.offsets) for lot in lots]))
    order = np.argsort(owner, kind="stable")
    corners, offsets = ragged(offsets, order)
    owner = owner[order]
    born = np.where(np.bincount(owner, minlength=len(polygons)) > 1, number, -1)
    whole = Polygons(
        _extended(polygons.points, count, turns),
        np.concatenate(vertices)[corners],
        offsets,
        np.concatenate([lot.edges for lot in lots])[corners],
        np.where(born < 0, polygons.born, born)[owner],
        _extended(polygons.values, count, turns),
    )
    return whole, owner


def _extended(
    known: np.ndarray,
    count: int,
    turns: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Interpolate what is known at points, and affine between them, at new ones."""
    whole = np.empty((count, known.shape[1]))
    whole[: len(known)] = known
    done = len(known)
    for turn in turns:
        new = _between(whole, *turn)
        whole[done : done + len(new)] = new
        done += len(new)
    return whole
