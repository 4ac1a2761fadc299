"""Layers that treat each entry alone: activations, dropout, identities."""

from collections.abc import Mapping
from typing import Any

from tf_spline_prune.compat import Call, activation_name, keras_root
from tf_spline_prune.graph.axes import TensorAxes
from tf_spline_prune.graph.facts import Role
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule

_HOMOGENEOUS = ("linear", "relu", "leaky_relu", "abs", "LeakyReLU")


def is_homogeneous_activation(call: Call) -> bool:
    """Tell whether a layer's `activation` hands positive scales on."""
    activation = call.layer.activation
    if type(activation).__name__ == "ReLU":
        return _is_plain(activation.get_config())
    return activation_name(activation) in _HOMOGENEOUS


def _is_plain_relu(call: Call) -> bool:
    layer = call.layer
    return _is_plain(layer.get_config() if call.kind == "ReLU" else vars(layer))


def _is_plain(settings: Mapping[str, Any]) -> bool:
    return settings.get("max_value") is None and not settings.get("threshold")


@rule(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "LeakyReLU",
    "Identity",
    "ActivityRegularization",
    "op:leakyrelu",
    "op:abs",
    "op:absolute",
    homogeneous=True,
)
@rule("ReLU", "op:relu", homogeneous=_is_plain_relu)
@rule("Activation", homogeneous=is_homogeneous_activation)
@rule(
    "ELU",
    "GaussianDropout",
    "GaussianNoise",
    "op:elu",
    "op:gelu",
    "op:hardsigmoid",
    "op:hardsilu",
    "op:hardswish",
    "op:hardtanh",
    "op:relu6",
    "op:selu",
    "op:sigmoid",
    "op:silu",
    "op:softplus",
    "op:swish",
    "op:tanh",
)
def elementwise(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Each entry alone: the units stay where they are."""
    (value,) = inputs
    if call.kind == "Activation" and mixes_units(call):
        recorder.bar_tensor(value, f"the activation of {call.path} may mix its units")
    return TensorAxes(call.output_shapes[0], value.labels)


def mixes_units(call: Call) -> bool:
    """Tell whether a layer's `activation` mixes units, as softmax does.

    A function that is not Keras' own may do anything, so it counts as mixing,
    unless its name says that it is one of the plain ones.
    """
    function = call.layer.activation
    name = activation_name(function)
    own = keras_root(function) is not None
    mixing = ("softmax", "log_softmax", "sparsemax", "glu", "Softmax")
    return name in mixing or not (own or name in _HOMOGENEOUS)


@rule("PReLU", homogeneous=False)
def prelu(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """A slope an entry, or one shared along some axes."""
    (value,) = inputs
    shared = {axis % value.rank for axis in call.layer.shared_axes or ()}
    axes = [
        None if axis in shared else value.labels[axis] for axis in range(1, value.rank)
    ]
    roles: list[Role | None] = [
        None if labels is None else "channel" for labels in axes
    ]
    recorder.weight(call, "alpha", axes, roles)
    return TensorAxes(call.output_shapes[0], value.labels)
