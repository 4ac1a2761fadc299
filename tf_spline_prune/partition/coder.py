"""`PartitionCoder`: reads the codes of a probe off a model."""

import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Call,
    call_layer,
    call_tapped,
    check_finite,
    compiled,
    current_weights,
    to_numpy,
    trace,
)
from tf_spline_prune.errors import ModelError, SmoothActivationWarning
from tf_spline_prune.partition.codes import PartitionCodes
from tf_spline_prune.partition.knots import Knots, knots_of
from tf_spline_prune.partition.pool_ties import pool_ties
from tf_spline_prune.partition.probes import check_probe


class PartitionCoder:
    """Reads which side of every knot of a network each input is on.

    A network of piecewise-linear activations is a continuous piecewise-affine
    spline. The inputs that are on the same side of every knot form a region, on
    which the network is one affine map; their shared pattern of sides is the
    region's code. Codes are taken at the input of each activation: activation
    layers, activations inside other layers, activation operations, and the ties
    of max-pooling windows; in functional, Sequential, nested and subclassed
    models of both flavours. A bit is 1 where the input of the activation is
    strictly greater than the knot; for a max-pool there is a bit a window
    position, 1 where it attains the maximum.

    A smooth activation has no knot; the sign of its input stands in, with one
    warning. Smooth activations at a model's outputs are left out, and so is
    softmax, which is no function of single units.

    Bits are packed on the device, batch by batch, so that memory is bounded by
    one batch and the codes. The weights are read at each call: keep one coder
    through a training.

    Args:
        model: A built model.
        layers: Names of the layers to code; `None` means all that have knots.
        max_units_per_layer: A layer with more activations (positions times
            units) is coded on a fixed random subset of this size, chosen by
            `seed`, which estimates distances without bias. `None` codes all.
        seed: Seed of the subsets.
        batch_size: Number of inputs that are run at a time.
        max_bytes: Bound on the bytes of the codes of one probe; the subsets are
            made smaller until they fit. `None` sets no bound.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has no knots.
        ValueError: If an argument is out of range or names an unknown layer.

    Example:

    ```python
    coder = tsp.PartitionCoder(model)
    before = coder(x)
    model.fit(train, epochs=1)
    tsp.partition_distance(before, coder(x))   # share of bits that changed
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning",
    TMLR 2022; the codes are those of its released detector where every
    BatchNormalization feeds a ReLU.
    """

    def __init__(
        self,
        model: Any,
        layers: Iterable[str] | None = None,
        max_units_per_layer: int | None = 4096,
        seed: int = 0,
        *,
        batch_size: int = 128,
        max_bytes: int | None = None,
    ) -> None:
        for name, value in (
            ("max_units_per_layer", max_units_per_layer),
            ("batch_size", batch_size),
            ("max_bytes", max_bytes),
        ):
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        self.model = model
        self.max_units_per_layer = max_units_per_layer
        self.seed = seed
        self.batch_size = batch_size
        self.max_bytes = max_bytes
        self._graph = trace(model)
        self._knots = _select(self._find_knots(), layers)
        self._sampled: dict[str, _Subset] | None = None
        self._units: dict[str, np.ndarray] = {}
        self._pack = compiled(self._packed, model)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are coded, in the order of computation."""
        return tuple(self._knots)

    def __call__(self, x: Any) -> PartitionCodes:
        """Take the codes of a probe.

        Args:
            x: Array of shape `(n, *input shape)`, or a list of such arrays for a
                model with several inputs.

        Returns:
            The codes.

        Raises:
            ProbeError: If the probe is empty, misshapen or not finite.
            ModelError: If the model has weights that are not finite.
        """
        inputs = check_probe(x, self._graph.inputs)
        for path, weights in current_weights(self._graph).items():
            check_finite(path, weights)
        num_points = len(inputs[0])
        if self._sampled is None:
            self._sampled = self._sample([i[:1] for i in inputs], num_points)
        # Equal batches keep one compiled function for the whole probe.
        size = min(self.batch_size, num_points)
        batches = []
        for start in range(0, num_points, size):
            batch = [_padded(i[start : start + size], size) for i in inputs]
            batches.append([to_numpy(bits) for bits in self._pack(batch)])
        packed = {
            name: np.concatenate([batch[i] for batch in batches])[:num_points]
            for i, name in enumerate(self._knots)
        }
        return PartitionCodes(
            packed, {n: len(u) for n, u in self._units.items()}, self._units
        )

    def _find_knots(self) -> dict[str, Knots]:
        """Find every call with knots, and warn of the smooth ones."""
        found: dict[str, Knots] = {}
        at_output = set(self._graph.output_ids)
        for call in self._graph.leaves():
            knots = knots_of(call)
            if knots and not (knots.smooth and at_output.intersection(call.outputs)):
                found[call.name] = knots
        if not found:
            raise ModelError(
                "No piecewise-linear activation was found, so the model has no "
                "partition to read. Expected ReLU, LeakyReLU, PReLU, ReLU6, abs, "
                "hard_sigmoid, hard_tanh or max-pooling somewhere. Received: model "
                f"{self.model.name!r}."
            )
        smooth = [name for name, knots in found.items() if knots.smooth]
        if smooth:
            warnings.warn(
                "Smooth activations have no knots; their codes are the signs of "
                f"their inputs. This concerns: {', '.join(smooth)}.",
                SmoothActivationWarning,
                stacklevel=3,
            )
        return found

    def _taps(self, inputs: list[Any]) -> dict[str, list[Any]]:
        """Run the model and catch one tensor a knot of every coded call.

        Returns:
            For each layer, tensors of one shape `(n, *activations)`: boolean for
            pools, else the input of the activation, still to be compared.
        """
        taps: dict[str, list[Any]] = {}

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            knots = self._knots.get(call.name)
            if knots is None:
                return call_layer(call, args, kwargs)
            if knots.source == "activation":
                output, tensor = call_tapped(call, args, kwargs)
                taps[call.name] = [tensor]
                return output
            output = call_layer(call, args, kwargs)
            taps[call.name] = (
                pool_ties(call, args[0], output)
                if knots.source == "pool"
                else [args[0] if args else next(iter(kwargs.values()))]
            )
            return output

        self._graph.run(inputs, apply)
        return {name: taps[name] for name in self._knots}

    def _sample(self, one: list[np.ndarray], num_points: int) -> dict[str, "_Subset"]:
        """Choose the activations to code, from the sizes seen on one input."""
        inputs = [keras.ops.convert_to_tensor(i) for i in one]
        shapes = {
            name: (tuple(tensors[0].shape)[1:], len(tensors))
            for name, tensors in self._taps(inputs).items()
        }
        # Knots per activation: positions on a value, or positions of a window.
        per_activation = {
            name: len(self._knots[name].positions) or count
            for name, (_, count) in shapes.items()
        }
        sizes = {name: int(np.prod(shape)) for name, (shape, _) in shapes.items()}
        cap = self._cap(sizes, per_activation, num_points)
        sampled = {}
        for name, (shape, _) in shapes.items():
            axis = _channel_axis(self._call(name), len(shape))
            # Where the units come last, a whole position is chosen with all its
            # units: contiguous memory, and every unit is seen equally often.
            width = shape[-1] if axis == len(shape) - 1 and shape[-1] <= cap else 1
            count = sizes[name] // width
            chosen = np.arange(count)
            if count * width > cap:
                # A layer's subset depends on its name and the seed alone.
                rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
                chosen = np.sort(rng.choice(count, cap // width, replace=False))
            flat = (chosen[:, None] * width + np.arange(width)).ravel()
            channels = np.unravel_index(flat, shape)[axis]
            self._units[name] = np.repeat(channels, per_activation[name])
            sampled[name] = _Subset(chosen.astype("int32"), count, width)
        return sampled

    def _cap(
        self, sizes: dict[str, int], per_activation: dict[str, int], num_points: int
    ) -> int:
        """Find the largest subset size within both bounds."""

        def total(cap: int) -> int:
            return num_points * sum(
                -(-min(size, cap) * per_activation[name] // 8)
                for name, size in sizes.items()
            )

        high = max(sizes.values())
        if self.max_units_per_layer is not None:
            high = min(high, self.max_units_per_layer)
        if self.max_bytes is None or total(high) <= self.max_bytes:
            return high
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if total(middle) <= self.max_bytes else (low, middle)
            )
        if low == 0:
            raise ValueError(
                "The codes of this probe do not fit, even with one activation a "
                "layer. Use fewer probe inputs or a larger bound. Received: "
                f"{num_points} inputs, {len(sizes)} layers, "
                f"max_bytes={self.max_bytes}"
            )
        return low

    def _call(self, name: str) -> Call:
        return next(call for call in self._graph.leaves() if call.name == name)

    def _packed(self, inputs: list[Any]) -> list[Any]:
        """Compute the packed codes of one batch; runs on the device."""
        inputs = [keras.ops.convert_to_tensor(i) for i in inputs]
        sampled = self._sampled or {}
        packed = []
        for name, tensors in self._taps(inputs).items():
            flat = [sampled[name].of(t) for t in tensors]
            positions = self._knots[name].positions
            bits = [flat[0] > knot for knot in positions] if positions else flat
            joined = bits[0] if len(bits) == 1 else keras.ops.stack(bits, axis=-1)
            packed.append(_pack_bits(joined, sampled[name].size * len(bits)))
        return packed


def _select(found: dict[str, Knots], layers: Iterable[str] | None) -> dict[str, Knots]:
    if layers is None:
        return found
    asked = [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in asked if name not in found]
    if unknown or not asked:
        raise ValueError(
            f"`layers` must name layers that have knots: {tuple(found)}. "
            f"Received: {unknown or asked}"
        )
    return {name: knots for name, knots in found.items() if name in asked}


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(batch)
    return (
        np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
    )


def _channel_axis(call: Call, rank: int) -> int:
    """Find the axis of units in an activation's shape without the batch axis."""
    default = keras.config.image_data_format() if rank > 2 else "channels_last"
    layout = getattr(call.layer, "data_format", None) or default
    return 0 if layout == "channels_first" and rank > 1 else rank - 1


@dataclass(frozen=True, eq=False)
class _Subset:
    """Which activations of a layer are coded.

    Attributes:
        chosen: Indices of blocks.
        count: Number of blocks in the layer.
        width: Activations in a block, side by side in memory.
    """

    chosen: np.ndarray
    count: int
    width: int

    @property
    def size(self) -> int:
        return len(self.chosen) * self.width

    def of(self, tensor: Any) -> Any:
        """Take the subset from a tensor of shape `(n, *activations)`."""
        if len(self.chosen) < self.count:
            blocks = keras.ops.reshape(tensor, (-1, self.count, self.width))
            tensor = keras.ops.take(blocks, self.chosen, axis=1)
        return keras.ops.reshape(tensor, (-1, self.size))


def _pack_bits(bits: Any, num_knots: int) -> Any:
    """Pack booleans into bytes, eight to a byte, first bit highest.

    A product with the powers of two is exact in float32 and faster than shifts
    on every backend.
    """
    values = keras.ops.cast(keras.ops.reshape(bits, (-1, num_knots)), "float32")
    values = keras.ops.pad(values, ((0, 0), (0, -num_knots % 8)))
    values = keras.ops.reshape(values, (-1, -(-num_knots // 8), 8))
    powers = np.array([128, 64, 32, 16, 8, 4, 2, 1], "float32")
    return keras.ops.cast(keras.ops.matmul(values, powers), "uint8")
