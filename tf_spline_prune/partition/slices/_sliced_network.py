"""`SlicedNetwork`: a network at the corners of polygons, one layer after the other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import Tensor, Values, run_calls, to_numpy
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._affine_network import AffineNetwork, flat
from tf_spline_prune.partition.codes._partition_coder import PartitionCoder
from tf_spline_prune.partition.codes._partition_codes import PartitionCodes
from tf_spline_prune.partition.slices._polygons import Polygons

# So many numbers of one forward pass are held at a time.
_AT_ONCE = 2**21
# At so many regions of a lot it is checked that the network is affine there.
_CHECKED = 64
# The plane is looked at on so many points along each axis before it is cut.
_GRID = 9


@dataclass(frozen=True)
class _Held:
    """A tensor that is carried from polygons to their parts.

    Attributes:
        name: Its name in the graph.
        shape: Its shape for one point.
        dtype: Its dtype.
    """

    name: Tensor
    shape: tuple[int, ...]
    dtype: str


class SlicedNetwork:
    """A network on a plane of its input space, in float64.

    Each step is run once: at the corners of the polygons that all layers before it
    have cut. What later steps read is affine there, so it is handed on to the
    corners of their parts without another run.

    Args:
        network: The network.
        anchors: Array of shape `(3, *input shape)`.
        extent: The least and the greatest u and v.

    Attributes:
        num_outputs: Number of outputs.
        sizes: For each layer with knots the size of what its knots lie on, on a grid
            of points: what is small against it is rounding.
    """

    def __init__(
        self,
        network: AffineNetwork,
        anchors: np.ndarray,
        extent: tuple[float, float],
    ) -> None:
        self._network = network
        self._anchors = anchors.astype("float64")
        self._graph = network.graph
        self._order = [call.key for call in self._graph.calls]
        self._spent = self._graph.spent(self._order)
        self._places = {
            call.name: place
            for place, call in enumerate(self._graph.calls)
            if call.name in self._network.knots
        }
        self._held: dict[int, list[_Held]] = {}
        # In a few regions all units may be off, and what is left be rounding.
        self._scales: dict[int, float] = {}
        self.sizes: dict[str, float] = {}
        self._width = 0
        self.num_outputs = self._look(extent)

    @property
    def stops(self) -> tuple[str, ...]:
        """Names of the layers that have knots, in the order of computation."""
        return tuple(self._places)

    def lots(self, polygons: Polygons) -> Iterator[Polygons]:
        """Yield the polygons in lots whose forward pass fits into memory."""
        # There are about two points per polygon.
        count = max(1, _AT_ONCE // self._width // 2)
        if 0 < len(polygons) <= count:
            yield polygons
            return
        for start in range(0, len(polygons), count):
            yield polygons.take(np.arange(start, min(start + count, len(polygons))))

    def start(self, polygons: Polygons) -> Polygons:
        """Put the inputs of the network at the points of polygons."""
        return polygons.holding(flat(self._inputs(polygons.points)))

    def carry(
        self, polygons: Polygons, since: str | None, stop: str
    ) -> tuple[Polygons, list[np.ndarray]]:
        """Run the steps from one layer with knots up to the next.

        On some polygons the steps are run at the mean of the corners too. What comes
        out must be the mean of what comes out at the corners.

        Args:
            polygons: Those that all layers before `stop` have cut. Their values are
                those before the layer `since`.
            since: Name of a layer; `None` stands for the inputs.
            stop: Name of the same layer or a later one.

        Returns:
            The polygons with the values before `stop`; and the functions whose
            largest decides on each fold of `stop`, as `AffineNetwork.folds` gives
            them.

        Raises:
            ModelError: If the network is not affine on the polygons.
        """
        first = 0 if since is None else self._places[since]
        last = self._places[stop]
        some = np.linspace(0, len(polygons) - 1, min(_CHECKED, len(polygons)))
        means = polygons.means(polygons.values, some.astype(int))
        given = np.concatenate([polygons.values, means])
        values = self._unfold(given, self._held[first])
        for place in range(first, last):
            self._step(place, values)
        call = self._graph.calls[last]
        functions = self._network.folds(call, *call.fill(values))
        columns = [
            to_numpy(values[one.name]).reshape(len(given), -1)
            for one in self._held[last]
        ]
        count = len(polygons.points)
        for found in (*columns, *functions):
            of_corners = polygons.means(found[:count], some.astype(int))
            _require_affine(found[count:], of_corners, self._scales[last], stop)
        carried = np.concatenate([found[:count] for found in columns], axis=1)
        return polygons.holding(carried), [found[:count] for found in functions]

    def outputs(self, polygons: Polygons) -> np.ndarray:
        """Evaluate the outputs, of shape `(n, outputs)`, at the polygons' points."""
        return self._outputs(polygons.points)

    def codes(self, polygons: Polygons, layers: tuple[str, ...]) -> PartitionCodes:
        """Take the codes of some layers at the mean of each polygon's vertices."""
        count = max(1, _AT_ONCE // self._width)
        points = polygons.means(polygons.points)
        coder = PartitionCoder(
            self._network.model, layers, max_units_per_layer=None, batch_size=count
        )
        lots = [
            coder(to_numpy(self._inputs(points[start : start + count])))
            for start in range(0, len(points), count)
        ]
        packed = {
            name: np.concatenate([lot.packed[name] for lot in lots])
            for name in coder.layers
        }
        return PartitionCodes(packed, lots[0].layout)

    def check(self, polygons: Polygons) -> None:
        """Check on a few polygons that the outputs, from the inputs on, are affine.

        Args:
            polygons: Those that all layers have cut.

        Raises:
            ModelError: If they are not.
        """
        places = np.linspace(0, len(polygons) - 1, min(_CHECKED, len(polygons)))
        some = polygons.take(places.astype(int))
        middles = self._outputs(some.means(some.points))
        corners = self._outputs(some.points)
        scale = float(np.abs(corners).max())
        _require_affine(middles, some.means(corners), scale, "the outputs")

    def _look(self, extent: tuple[float, float]) -> int:
        """Run the network once; see what it holds, and how many outputs it has."""
        axis = np.linspace(*extent, _GRID)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        count = len(points)
        values: Values = {self._graph.input_tensors[0]: self._inputs(points)}
        for place, call in enumerate(self._graph.calls):
            if not place or call.name in self._places:
                live = sorted(self._graph.live(self._order, place))
                held = self._held[place] = [
                    _Held(
                        name,
                        (len(values[name]) // count, *values[name].shape[1:]),
                        keras.backend.standardize_dtype(values[name].dtype),
                    )
                    for name in live
                ]
            if call.name in self._places:
                functions = self._network.folds(call, *call.fill(values))
                size = self.sizes[call.name] = _largest(functions)
                carried = [to_numpy(values[one.name]) for one in held]
                self._scales[place] = max(size, _largest(carried))
            self._step(place, values)
            sizes = [math.prod(tensor.shape) // count for tensor in values.values()]
            self._width = max(self._width, sum(sizes))
        return math.prod(values[self._graph.output_tensors[0]].shape[1:])

    def _step(self, place: int, values: Values) -> None:
        """Run one call, and drop what nobody needs any more."""
        run_calls([self._graph.calls[place]], values, self._network.apply)
        for name in self._spent[place]:
            values.pop(name, None)

    def _unfold(self, table: np.ndarray, held: list[_Held]) -> Values:
        """Make tensors of the columns of a table."""
        values: Values = {}
        start = 0
        for one in held:
            columns = table[:, start : start + math.prod(one.shape)]
            start += columns.shape[1]
            shape = (len(table) * one.shape[0], *one.shape[1:])
            values[one.name] = keras.ops.convert_to_tensor(
                columns.reshape(shape), dtype=one.dtype
            )
        return values

    def _inputs(self, points: np.ndarray) -> Any:
        first, *others = self._anchors
        basis = np.stack([other - first for other in others]).reshape(2, -1)
        x = (points @ basis).reshape(-1, *first.shape) + first
        return keras.ops.convert_to_tensor(x, dtype="float64")

    def _outputs(self, points: np.ndarray) -> np.ndarray:
        count = max(1, _AT_ONCE // self._width)
        found = []
        for start in range(0, len(points), count):
            inputs = self._inputs(points[start : start + count])
            values: Values = {self._graph.input_tensors[0]: inputs}
            for place in range(len(self._order)):
                self._step(place, values)
            found.append(flat(values[self._graph.output_tensors[0]]))
        return np.concatenate(found)


def _require_affine(
    middles: np.ndarray, of_corners: np.ndarray, scale: float, what: str
) -> None:
    off = np.abs(middles - of_corners).max(initial=0.0)
    if not off <= 1e-9 * scale:
        raise ModelError(
            "The network is not affine on the regions between its knots, so they are "
            "not its regions. A layer multiplies tensors, has knots or a smooth "
            "function that are not known here, jumps, or does not compute in float64, "
            "as BatchNormalization and means on JAX. Slice the part of the model "
            "before it, or set KERAS_BACKEND=tensorflow. Received: up to "
            f"{what!r}, a tensor differs from an affine function by {off:.1e}, on the "
            f"backend {keras.config.backend()!r}"
        )


def _largest(arrays: list[np.ndarray]) -> float:
    return max(float(np.abs(array).max(initial=0.0)) for array in arrays)
