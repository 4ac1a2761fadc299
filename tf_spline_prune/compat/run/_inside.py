"""What the parts of a layer are given while it runs."""

from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._weights import read_weights, weight_variables
from tf_spline_prune.compat.build._parts import parts_of
from tf_spline_prune.compat.graph._blueprint import Arguments
from tf_spline_prune.compat.graph._graph import Call, Values
from tf_spline_prune.compat.run._execution import call_layer, to_numpy
from tf_spline_prune.compat.run._states import states_kept


def arguments_inside(call: Call, values: Values, part: str) -> Arguments:
    """Run a call, and catch what a part of its layer is given.

    Args:
        call: The call.
        values: The tensors before it.
        part: The part's name, as in `parts_of`.

    Returns:
        Its positional arguments, and those by name.
    """
    layer = parts_of(call.layer)[part]
    caught: list[Arguments] = []
    method = layer.call

    def tapped(*args: Any, **kwargs: Any) -> Any:
        caught.append((args, kwargs))
        return method(*args, **kwargs)

    args, kwargs = call.fill(values)
    # Past the layer's own bookkeeping, which would take it for a change of the model.
    object.__setattr__(layer, "call", tapped)
    try:
        with states_kept(call.layer):  # it runs once more than the model does
            call_layer(call, args, kwargs)
    finally:
        object.__delattr__(layer, "call")
    return caught[0]


def sequence_and_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """List the sequence that a recurrent layer is given, and the states to begin with.

    They come one by one, by name, or, in tf_keras, in one list.

    Args:
        args: What the layer is given.
        kwargs: What it is given by name.
    """
    names = ("sequences", "inputs", "initial_state")
    held = [*args[:2], *(kwargs[name] for name in names if name in kwargs)]
    return [one for one in keras.tree.flatten(held) if one is not None]


def states_before(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the output states that a recurrent layer begins each of its steps with.

    Args:
        layer: An LSTM, GRU or SimpleRNN.
        args: What it is given.
        kwargs: What it is given by name.

    Returns:
        Array of shape `(n, steps, units)`, in the order of the input's steps.
    """
    x, *given = sequence_and_states(args, kwargs)
    held = {name: getattr(layer, name) for name in ("return_sequences", "return_state")}
    object.__setattr__(layer, "return_sequences", True)
    object.__setattr__(layer, "return_state", False)
    mask, states = kwargs.get("mask"), given or None
    if layer.stateful and not given:
        given = [to_numpy(one) for one in keras.tree.flatten(layer.states)[:1]]
    try:
        with states_kept(layer):  # it runs once more than the model does
            found = layer.call(x, mask=mask, initial_state=states, training=False)
        made = to_numpy(found)
    finally:
        for name, value in held.items():
            object.__setattr__(layer, name, value)
    first = to_numpy(given[0]) if given else np.zeros_like(made[:, 0])
    before = np.concatenate([first[:, None], made[:, :-1]], axis=1)
    return before[:, ::-1] if layer.go_backwards else before


def depthwise_output(layer: Any, x: np.ndarray) -> np.ndarray:
    """Run the first half of a separable convolution: one filter per channel.

    Args:
        layer: The layer.
        x: Its input.

    Returns:
        What the second half, a 1x1 convolution, is given.
    """
    kernel = weight_variables(layer)["depthwise_kernel"]
    padding = layer.padding
    if padding == "causal":
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        steps = 2 if layer.data_format == "channels_first" else 1
        x = np.pad(x, [(reach * (axis == steps), 0) for axis in range(x.ndim)])
        padding = "valid"
    strides, dilation = (
        given if len(set(given)) > 1 else given[0]
        for given in (layer.strides, layer.dilation_rate)
    )
    made = keras.ops.depthwise_conv(
        keras.ops.convert_to_tensor(x),
        keras.ops.convert_to_tensor(to_numpy(kernel)),
        strides=strides,
        padding=padding,
        data_format=layer.data_format,
        dilation_rate=dilation,
    )
    return to_numpy(made)


def without_scale(call: Call, values: Values, name: str) -> np.ndarray:
    """Run a normalisation, and take its scale and its offset away again.

    Args:
        call: Its call.
        values: The tensors before it.
        name: Name of the weight that is its scale.

    Returns:
        The normalised input; 0 where the scale is.
    """
    weights = read_weights(call.layer)
    args, kwargs = call.fill(values)
    made = to_numpy(call_layer(call, args, kwargs)).astype("float32")
    scale = weights[name]
    made = made - weights["beta"] if "beta" in weights else made
    return np.asarray(made * np.where(scale, 1 / np.where(scale, scale, 1), 0))
