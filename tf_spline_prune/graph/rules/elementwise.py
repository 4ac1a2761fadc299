"""Layers that treat each entry alone: activations, dropout, identities."""

from collections.abc import Mapping
from typing import Any

from tf_spline_prune.compat import Call, activation_name, is_layer, keras_root, kind_of
from tf_spline_prune.graph.axes import Labels, TensorAxes
from tf_spline_prune.graph.facts import Role
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import opaque, rule

_HOMOGENEOUS = ("linear", "relu", "leaky_relu", "abs", "LeakyReLU")


_SOFTMAX = ("softmax", "log_softmax", "sparsemax", "Softmax")

# Functions of one tensor that treat each entry alone, in the words of both flavours.
_FUNCTIONS = (
    *("arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "ceil"),
    *("cast", "celu", "clip", "clipbyvalue", "cos", "cosh", "elu", "erf", "exp"),
    *("expm1", "floor", "gelu", "hardshrink", "hardsigmoid", "hardsilu", "hardswish"),
    *("hardtanh", "isfinite", "isnan", "log", "log10", "log1p", "log2", "logsigmoid"),
    *("logicalnot", "neg", "negative", "nantonum", "oneslike", "reciprocal", "relu6"),
    *("round", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus"),
    *("softshrink", "softsign", "sparseplus", "sqrt", "square", "squareplus", "swish"),
    *("tan", "tanh", "tanhshrink", "threshold", "zeroslike"),
)


def is_homogeneous_activation(call: Call) -> bool:
    """Tell whether a layer's `activation` hands positive scales on."""
    activation = call.layer.activation
    if type(activation).__name__ == "ReLU":
        return _is_plain(activation.get_config())
    return is_known(activation) and activation_name(activation) in _HOMOGENEOUS


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
    "StochasticDepth",
    "LeakyReLU",
    "Identity",
    "ActivityRegularization",
    "op:abs",
    "op:absolute",
    "op:identity",
    "op:leakyrelu",
    "op:stopgradient",
    homogeneous=True,
)
@rule("ReLU", "op:relu", homogeneous=_is_plain_relu)
@rule("Activation", homogeneous=is_homogeneous_activation)
@rule("ELU", "AlphaDropout", "GaussianDropout", "GaussianNoise")
@rule(*(f"op:{name}" for name in _FUNCTIONS))
def elementwise(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Each entry alone: the units stay where they are."""
    if len(inputs) != 1:
        return opaque(call, inputs, recorder)
    (value,) = inputs
    if call.kind == "Activation":
        function = call.layer.activation
        over = [value.rank - 1] if activation_name(function) in _SOFTMAX else value.kept
        for axis in over:
            if (labels := value.labels[axis]) is not None:
                bar_if_mixing(call, labels, recorder)
    noise = getattr(call.layer, "noise_shape", None)
    if noise is not None and len(noise) != value.rank:
        return opaque(call, inputs, recorder)
    if noise is not None:
        for axis, labels in value.kept.items():
            if noise[axis] != 1:
                recorder.resize(call, "noise_shape", labels, axis)
    return TensorAxes(call.output_shapes[0], value.labels)


@rule("Softmax", "op:softmax", "op:logsoftmax")
def softmax(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Mixes the entries along its axes, and no others."""
    value = inputs[0]
    axis = getattr(call.layer, "axis", None)
    if axis is None:
        axis = call.arguments(inputs).get("axis", -1)
    for one in axis if isinstance(axis, (list, tuple)) else [axis]:
        labels = value.labels[one]
        if labels is not None:
            recorder.bar(labels, f"{call.path} is a softmax over them")
    return TensorAxes(call.output_shapes[0], value.labels)


def bar_if_mixing(
    call: Call, made: Labels, recorder: Recorder, attribute: str = "activation"
) -> None:
    """Say that units must stay if a layer's own activation may mix them."""
    if mixes_units(getattr(call.layer, attribute)):
        recorder.bar(made, f"the activation of {call.path} may mix its units")


def is_known(function: Any) -> bool:
    """Tell whether a function is what its name says: Keras', TensorFlow's or JAX'."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return str(module).partition(".")[0] in ("keras", "tf_keras", "tensorflow", "jax")


def mixes_units(function: Any) -> bool:
    """Tell whether an activation function mixes units, as softmax does.

    A function that is not Keras' own may do anything, so it counts as mixing,
    unless it is one of the plain ones of TensorFlow or JAX. So does a layer in the
    place of a function, unless it is a plain one.
    """
    if is_layer(function):
        return kind_of(function) not in ("ReLU", "LeakyReLU", "ELU")
    name = activation_name(function)
    own = keras_root(function) is not None
    plain = is_known(function) and name in _HOMOGENEOUS
    return name in (*_SOFTMAX, "glu") or not (own or plain)


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
    recorder.weight(call, "alpha", axes, roles, 0)
    return TensorAxes(call.output_shapes[0], value.labels)
