"""`AffineNetwork`: a network whose pieces are affine, in float64."""

import itertools
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Call,
    CurrentWeights,
    Graph,
    call_layer,
    call_tapped,
    check_finite,
    to_numpy,
    trace,
    with_dtype,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._logits import RISING, Logits, function_name
from tf_spline_prune.partition.codes._knots import Knots, is_unread, knots_of, tensor_of


class AffineNetwork:
    """A copy of a network in float64, of which every activation is piecewise-linear.

    Softmax, sigmoid and tanh may end it; what goes into them is its output.

    Args:
        model: A built model with one input and one output.

    Attributes:
        model: The copy.
        graph: Its calls.
        knots: The knots of each layer that has some, in the order of computation.
        apply: Runs one call; fits `Graph.run`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be traced, has several inputs or outputs, weights
            that are not finite, or an activation that is not piecewise-linear.
    """

    def __init__(self, model: Any) -> None:
        require_one_map(model)
        self.model = with_dtype(model, "float64")
        self.graph = trace(self.model)
        self._logits = Logits(self.graph)
        self.knots = _folding(self._logits)
        self.apply = self._logits.apply

    def run(self, x: Any) -> Any:
        """Run the network on a tensor `(n, *input shape)`, float64."""
        return self._logits([x])[0]

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Number for each input the function that is the largest at each fold.

        Args:
            x: Array of shape `(n, *input shape)`.

        Returns:
            Array of shape `(n, folds)`, int; on a knot that of the zero.
        """
        found = [np.empty((len(x), 0), int)]

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call.name in self.knots:
                functions = self.folds(call, args, kwargs)
                found.append(np.argmax(functions[::-1], axis=0))
            return self.apply(call, args, kwargs)

        self.graph.run([keras.ops.convert_to_tensor(x, dtype="float64")], apply)
        return np.concatenate(found, axis=1)

    def folds(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[np.ndarray]:
        """Evaluate the functions whose largest decides on each fold of a call.

        Args:
            call: A call with knots.
            args: Its positional arguments, with tensors.
            kwargs: Its keyword arguments.

        Returns:
            Arrays of shape `(n, folds)`, float64: values less their knots and zero,
            or the positions of a pooling window.
        """
        knots = self.knots[call.name]
        if knots.source == "activation":
            tensor = call_tapped(call, args, kwargs)[1]
        else:
            tensor = tensor_of(args, kwargs)
        if not knots.positions:
            pooled = call_layer(call, args, kwargs)
            return _finite([flat(seen) for seen in pool_windows(call, tensor, pooled)])
        values = flat(tensor)
        above = [values - knot for knot in knots.positions]
        ahead = above[0] if len(above) == 1 else np.concatenate(above, axis=1)
        return [ahead, np.broadcast_to(0.0, ahead.shape)]


def flat(tensor: Any) -> np.ndarray:
    """Bring a tensor to the host, as float64, with all axes but the first in one."""
    array = to_numpy(tensor)
    return array.reshape(len(array), -1).astype("float64", copy=False)


def require_one_map(model: Any) -> Graph:
    """Trace a model, and make sure that it maps one tensor of numbers to one.

    Args:
        model: A built model.

    Returns:
        Its graph.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, has several inputs or
            outputs, an input of integers, or weights that are not finite.
    """
    graph = trace(model)
    if len(graph.inputs) != 1 or len(graph.output_tensors) != 1:
        raise ModelError(
            "This needs a model with one input and one output. Make one of the part "
            f"that is meant. Received: model {model.name!r} with {len(graph.inputs)} "
            f"inputs and {len(graph.output_tensors)} outputs"
        )
    if not graph.inputs[0].dtype.startswith(("float", "bf")):
        raise ModelError(
            "This needs an input of real numbers. Make a model of the part after the "
            f"embedding. Received: model {model.name!r} whose input is of dtype "
            f"{graph.inputs[0].dtype}"
        )
    for path, weights in CurrentWeights(graph).items():
        check_finite(path, weights)
    return graph


def _finite(values: list[np.ndarray]) -> list[np.ndarray]:
    """Put a number below all others in the place of minus infinity."""
    seen = [value[np.isfinite(value)] for value in values]
    low = min(float(value.min(initial=0.0)) for value in seen)
    high = max(float(value.max(initial=0.0)) for value in seen)
    return [np.maximum(value, 2 * low - high - 1) for value in values]


def _folding(logits: Logits) -> dict[str, Knots]:
    """Find the calls with knots, and refuse what is not piecewise-linear."""
    found: dict[str, Knots] = {}
    refused = []
    for call in logits.graph.calls:
        knots, name = knots_of(call), function_name(call)
        if knots and not knots.smooth:
            found[call.name] = knots
        elif call.name in logits.ends:
            continue
        elif knots or name in RISING or is_unread(call):
            refused.append(f"{call.name} ({name or call.kind})")
    if refused:
        raise ModelError(
            "This is exact only where every activation is piecewise-linear, such as "
            "ReLU, LeakyReLU, ReLU6, abs, hard_sigmoid or max-pooling; softmax, "
            "sigmoid and tanh may end the model. Received: model "
            f"{logits.graph.model.name!r} with {', '.join(refused)}"
        )
    return found


def pool_ties(call: Call, tensor: Any, pooled: Any) -> list[Any]:
    """Return for every position of every window whether it attains the maximum.

    Args:
        call: A call of a `MaxPooling` or `GlobalMaxPooling` layer.
        tensor: Its input, of shape `(n, *spatial, channels)` or, with
            `channels_first`, `(n, channels, *spatial)`.
        pooled: Its output.

    Returns:
        One boolean tensor of the shape of `pooled` a window position; for a
        global pool a single one of the shape of `tensor`. Where several positions
        tie, all of them are true.
    """
    if "pool_size" not in call.layer.get_config():
        axes = _spatial_axes(call, tensor)
        return [tensor >= keras.ops.max(tensor, axis=axes, keepdims=True)]
    return [seen >= pooled for seen in pool_windows(call, tensor, pooled)]


def pool_windows(call: Call, tensor: Any, pooled: Any) -> list[Any]:
    """Return what each position of a pooling window sees.

    Args:
        call: A call of a `MaxPooling` or `GlobalMaxPooling` layer.
        tensor: Its input.
        pooled: Its output.

    Returns:
        One tensor a window position, of the shape of `pooled` where axes of size
        one are left out; minus infinity where the position is outside.
    """
    config = call.layer.get_config()
    axes = _spatial_axes(call, tensor)
    rank = len(axes)
    if "pool_size" in config:
        window = _tuple(config["pool_size"], rank)
        stride = _tuple(config["strides"], rank)
        sizes = [int(pooled.shape[axis]) for axis in axes]
    else:
        window = tuple(int(tensor.shape[axis]) for axis in axes)
        stride, sizes = (1,) * rank, [1] * rank
    if config.get("padding") == "same":
        pads = [(0, 0)] * len(tensor.shape)
        for axis, size, w, s in zip(axes, sizes, window, stride, strict=True):
            total = max((size - 1) * s + w - int(tensor.shape[axis]), 0)
            pads[axis] = (total // 2, total - total // 2)
        tensor = keras.ops.pad(tensor, pads, constant_values=float("-inf"))
    seen = []
    for offset in itertools.product(*map(range, window)):
        index: list[slice] = [slice(None)] * len(tensor.shape)
        for axis, start, size, s in zip(axes, offset, sizes, stride, strict=True):
            index[axis] = slice(start, start + (size - 1) * s + 1, s)
        seen.append(tensor[tuple(index)])
    return seen


def _spatial_axes(call: Call, tensor: Any) -> tuple[int, ...]:
    first = 2 if call.layer.get_config().get("data_format") == "channels_first" else 1
    return tuple(range(first, first + len(tensor.shape) - 2))


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
