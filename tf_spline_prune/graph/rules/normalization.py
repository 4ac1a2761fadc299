"""`BatchNormalization`: an affine map of each channel alone."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import TensorAxes, norm_axis
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule


@rule("BatchNormalization")
def batch_normalization(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """Four vectors with one entry a channel."""
    (value,) = inputs
    axis = norm_axis(call, value.rank)
    labels = recorder.read(value, axis, call)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        recorder.vector(call, name, labels)
    kept = {a: v for a, v in enumerate(value.labels) if v is not None}
    return value.with_labels(call.output_shapes[0], {**kept, axis: labels})
