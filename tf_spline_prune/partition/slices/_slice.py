"""`Slice`: the exact regions of a network on a plane of its input space."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tf_spline_prune._checks import Array, checked
from tf_spline_prune.partition.codes._partition_codes import PartitionCodes
from tf_spline_prune.partition.slices._polygons import Polygons, cut, following
from tf_spline_prune.partition.slices._sliced_network import SlicedNetwork


@dataclass(frozen=True, eq=False)
class Region:
    """One region of a slice: the inputs of the plane that share a code.

    Attributes:
        polygon: Array of shape `(k, 2)`: its corners in (u, v), counter-clockwise.
        area: Its area in (u, v).
        born: Name of the layer whose knots cut it last; `""` if none did.
        code: Boolean array of shape `(knots,)`: the sides of all knots of the slice,
            layer after layer.
    """

    polygon: np.ndarray
    area: float
    born: str
    code: np.ndarray


# Functions that differ by less than this fraction of the largest value of their layer
# are equal at a point: some thousand times the rounding of float64, so that a
# corner that lies on a knot does not cut slivers off.
TOLERANCE = 2.0**-40


@dataclass(frozen=True, eq=False)
class Slice:
    """The exact regions of a network on a plane of its input space.

    Regions are convex polygons in the coordinates (u, v) of the plane, held in a few
    arrays; what is not asked for is not computed.

    Attributes:
        layers: Names of the layers whose knots are cut, in the order of computation.
        complete: Whether these are all layers that have knots.
        regions_through: For each layer the number of regions once it has cut.
        classes: The two classes whose tie is the boundary, or `None`.
        anchors: Array of shape `(3, *input shape)`: the inputs that span the plane.

    Example:

    ```python
    s = tsp.slice2d(model, x_test[:3])
    s.num_regions, s.areas.max()
    A, b = s.affine                       # outputs on region i: A[i] @ (u, v) + b[i]
    s.boundary                            # where the answer changes, (m, 2, 2)
    ```
    """

    layers: tuple[str, ...]
    complete: bool
    regions_through: Mapping[str, int] = field(repr=False)
    classes: tuple[int, int] | None
    anchors: np.ndarray = field(repr=False)
    _polygons: Polygons = field(repr=False)
    _network: SlicedNetwork = field(repr=False)

    @property
    def num_regions(self) -> int:
        """Number of regions."""
        return len(self._polygons)

    @property
    def exact_through(self) -> str | None:
        """Last layer that is cut, by name; `None` where there is none."""
        return self.layers[-1] if self.layers else None

    @property
    def points(self) -> np.ndarray:
        """Corners of all regions, one after the other: array of shape `(n, 2)`."""
        return self._polygons.points[self._polygons.vertices]

    @property
    def offsets(self) -> np.ndarray:
        """Where the corners of each region begin in `points`, and the end."""
        return self._polygons.offsets

    @cached_property
    def areas(self) -> np.ndarray:
        """Areas of the regions in (u, v)."""
        return self._polygons.areas()

    @property
    def born(self) -> np.ndarray:
        """Names of the layers whose knots cut each region last; `""` if none did."""
        return np.array([*self.layers, ""])[self._polygons.born]

    @cached_property
    def codes(self) -> PartitionCodes:
        """The codes of the regions, all knots of the layers that are cut."""
        return self._network.codes(self._polygons, self.layers)

    @property
    def regions(self) -> Sequence[Region]:
        """The regions one by one; the arrays of the slice are faster to work on."""
        return _Regions(self)

    @property
    def lines(self) -> Mapping[str, np.ndarray]:
        """For each layer the segments at which its knots fold, `(m, 2, 2)`."""
        return {
            name: self._polygons.segments(number)
            for number, name in enumerate(self.layers)
        }

    @cached_property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """The outputs on the regions as affine maps of (u, v).

        Arrays of shape `(regions, outputs, 2)` and `(regions, outputs)`. Where the
        model ends in softmax, sigmoid or tanh, the outputs are what goes into it.
        The slope across a region of width w is known to about 1e-16 / w.

        Raises:
            ValueError: If the slice is not complete.
        """
        polygons, values = self._polygons, self._values
        first = polygons.offsets[:-1]
        corners = polygons.points[polygons.vertices]
        away = corners - np.repeat(corners[first], polygons.sizes, axis=0)
        # The largest triangle on the farthest corner from the first one.
        second = _largest((away**2).sum(axis=1), polygons)
        e = away[second]
        across = np.repeat(e[:, 0], polygons.sizes) * away[:, 1]
        across = across - np.repeat(e[:, 1], polygons.sizes) * away[:, 0]
        third = _largest(np.abs(across), polygons)
        f, turn = away[third], across[third]
        turn = np.where(turn == 0, np.inf, turn)
        start, one, two = (values[polygons.vertices[i]] for i in (first, second, third))
        rise, other = one - start, two - start
        slopes = np.stack(
            [
                rise * f[:, 1:] - other * e[:, 1:],
                other * e[:, :1] - rise * f[:, :1],
            ],
            axis=2,
        )
        slopes = slopes / turn[:, None, None]
        return slopes, start - np.einsum("rod,rd->ro", slopes, corners[first])

    @cached_property
    def boundary(self) -> np.ndarray:
        """The decision boundary as segments in (u, v), of shape `(m, 2, 2)`.

        The ties of the two largest outputs, or of the two `classes`; of one output
        its zeros. A tie that fills a whole region is no boundary.

        Raises:
            ValueError: If the slice is not complete.
        """
        number = len(self.layers)
        return np.concatenate(
            [self._parts.segments(number), self._along_knots(*self._ranked)]
        )

    @cached_property
    def decisions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The regions, cut once more at the boundary, and which class wins there.

        The corners of all parts and their offsets, as `points` and `offsets` hold
        those of the regions, and the class of each part: the largest output, or the
        larger of the two `classes`; of one output 1 where it is positive, else 0.

        Raises:
            ValueError: If the slice is not complete.
        """
        parts = self._parts
        values = parts.means(self._network.outputs(parts))
        if values.shape[1] == 1:
            winners = (values[:, 0] > 0).astype(int)
        else:
            among = np.array(self.classes or range(values.shape[1]))
            winners = among[values[:, among].argmax(axis=1)]
        return parts.points[parts.vertices], parts.offsets, winners

    @checked(inputs=Array(empty=True))
    def coordinates(self, inputs: np.ndarray) -> np.ndarray:
        """Find the points of the plane that are nearest to some inputs.

        Args:
            inputs: Array of shape `(n, *input shape)`.

        Returns:
            Their (u, v), an array of shape `(n, 2)`.

        Raises:
            ValueError: If the shape is another one.
        """
        first, *others = self.anchors.reshape(3, -1)
        inputs = np.asarray(inputs, "float64")
        if inputs.shape[1:] != self.anchors.shape[1:] or not inputs.ndim:
            raise ValueError(
                "The inputs must be of the shape of the anchors, after the batch axis. "
                f"Expected: {('n', *self.anchors.shape[1:])}. Received: shape "
                f"{inputs.shape}"
            )
        away = inputs.reshape(len(inputs), len(first)) - first
        basis = np.stack([other - first for other in others], axis=1)
        return np.asarray(np.linalg.lstsq(basis, away.T, rcond=None)[0].T)

    @cached_property
    def _ranked(self) -> tuple[list[np.ndarray], float]:
        """Columns of which the largest decides, and what counts as equal."""
        values = self._values
        if self.classes is not None:
            values = values[:, list(self.classes)]
        columns = list(np.split(values, values.shape[1], axis=1))
        if len(columns) == 1:
            columns.append(np.zeros_like(values))
        return columns, TOLERANCE * float(np.abs(values).max())

    @cached_property
    def _parts(self) -> Polygons:
        columns, tolerance = self._ranked
        return cut(self._polygons, columns, tolerance, len(self.layers), 2**62)[0]

    @cached_property
    def _values(self) -> np.ndarray:
        if not self.complete:
            raise ValueError(
                "The outputs are affine only on the regions of all layers that have "
                "knots. Raise `max_regions`, or leave `layers` out. Received: a slice "
                f"that is exact through {self.exact_through!r}"
            )
        return self._network.outputs(self._polygons)

    def _along_knots(
        self, columns: Sequence[np.ndarray], tolerance: float
    ) -> np.ndarray:
        """Find the edges of regions that are ties, seen from the lower class."""
        polygons = self._polygons
        values = np.concatenate(columns, axis=1)
        inside = polygons.means(values)
        best = inside.argmax(axis=1)
        own = np.repeat(best, polygons.sizes)
        held = values[polygons.vertices]
        ahead = np.take_along_axis(held, own[:, None], axis=1) - held
        tied = np.abs(ahead) <= tolerance
        then = following(polygons.offsets)
        lead = np.take_along_axis(inside, best[:, None], axis=1) - inside
        strict = np.repeat(lead > tolerance, polygons.sizes, axis=0)
        higher = np.arange(values.shape[1]) > own[:, None]
        # Of three that tie, only the two largest make the boundary.
        largest = (ahead >= -tolerance).all(axis=1)
        found = (tied & tied[then] & strict & higher).any(axis=1)
        places = np.flatnonzero(found & largest & largest[then])
        ends = polygons.vertices[np.stack([places, then[places]], axis=1)]
        return polygons.points[ends]


class _Regions(Sequence[Region]):
    def __init__(self, of: Slice) -> None:
        self._slice = of
        self._points, self._born = of.points, of.born

    def __len__(self) -> int:
        return self._slice.num_regions

    def __iter__(self) -> Iterator[Region]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Region:  # type: ignore[override]
        i = range(len(self))[index]
        bits = [self._bits(name, i) for name in self._slice.layers]
        start, end = self._slice.offsets[i : i + 2]
        return Region(
            self._points[start:end],
            float(self._slice.areas[i]),
            str(self._born[i]),
            np.concatenate([[], *bits]).astype(bool),
        )

    def _bits(self, layer: str, i: int) -> np.ndarray:
        codes = self._slice.codes
        return np.unpackbits(codes.packed[layer][i], count=codes.num_knots[layer])


def _largest(values: np.ndarray, polygons: Polygons) -> np.ndarray:
    """For each polygon find the slot of its largest value."""
    most = np.maximum.reduceat(values, polygons.offsets[:-1])
    corners = np.flatnonzero(values == np.repeat(most, polygons.sizes))
    owner = np.repeat(np.arange(len(polygons)), polygons.sizes)[corners]
    return corners[np.unique(owner, return_index=True)[1]]
