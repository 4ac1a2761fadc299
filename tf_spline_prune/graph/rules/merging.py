"""Layers with several inputs: sums and the like, and concatenation."""

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import Labels, TensorAxes
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import opaque, rule


@rule(
    "Add",
    "Subtract",
    "Multiply",
    "Average",
    "Maximum",
    "Minimum",
    "op:add",
    "op:addv2",
    "op:subtract",
    "op:sub",
    "op:multiply",
    "op:mul",
    "op:maximum",
    "op:minimum",
)
def combine(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Entries of the same position meet, so their units live or die together."""
    shape = call.output_shapes[0]
    if len(inputs) == 1 and _holds_array(call):
        return opaque(call, inputs, recorder)
    labels: dict[int, Labels] = {}
    for axis in range(1, len(shape)):
        met = [
            (v, v.labels[axis - len(shape) + v.rank])
            for v in inputs
            if v.rank > len(shape) - axis
            and v.shape[axis - len(shape) + v.rank] == shape[axis]
        ]
        known = [label for _, label in met if label is not None]
        for label in known[1:]:
            recorder.tie(known[0], label)
        if known and len(known) < len(met):
            recorder.bar(known[0], f"{call.path} joins them with what are no units")
        if known:
            labels[axis] = known[0]
    return inputs[0].with_labels(shape, labels)


def _holds_array(call: Call) -> bool:
    """Tell whether an operation's other operand is an array with axes."""
    args, kwargs = call.fill({i: None for i in call.inputs})
    others = [*args, *kwargs.values()]
    return any(np.ndim(other) > 0 for other in others if other is not None)


@rule("Concatenate", homogeneous=True)
def concatenate(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Units line up along one axis and meet along the others."""
    shape = call.output_shapes[0]
    rank = len(shape)
    joined = call.layer.axis % rank
    labels: dict[int, Labels] = {}
    for axis in range(1, rank):
        parts = [v.labels[axis] for v in inputs]
        known = [part for part in parts if part is not None]
        if not known:
            continue
        if axis == joined:
            labels[axis] = np.concatenate(
                [recorder.read(v, axis, call) for v in inputs]
            )
            continue
        for part in known[1:]:
            recorder.tie(known[0], part)
        if len(known) < len(parts):
            recorder.bar(known[0], f"{call.path} joins them with what are no units")
        labels[axis] = known[0]
    return inputs[0].with_labels(shape, labels)
