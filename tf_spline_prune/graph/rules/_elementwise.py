"""Layers that treat each entry alone: activations, dropout, identities."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Graph,
    activation_name,
    array_cut,
    is_layer,
    keras_root,
    kind_of,
    tensorflow_operations,
    trace_function,
)
from tf_spline_prune.graph._facts import Labels, Role, Shape, TensorAxes
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import describe, opaque, rule

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

# Operations of TensorFlow that treat each entry alone, or entries of one position.
_TENSORFLOW = frozenset(
    (
        *("Abs", "Acos", "Acosh", "Add", "AddV2", "Asin", "Asinh", "Atan", "Atan2"),
        *("Atanh", "Cast", "Ceil", "ClipByValue", "Const", "Cos", "Cosh", "Div"),
        *("DivNoNan", "Elu", "Equal", "Erf", "Erfc", "Exp", "Expm1", "Floor"),
        *("FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Identity", "IdentityN"),
        *("Inv", "IsFinite", "IsInf", "IsNan", "LeakyRelu", "Less", "LessEqual", "Log"),
        *("Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum"),
        *("Mul", "MulNoNan", "Neg", "NoOp", "NotEqual", "OnesLike", "Placeholder"),
        *("Pow", "RealDiv", "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt"),
        *("Select", "SelectV2", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus"),
        *("Softsign", "Sqrt", "Square", "SquaredDifference", "StopGradient", "Sub"),
        *("Tan", "Tanh", "Xdivy", "Xlog1py", "Xlogy", "ZerosLike"),
    )
)


def is_homogeneous_activation(call: Call) -> bool:
    """Return whether a layer's `activation` hands positive scales on."""
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
@rule(*(f"op:{name}" for name in _FUNCTIONS), anywhere=True)
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
    return replace(value, shape=call.output_shapes[0])


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
    call: Call,
    made: Labels,
    recorder: Recorder,
    attribute: str = "activation",
    rank: int | None = None,
) -> None:
    """Record that units must stay if a layer's own activation may mix them.

    Args:
        call: A call of the layer.
        made: The units.
        recorder: Where it is written down.
        attribute: Where the layer holds the function.
        rank: Rank of what the function is given; that of the layer's output without.
    """
    shape = call.output_shapes[0] if rank is None else (None,) * (rank - 1) + made.shape
    if mixes_units(getattr(call.layer, attribute), call, shape):
        recorder.bar(made, f"the activation of {call.path} may mix its units")


def is_known(function: Any) -> bool:
    """Return whether a function is what its name says: Keras', TensorFlow's or JAX'."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return str(module).partition(".")[0] in ("keras", "tf_keras", "tensorflow", "jax")


def mixes_units(function: Any, call: Call, shape: Sequence[int | None]) -> bool:
    """Return whether an activation function may mix units, as softmax does.

    A function that is neither Keras' own nor a plain one of TensorFlow or JAX is
    traced, and judged by its operations. So is a layer in the place of a function
    only if it is a plain one.

    Args:
        function: The function, or a layer in the place of one.
        call: A call of the layer that holds it.
        shape: Shape of what the function is given.

    Returns:
        Whether it mixes units, or cannot be told not to.
    """
    if is_layer(function):
        return kind_of(function) not in ("ReLU", "LeakyReLU", "ELU")
    name = activation_name(function)
    if keras_root(function) is not None:
        return name in (*_SOFTMAX, "glu")
    if is_known(function) and name in _HOMOGENEOUS:
        return False
    traced = trace_function(function, call.layer, tuple(shape))
    if traced is not None:
        return _mixes(traced, tuple(shape))
    return not _is_entrywise(tensorflow_operations(function, tuple(shape)), shape)


def _mixes(traced: Graph, shape: Shape) -> bool:
    """Walk the graph of a function with a label for each unit, and see what is left."""
    recorder = Recorder({}, approximate=False)
    # What a batch holds are no units.
    labels = [None if size is None else recorder.fresh(size) for size in shape[1:]]
    value = TensorAxes(shape, (None, *labels))
    axes = dict(zip(traced.input_tensors, [value], strict=True))
    for call in traced.calls:
        made = describe(call, [axes[tensor] for tensor in call.inputs], recorder)
        axes.update(zip(call.outputs, made, strict=True))
    found = axes[traced.output_tensors[0]]
    root, reasons = recorder.solve()
    alike = len(found.labels) == len(value.labels) and all(
        after is not None and np.array_equal(before, after)
        for before, after in zip(value.labels, found.labels, strict=True)
        if before is not None
    )
    # What a function is told by numbers does not follow the units.
    return (
        bool(reasons or recorder.edits)
        or not alike
        or not np.array_equal(root, np.arange(len(root)))
    )


def _is_entrywise(
    operations: Sequence[tuple[str, Sequence[Shape | None]]] | None,
    shape: Sequence[int | None],
) -> bool:
    """Return whether operations of TensorFlow treat each entry of a tensor alone.

    They do if each is one of a single entry, or of entries at one position, and all
    that they give is of the tensor's own shape, or a single number.
    """
    return operations is not None and all(
        kind in _TENSORFLOW
        and all(
            made is not None and (made == tuple(shape) or set(made) <= {1})
            for made in shapes
        )
        for kind, shapes in operations
    )


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


# Functions of several tensors, entry by entry, in the words of both flavours.
_MERGES = (
    *("add", "addn", "addv2", "arctan2", "div", "divide", "equal", "floordiv"),
    *("floordivide", "greater", "greaterequal", "less", "lessequal", "logaddexp"),
    *("logicaland", "logicalor", "logicalxor", "maximum", "minimum", "mod", "mul"),
    *("multiply", "notequal", "pow", "power", "realdiv", "squareddifference", "sub"),
    *("subtract", "truediv", "truedivide", "where"),
)


@rule(
    "Add",
    "Subtract",
    "Multiply",
    "Average",
    "Maximum",
    "Minimum",
    "CustomScaleLayer",
    *(f"op:{name}" for name in _MERGES),
    arrays=True,
)
def combine(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Entries of the same position meet, so their units are pruned together."""
    shape = call.output_shapes[0]
    rank = len(shape)
    labels: dict[int, Labels] = {}
    arrays = _fixed_arrays(call, inputs)
    for axis in range(1, rank):
        met = [
            v.labels[axis - rank + v.rank]
            for v in inputs
            if v.rank > rank - axis and v.shape[axis - rank + v.rank] == shape[axis]
        ]
        joined = recorder.meet(call, met)
        if joined is not None:
            labels[axis] = joined
            for key, sizes in arrays:
                if len(sizes) < rank - axis or sizes[axis - rank] == 1:
                    continue
                if key is None:
                    recorder.bar(joined, f"{call.path} joins them with a fixed array")
                else:
                    change = functools.partial(array_cut, axis=axis - rank)
                    recorder.edit(call, key, joined, change)
    return inputs[0].with_labels(shape, labels)


def _fixed_arrays(
    call: Call, inputs: list[TensorAxes]
) -> list[tuple[str | None, tuple[int, ...]]]:
    """List the arguments that are arrays, and no tensors of the model.

    Returns:
        For each the name of the argument, `None` where it is inside of one, and the
        shape.
    """
    named: list[tuple[str | None, tuple[int, ...]]] = []
    inside = call.arrays()
    for key, value in call.arguments(inputs).items():
        if isinstance(value, TensorAxes) or key.startswith("_"):
            continue
        if isinstance(value, (list, tuple)) and _are_numbers(value):
            named.append((key, np.shape(value)))
        elif (shape := tuple(getattr(value, "shape", None) or ())) in inside:
            named.append((key, shape))
            inside.remove(shape)
    return named + [(None, shape) for shape in inside]


def _are_numbers(value: Any) -> bool:
    """Return whether a list, or lists in it, hold nothing but numbers."""
    if isinstance(value, (list, tuple)):
        return all(map(_are_numbers, value))
    return isinstance(value, (bool, int, float))


@rule("Concatenate", "op:concat", "op:concatenate", homogeneous=True)
def concatenate(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Units line up along one axis and meet along the others."""
    shape = call.output_shapes[0]
    rank = len(shape)
    axis = getattr(call.layer, "axis", None)
    lined = (call.arguments(inputs)["axis"] if axis is None else axis) % rank
    labels: dict[int, Labels] = {}
    for axis in range(1, rank):
        parts = [v.labels[axis] for v in inputs]
        if axis == lined and any(part is not None for part in parts):
            read = [recorder.read(v, axis, call) for v in inputs]
            labels[axis] = np.concatenate(read)
        elif axis != lined and (met := recorder.meet(call, parts)) is not None:
            labels[axis] = met
    return inputs[0].with_labels(shape, labels)
