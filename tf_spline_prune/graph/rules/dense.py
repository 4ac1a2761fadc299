"""`Dense`."""

import math

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import TensorAxes
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.elementwise import mixes_units
from tf_spline_prune.graph.rules.registry import rule


@rule("Dense")
def dense(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Reads the last axis, makes new units on it."""
    (value,) = inputs
    shape = call.output_shapes[0]
    taken = recorder.read(value, value.rank - 1, call)
    made = recorder.units(call, call.layer.units)
    if mixes_units(call):
        recorder.bar(made, f"the activation of {call.path} may mix its units")
    inner = range(1, value.rank - 1)
    rows = [labels for axis in inner if (labels := value.labels[axis]) is not None]
    sizes = [shape[axis] for axis in inner if value.labels[axis] is None]
    uses = None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]
    recorder.weight(call, "kernel", (taken, made), ("in", "out"), uses, rows)
    recorder.vector(call, "bias", made)
    recorder.resize(call, "units", made)
    kept = {a: v for a, v in enumerate(value.labels) if v is not None}
    return value.with_labels(shape, {**kept, value.rank - 1: made})
