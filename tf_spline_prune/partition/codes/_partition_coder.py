"""`PartitionCoder`: reads the codes of a probe off a model."""

import bisect
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, LAYERS, SEED, Integer, checked
from tf_spline_prune.compat import (
    Call,
    CurrentWeights,
    call_layer,
    call_tapped,
    check_finite,
    compiled,
    fixed_size,
    states_kept,
    to_numpy,
    trace,
)
from tf_spline_prune.errors import (
    ModelError,
    SmoothActivationWarning,
    UnreadActivationWarning,
    warn,
)
from tf_spline_prune.partition._affine_network import pool_ties
from tf_spline_prune.partition.codes._knots import (
    Knots,
    asked_layers,
    is_unread,
    knots_of,
    tensor_of,
)
from tf_spline_prune.partition.codes._partition_codes import CodeLayout, PartitionCodes
from tf_spline_prune.partition.probes import check_probe

_LAYOUTS = ("channels_first", "channels_last")


class PartitionCoder:
    """Compute codes: which side of every knot of a network each input is on.

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
        layers: Names of the layers to code. Defaults to `None`, which means all that
            have knots.
        max_units_per_layer: A layer with more activations (positions times units) is
            coded on a fixed random subset of this size, chosen by `seed`, which
            estimates distances without bias; `None` codes all. Defaults to `4096`.
        seed: Seed of the subsets. Defaults to `0`.
        batch_size: Number of inputs that are run at a time. Defaults to `128`.
        max_bytes: Bound on the bytes of the codes of one probe; the subsets are made
            smaller until they fit. Defaults to `None`, which sets no bound.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has no knots.
        ValueError: If an argument is out of range or names an unknown layer.

    Example:

    ```python
    coder = tsp.PartitionCoder(model)
    before = coder(x)
    model.fit(train, epochs=1)
    tsp.partition_distance(before, coder(x))   # fraction of bits that changed
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning",
    TMLR 2022; the codes are those of its released detector where every
    BatchNormalization feeds a ReLU.
    """

    @checked(
        layers=LAYERS,
        max_units_per_layer=[COUNT, None],
        seed=SEED,
        batch_size=COUNT,
        max_bytes=[Integer(1), None],
    )
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
        self.model = model
        self.max_units_per_layer = max_units_per_layer
        self.seed = seed
        self.batch_size = batch_size
        self.max_bytes = max_bytes
        self._graph = trace(model)
        self._fixed = fixed_size(self._graph.inputs)
        self._knots = _select(self._find_knots(), layers)
        self._sampled: dict[str, Subset] = {}
        self._layout: CodeLayout | None = None
        self._pack = compiled(self._packed, model)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are coded, in the order of computation."""
        return tuple(self._knots)

    def __call__(self, x: Any) -> PartitionCodes:
        """Take the codes of a probe.

        Args:
            x: Array of shape `(n, *input shape)`, or a list or dict of such arrays
                for a model with several inputs.

        Returns:
            The codes.

        Raises:
            ProbeError: If the probe is empty, misshapen or not finite.
            ModelError: If the model has weights that are not finite.
        """
        inputs = check_probe(x, self._graph.inputs)
        for path, weights in CurrentWeights(self._graph).items():
            check_finite(path, weights)
        num_points = len(inputs[0])
        if self._layout is None:
            few = self._fixed or 1
            one = [_padded(i[:few], few) for i in inputs]
            self._layout = self._sample(one, num_points)
        # Equal batches keep one compiled function for the whole probe.
        size = self._fixed or min(self.batch_size, num_points)
        batches = []
        for start in range(0, num_points, size):
            batch = [_padded(i[start : start + size], size) for i in inputs]
            batches.append([to_numpy(bits) for bits in self._pack(batch)])
        packed = {
            name: np.concatenate([batch[i] for batch in batches])[:num_points]
            for i, name in enumerate(self._knots)
        }
        return PartitionCodes(packed, self._layout)

    def _find_knots(self) -> dict[str, Knots]:
        """Find every call with knots, and warn of the smooth ones."""
        found: dict[str, Knots] = {}
        ends = self._graph.ends()
        unread = []
        for call in self._graph.calls:
            knots = knots_of(call)
            if knots is None and call.name not in ends and is_unread(call):
                unread.append(call.name)
            if knots and not (knots.smooth and call.name in ends):
                found[call.name] = knots
        if not found:
            raise ModelError(
                "No piecewise-linear activation was found, so the model has no "
                "partition to read. Expected ReLU, LeakyReLU, PReLU, ReLU6, abs, "
                "hard_sigmoid, hard_tanh or max-pooling somewhere. Received: model "
                f"{self.model.name!r}."
            )
        if unread:
            warn(
                "Some activations are not known here and are not coded; the codes "
                f"are those of the others. This concerns: {', '.join(unread)}.",
                UnreadActivationWarning,
            )
        smooth = [name for name, knots in found.items() if knots.smooth]
        if smooth:
            warn(
                "Smooth activations have no knots; their codes are the signs of "
                f"their inputs. This concerns: {', '.join(smooth)}.",
                SmoothActivationWarning,
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
                else [tensor_of(args, kwargs)]
            )
            return output

        self._graph.run(inputs, apply)
        return {name: taps[name] for name in self._knots}

    def _sample(self, one: list[np.ndarray], num_points: int) -> CodeLayout:
        """Choose the activations to code, from the sizes seen on one input."""
        inputs = [keras.ops.convert_to_tensor(i) for i in one]
        with states_kept(self.model):
            taps = self._taps(inputs)
        shapes = {
            name: (tuple(tensors[0].shape)[1:], len(tensors))
            for name, tensors in taps.items()
        }
        # Knots per activation: positions on a value, or positions of a window.
        per_activation = {
            name: len(self._knots[name].positions) or count
            for name, (_, count) in shapes.items()
        }
        sizes = {name: int(np.prod(shape)) for name, (shape, _) in shapes.items()}
        cap = largest_cap(
            [(size, per_activation[name]) for name, size in sizes.items()],
            num_points,
            self.max_units_per_layer,
            self.max_bytes,
        )
        layouts = self._layouts()
        units, num_units, key = {}, {}, []
        for name, (shape, _) in shapes.items():
            first = layouts[name] == "channels_first" and len(shape) > 1
            axis = 0 if first else len(shape) - 1
            subset = Subset.choose(shape, axis, cap, name, self.seed)
            channels = np.unravel_index(subset.indices(), shape)[axis]
            units[name] = np.repeat(channels, per_activation[name])
            num_units[name] = shape[axis]
            key.append(f"{name} {shape} {zlib.crc32(subset.chosen.tobytes())}")
            self._sampled[name] = subset
        num_knots = {name: len(of_knots) for name, of_knots in units.items()}
        return CodeLayout(num_knots, num_units, units, "; ".join(key))

    def _layouts(self) -> dict[str, str]:
        """Follow through the graph whether channels come first or last."""
        found: dict[str, str] = {}
        layouts = dict.fromkeys(self._graph.input_tensors, "channels_last")
        for call in self._graph.calls:
            own = getattr(call.layer, "data_format", None)
            before = [layouts[tensor] for tensor in call.needs()] or ["channels_last"]
            found[call.name] = own if own in _LAYOUTS else before[0]
            layouts.update(dict.fromkeys(call.outputs, found[call.name]))
        return found

    def _packed(self, inputs: list[Any]) -> list[Any]:
        """Compute the packed codes of one batch; runs on the device."""
        inputs = [keras.ops.convert_to_tensor(i) for i in inputs]
        packed = []
        for name, tensors in self._taps(inputs).items():
            subset = self._sampled[name]
            flat = [subset.of(tensor) for tensor in tensors]
            positions = self._knots[name].positions
            bits = [flat[0] > knot for knot in positions] if positions else flat
            joined = bits[0] if len(bits) == 1 else keras.ops.stack(bits, axis=-1)
            packed.append(pack_bits(joined, subset.size * len(bits)))
        return packed


def _select(found: dict[str, Knots], layers: Iterable[str] | None) -> dict[str, Knots]:
    if layers is None:
        return found
    asked = asked_layers(layers, found)
    return {name: knots for name, knots in found.items() if name in asked}


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(batch)
    return (
        np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
    )


@dataclass(frozen=True, eq=False)
class Subset:
    """Which activations of a layer are coded.

    Attributes:
        chosen: Indices of blocks.
        count: Number of blocks in the layer.
        width: Activations in a block, side by side in memory.
    """

    chosen: np.ndarray
    count: int
    width: int

    @classmethod
    def choose(
        cls, shape: tuple[int, ...], axis: int, cap: int, name: str, seed: int
    ) -> "Subset":
        """Choose at most `cap` activations, or all if there are no more.

        Where the units lie side by side, a whole position is chosen with all its
        units: contiguous memory, and every unit is seen equally often.

        Args:
            shape: The layer's activations, without batch axis.
            axis: The axis of its units.
            cap: The most activations to choose.
            name: The layer's name: its subset depends on it and the seed alone.
            seed: The seed.
        """
        size = int(np.prod(shape))
        width = shape[-1] if axis == len(shape) - 1 and shape[-1] <= cap else 1
        count = size // width
        chosen = np.arange(count)
        if size > cap:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            chosen = np.sort(rng.choice(count, cap // width, replace=False))
        return cls(chosen.astype("int32"), count, width)

    def indices(self) -> np.ndarray:
        """Return the flat indices of the chosen activations."""
        flat = self.chosen[:, None].astype(int) * self.width + np.arange(self.width)
        return np.asarray(flat.ravel())

    @property
    def size(self) -> int:
        """Number of chosen activations."""
        return len(self.chosen) * self.width

    def of(self, tensor: Any) -> Any:
        """Take the subset from a tensor of shape `(n, *activations)`."""
        if len(self.chosen) < self.count:
            blocks = keras.ops.reshape(tensor, (-1, self.count, self.width))
            tensor = keras.ops.take(blocks, self.chosen, axis=1)
        return keras.ops.reshape(tensor, (-1, self.size))


def pack_bits(bits: Any, num_knots: int) -> Any:
    """Pack booleans into bytes, eight to a byte, first bit highest.

    A product with the powers of two is exact in float32 and faster than shifts
    on every backend.
    """
    values = keras.ops.cast(keras.ops.reshape(bits, (-1, num_knots)), "float32")
    values = keras.ops.pad(values, ((0, 0), (0, -num_knots % 8)))
    values = keras.ops.reshape(values, (-1, -(-num_knots // 8), 8))
    powers = np.array([128, 64, 32, 16, 8, 4, 2, 1], "float32")
    return keras.ops.cast(keras.ops.matmul(values, powers), "uint8")


def largest_cap(
    layers: Sequence[tuple[int, int]],
    num_points: int,
    most: int | None,
    max_bytes: int | None,
) -> int:
    """Find the largest number of activations a layer that fits both bounds.

    Args:
        layers: For each layer its number of activations and of knots in each.
        num_points: Number of inputs in the probe.
        most: Bound on the activations of a layer.
        max_bytes: Bound on the bytes of all codes.

    Returns:
        The number, at least 1.

    Raises:
        ValueError: If not even one activation a layer fits.
    """

    def total(cap: int) -> int:
        return num_points * sum(-(-min(size, cap) * k // 8) for size, k in layers)

    high = max(size for size, _ in layers)
    if most is not None:
        high = min(high, most)
    if max_bytes is None:
        return high
    cap = bisect.bisect_right(range(1, high + 1), max_bytes, key=total)
    if not cap:
        raise ValueError(
            "The codes of this probe do not fit, even with one activation per layer. "
            f"Use fewer probe inputs or a larger bound. Received: {num_points} inputs, "
            f"{len(layers)} layers, max_bytes={max_bytes}"
        )
    return cap
