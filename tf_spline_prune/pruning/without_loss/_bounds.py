"""Between which values the output of each common layer lies.

Along space bounds are joined to one, so they cost nothing to speak of. What no rule
covers may take any value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import Call, activation_name, to_numpy
from tf_spline_prune.graph._facts import Shape, channel_axis, norm_axis
from tf_spline_prune.graph._unit_path import batchnorm_factor
from tf_spline_prune.graph.rules._elementwise import is_known


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


# Functions of single entries that never fall, by the name Keras serialises.
_RISING = frozenset(
    "linear relu relu6 leaky_relu elu selu celu sigmoid tanh softplus softsign "
    "hard_sigmoid hard_sigmoid_2.5 hard_tanh exponential log_sigmoid squareplus".split()
)
# Others of single entries: a value that never changes stays one.
_OTHER = frozenset("gelu silu swish mish hard_silu hard_swish abs tanh_shrink".split())


def activated(function: Any, value: Bounds, dtype: str) -> Bounds | None:
    """Bound what an activation function makes of a tensor.

    Args:
        function: An activation function of either flavour, or `None`.
        value: The bounds of its input.
        dtype: The dtype that it computes in.

    Returns:
        The bounds of its output; `None` if the function is not known.
    """
    name = activation_name(function) if callable(function) else "linear"
    if name == "linear":
        return value
    if not is_known(function) or name not in _RISING | _OTHER:
        return None
    low, high = (
        to_numpy(function(keras.ops.convert_to_tensor(bound))).astype("float64")
        for bound in _both(value, dtype)
    )
    if name in _RISING:
        return Bounds(low, high)
    fixed = value.low == value.high
    return Bounds(np.where(fixed, low, -np.inf), np.where(fixed, high, np.inf))


def _both(value: Bounds, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    # A copy: a backend must not see an array that numpy only pretends to hold.
    wide = "float64" if dtype == "float64" else "float32"
    return np.array(value.low, wide), np.array(value.high, wide)


def slope_below(layer: Any, threshold: float = 0.0) -> float:
    """Measure the slope of a ReLU or LeakyReLU below its threshold.

    TensorFlow rounds it to float32, whatever it computes in.

    Args:
        layer: The layer, or a function like one.
        threshold: Its threshold. Defaults to `0.0`.
    """
    function = getattr(layer, "call", layer)
    point = keras.ops.convert_to_tensor(np.array([threshold - 1.0]))
    return -float(to_numpy(function(point))[0]) + 0.0


Arrays = Mapping[str, np.ndarray]

_IDENTITIES = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("GaussianNoise", "GaussianDropout", "AlphaDropout", "StochasticDepth"),
    *("Identity", "ActivityRegularization", "op:identity", "op:stopgradient"),
)


@dataclass(frozen=True, eq=False)
class _Site:
    """All that a rule needs to know of a call; see `after`."""

    call: Call
    values: list[Bounds]
    shapes: Sequence[Shape]
    output: Shape
    arrays: Arrays
    bare: bool

    @property
    def value(self) -> Bounds:
        return self.values[0]

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    def activated(self, found: Bounds) -> Bounds | None:
        """Bound what the layer's own activation makes of it, unless left out."""
        if self.bare:
            return found
        layer = self.call.layer
        dtype = str(getattr(layer, "compute_dtype", "float32"))
        return activated(layer.activation, found, dtype)


def after(
    call: Call,
    values: list[Bounds],
    shapes: Sequence[Shape],
    output: Shape,
    arrays: Arrays,
    bare: bool = False,
) -> Bounds:
    """Bound what a call gives in inference.

    Args:
        call: The call.
        values: The bounds of its inputs.
        shapes: The shapes of its inputs, the batch axis first.
        output: The shape of its one output.
        arrays: The weights of its layer, by name.
        bare: Whether the activation inside a dense layer or convolution is left out.

    Returns:
        The bounds of the output; infinite where no rule covers the call.
    """
    rule = _RULES.get(call.kind)
    known = len(values) == len(shapes) and all(v.low.ndim for v in values)
    if rule is None or not known:
        return Bounds.unknown(output)
    with np.errstate(invalid="ignore", over="ignore"):
        found = rule(_Site(call, values, shapes, output, arrays, bare))
    if found is None or found.low.ndim != len(output) - 1:
        return Bounds.unknown(output)
    return Bounds.of(found.low, found.high)


def _dense(site: _Site) -> Bounds | None:
    kernel = site.arrays["kernel"].astype("float64")
    value = site.value.full(site.value.low.ndim - 1, len(kernel))
    found = affine(value, kernel)
    bias = site.arrays.get("bias", np.zeros(1)).astype("float64")
    return site.activated(Bounds(found.low + bias, found.high + bias))


def _space(site: _Site) -> tuple[int, list[int]]:
    """Return the channel axis and the others, the batch left out."""
    rank = len(site.shape)
    channel = channel_axis(site.call, rank) - 1
    return channel, [axis for axis in range(rank - 1) if axis != channel]


def _convolution(site: _Site) -> Bounds | None:
    kernel = site.arrays["kernel"].astype("float64")
    channel, space = _space(site)
    value = site.value.joined(space)
    if site.call.layer.padding != "valid":
        value = value.with_zero()
    depthwise = site.call.kind.startswith("Depthwise")
    taken = site.shape[channel + 1]
    if taken is None or (not depthwise and site.call.layer.groups != 1):
        return None
    value = value.full(channel, taken).map(lambda b: b.reshape(-1))
    over = tuple(range(kernel.ndim - 2))
    positive = np.maximum(kernel, 0).sum(over)
    negative = np.minimum(kernel, 0).sum(over)
    if depthwise:
        low, high = value.low[:, None], value.high[:, None]
        found = Bounds(
            (product(low, positive) + product(high, negative)).reshape(-1),
            (product(high, positive) + product(low, negative)).reshape(-1),
        )
    else:
        # Positive and negative weights apart, for they may meet at one channel.
        twice = Bounds(np.tile(value.low, 2), np.tile(value.high, 2))
        found = affine(twice, np.concatenate([positive, negative]))
    bias = site.arrays.get("bias", np.zeros(1)).astype("float64")
    shape = [1] * (len(site.output) - 1)
    shape[channel] = len(found.low)
    found = Bounds(
        (found.low + bias).reshape(shape), (found.high + bias).reshape(shape)
    )
    return site.activated(found)


def _batchnorm(site: _Site) -> Bounds | None:
    axis = norm_axis(site.call, len(site.shape)) - 1
    arrays = {name: array.astype("float64") for name, array in site.arrays.items()}
    scale = batchnorm_factor(site.call.layer, arrays)
    offset = arrays.get("beta", np.zeros(1)) - scale * arrays["moving_mean"]
    shape = [1] * site.value.low.ndim
    shape[axis] = len(scale)
    return scaled(
        site.value.full(axis, len(scale)),
        scale.reshape(shape),
        offset.reshape(shape),
    )


def _rescaling(site: _Site) -> Bounds | None:
    layer = site.call.layer
    scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    if scale.ndim or offset.ndim:
        return None
    return scaled(site.value, scale.astype("float64"), offset.astype("float64"))


def _activation(site: _Site) -> Bounds | None:
    return site.activated(site.value)


def _relu(site: _Site) -> Bounds | None:
    layer = site.call.layer
    config = layer.get_config() if site.call.kind == "ReLU" else vars(layer)
    top = config.get("max_value")
    slope = float(config.get("negative_slope") or 0.0)
    threshold = float(config.get("threshold") or 0.0)
    if slope < 0 or threshold < 0:
        return None
    if slope and site.call.kind == "ReLU":
        slope = slope_below(layer, threshold)

    def function(x: np.ndarray) -> np.ndarray:
        below = np.where(x < threshold, product(np.array(slope), x - threshold), x)
        return below if top is None else np.minimum(below, float(top))

    return site.value.map(function)


def _leaky(site: _Site) -> Bounds | None:
    config = site.call.layer.get_config()
    slope = float(config.get("negative_slope", config.get("alpha", -1.0)))
    if slope < 0:
        return None
    slope = slope_below(site.call.layer)
    return site.value.map(lambda x: np.where(x < 0, product(np.array(slope), x), x))


def _identity(site: _Site) -> Bounds | None:
    return site.value


def _pool(site: _Site) -> Bounds | None:
    _, space = _space(site)
    method = getattr(site.call.layer, "interpolation", "nearest")
    if method not in ("nearest", "bilinear"):  # others overshoot
        return None
    if site.call.kind.startswith("Global"):
        return site.value.joined(space, keepdims=len(site.output) == len(site.shape))
    found = site.value.joined(space)
    # Backends differ in what an average over a border divides by.
    padded = site.call.kind.startswith("Average") and site.call.layer.padding != "valid"
    return found.with_zero() if padded or "ZeroPadding" in site.call.kind else found


def _flatten(site: _Site) -> Bounds | None:
    if None in site.shape[1:] or None in site.output[1:]:
        return None
    found = site.value.spread(site.shape)
    first = getattr(site.call.layer, "data_format", "") == "channels_first"
    if site.call.kind == "Flatten" and first and len(site.shape) > 2:
        found = found.map(lambda b: np.moveaxis(b, 0, -1))
    sizes = [int(size or 0) for size in site.output[1:]]
    if found.low.size != np.prod(sizes):  # positions that go into the batch
        return None
    return found.map(lambda b: b.reshape(sizes))


def _sum(site: _Site) -> Bounds | None:
    if not _alike(site):
        return None
    low = sum(v.low for v in site.values)
    high = sum(v.high for v in site.values)
    count = len(site.values) if site.call.kind == "Average" else 1
    return Bounds(np.asarray(low) / count, np.asarray(high) / count)


def _multiply(site: _Site) -> Bounds | None:
    if not _alike(site):
        return None
    found = site.value
    for other in site.values[1:]:
        ends = [
            product(a, b)
            for a in (found.low, found.high)
            for b in (other.low, other.high)
        ]
        found = Bounds(np.minimum.reduce(ends), np.maximum.reduce(ends))
    return found


def _alike(site: _Site) -> bool:
    """Return whether all inputs of an entrywise call are bounded tensors of a rank."""
    ranks = {value.low.ndim for value in site.values}
    return not site.call.arrays() and len(site.values) > 1 and len(ranks) == 1


def _concatenate(site: _Site) -> Bounds | None:
    axis = int(site.call.layer.axis) % len(site.output) - 1
    sizes = [shape[axis + 1] for shape in site.shapes]
    if axis < 0 or None in sizes:
        return None
    wide = [v.full(axis, int(s or 0)) for v, s in zip(site.values, sizes, strict=True)]
    most = [max(one) for one in zip(*(v.low.shape for v in wide), strict=True)]

    def parts(bounds: list[np.ndarray]) -> np.ndarray:
        written = []
        for bound in bounds:
            shape = list(most)
            shape[axis] = bound.shape[axis]
            written.append(np.broadcast_to(bound, shape))
        return np.concatenate(written, axis)

    return Bounds(parts([v.low for v in wide]), parts([v.high for v in wide]))


_Rule = Callable[[_Site], Bounds | None]
_RULES: dict[str, _Rule] = {
    "Dense": _dense,
    "BatchNormalization": _batchnorm,
    "Rescaling": _rescaling,
    "Activation": _activation,
    "ReLU": _relu,
    "op:relu": _relu,
    "LeakyReLU": _leaky,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Concatenate": _concatenate,
    "Add": _sum,
    "op:add": _sum,
    "Average": _sum,
    "Multiply": _multiply,
    "op:multiply": _multiply,
    **dict.fromkeys(_IDENTITIES, _identity),
    **{f"Conv{n}D": _convolution for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _convolution for n in (1, 2)},
    **{
        f"{kind}{n}D": _pool
        for kind in (
            *("MaxPooling", "AveragePooling", "GlobalMaxPooling", "Cropping"),
            *("GlobalAveragePooling", "ZeroPadding", "UpSampling"),
        )
        for n in (1, 2, 3)
    },
}
