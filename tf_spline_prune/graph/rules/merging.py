"""Layers with several inputs: sums and the like, and concatenation."""

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import Labels, TensorAxes
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule

# Functions of several tensors, entry by entry, in the words of both flavours.
_FUNCTIONS = (
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
    *(f"op:{name}" for name in _FUNCTIONS),
    arrays=True,
)
def combine(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Entries of the same position meet, so their units live or die together."""
    shape = call.output_shapes[0]
    rank = len(shape)
    labels: dict[int, Labels] = {}
    arrays = call.arrays()
    for axis in range(1, rank):
        met = [
            v.labels[axis - rank + v.rank]
            for v in inputs
            if v.rank > rank - axis and v.shape[axis - rank + v.rank] == shape[axis]
        ]
        joined = recorder.meet(call, met)
        if joined is not None:
            labels[axis] = joined
            if any(len(a) >= rank - axis and a[axis - rank] > 1 for a in arrays):
                recorder.bar(joined, f"{call.path} joins them with a fixed array")
    return inputs[0].with_labels(shape, labels)


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
