"""`SlicedNetwork`: the folds of a network at points of a plane."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import Call, call_layer, call_tapped, to_numpy
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition.affine_network import AffineNetwork
from tf_spline_prune.partition.coder import PartitionCoder
from tf_spline_prune.partition.codes import PartitionCodes
from tf_spline_prune.partition.knots import tensor_of
from tf_spline_prune.partition.polygons import Polygons
from tf_spline_prune.partition.pool_ties import pool_windows

# So many numbers of one forward pass are held at a time.
_AT_ONCE = 2**23
# At so many regions it is checked that the network is affine there.
_CHECKED = 64


class SlicedNetwork:
    """A network on a plane of its input space, in float64.

    Args:
        model: A built model with one input and one output.
        anchors: Array of shape `(3, *input shape)`.

    Attributes:
        num_outputs: Number of outputs.

    Raises:
        ModelError: If the network is not made of piecewise-linear functions.
    """

    def __init__(self, model: Any, anchors: np.ndarray) -> None:
        self._network = AffineNetwork(model)
        self._knots = self._network.knots
        self._anchors = anchors.astype("float64")
        self._width = 0
        self.num_outputs = self._outputs(np.zeros((1, 2))).shape[1]

    @property
    def stops(self) -> tuple[str, ...]:
        """Names of the layers that have knots, in the order of computation."""
        return tuple(self._knots)

    def lots(self, polygons: Polygons) -> Iterator[Polygons]:
        """Yield the polygons in lots whose forward pass fits into memory."""
        # There are about two points a polygon.
        count = max(1, _AT_ONCE // self._width // 2)
        for start in range(0, len(polygons), count):
            yield polygons.take(np.arange(start, min(start + count, len(polygons))))

    def functions(self, stop: str, points: np.ndarray) -> list[np.ndarray]:
        """Evaluate the functions whose largest decides on each fold of a layer.

        Args:
            stop: Name of a layer.
            points: Array of shape `(n, 2)`.

        Returns:
            Arrays of shape `(n, folds)`, float64: values less their knots and zero,
            or the positions of a pooling window.
        """
        knots = self._knots[stop]
        found: list[Any] = []

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if found:  # nobody asks for what comes after
                return [0] * len(call.outputs)
            if call.name != stop:
                return call_layer(call, args, kwargs)
            if knots.source == "activation":
                output, tensor = call_tapped(call, args, kwargs)
                found.append(tensor)
                return output
            output = call_layer(call, args, kwargs)
            tensor = tensor_of(args, kwargs)
            pool = knots.source == "pool"
            found.extend(pool_windows(call, tensor, output) if pool else [tensor])
            return output

        self._network.graph.run([self._inputs(points)], apply)
        values = [_flat(tensor) for tensor in found]
        if knots.positions:
            above = [values[0] - knot for knot in knots.positions]
            ahead = above[0] if len(above) == 1 else np.concatenate(above, axis=1)
            return [ahead, np.broadcast_to(0.0, ahead.shape)]
        return _finite(values)

    def outputs(self, polygons: Polygons) -> np.ndarray:
        """Evaluate the outputs, of shape `(n, outputs)`, at the polygons' points."""
        count = max(1, _AT_ONCE // self._width)
        points = polygons.points
        return np.concatenate(
            [
                self._outputs(points[start : start + count])
                for start in range(0, len(points), count)
            ]
        )

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

    def check(self, polygons: Polygons, stop: str | None) -> None:
        """Check on a few polygons that what is evaluated there is affine.

        Args:
            polygons: Those that all earlier layers have cut.
            stop: Name of a layer; `None` stands for the outputs.

        Raises:
            ModelError: If it is not.
        """
        places = np.linspace(0, len(polygons) - 1, min(_CHECKED, len(polygons)))
        some = polygons.take(places.astype(int))
        count = len(some.points)
        points = np.concatenate([some.points, some.means(some.points)])
        found = (
            [self._outputs(points)] if stop is None else self.functions(stop, points)
        )
        for values in found:
            off = np.abs(values[count:] - some.means(values[:count])).max()
            if not off <= 1e-9 * np.abs(values).max():
                raise ModelError(
                    "The network is not affine on the regions between its knots, so "
                    "they are not its regions. A layer multiplies tensors, has knots "
                    "or a smooth function that are not known here, jumps, or does not "
                    "compute in float64. Slice the part of the model before it. "
                    f"Received: {stop or 'the outputs'!r} differs from an affine "
                    f"function by {off:.1e}"
                )

    def _inputs(self, points: np.ndarray) -> Any:
        first, *others = self._anchors
        basis = np.stack([other - first for other in others]).reshape(2, -1)
        x = (points @ basis).reshape(-1, *first.shape) + first
        return keras.ops.convert_to_tensor(x, dtype="float64")

    def _outputs(self, points: np.ndarray) -> np.ndarray:
        seen: list[Any] = []
        output = self._network.run(self._inputs(points), seen)
        sizes = [np.prod(t.shape[1:]) for t in keras.tree.flatten(seen)]
        self._width = max(int(sum(sizes)), int(np.prod(self._anchors.shape[1:])))
        return _flat(output)


def _flat(tensor: Any) -> np.ndarray:
    array = to_numpy(tensor)
    return array.reshape(len(array), -1).astype("float64", copy=False)


def _finite(values: list[np.ndarray]) -> list[np.ndarray]:
    """Put a number below all others in the place of minus infinity."""
    seen = [value[np.isfinite(value)] for value in values]
    low = min(float(value.min(initial=0.0)) for value in seen)
    high = max(float(value.max(initial=0.0)) for value in seen)
    return [np.maximum(value, 2 * low - high - 1) for value in values]
