"""`Embedding`: one vector an index; its entries are units."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import TensorAxes
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule


@rule("Embedding")
def embedding(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Makes units on a new last axis; the indices themselves must stay."""
    (value,) = inputs
    recorder.bar_tensor(value, f"{call.path} takes them for indices")
    made = recorder.units(call, call.layer.output_dim)
    recorder.weight(call, "embeddings", (None, made), (None, "out"), 0)
    recorder.resize(call, "output_dim", made)
    shape = call.output_shapes[0]
    return value.with_labels(shape, {len(shape) - 1: made})
