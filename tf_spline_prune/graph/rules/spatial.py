"""Layers that work on space and leave channels alone: pooling, padding, resizing."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import TensorAxes, channel_axis
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule


@rule(
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "AdaptiveAveragePooling1D",
    "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D",
    "CenterCrop",
    "op:averagepool",
    "op:maxpool",
    homogeneous=True,
)
@rule("Resizing", "op:resize")
def spatial(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """The channels stay, the positions change."""
    (value,) = inputs
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    labels = value.labels[axis]
    shape = call.output_shapes[0]
    return value.with_labels(shape, {} if labels is None else {axis: labels})


@rule("RepeatVector", homogeneous=True)
def repeat_vector(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """A new axis before the units."""
    (value,) = inputs
    labels = value.labels[1]
    shape = call.output_shapes[0]
    return value.with_labels(shape, {} if labels is None else {2: labels})


@rule(
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    homogeneous=True,
)
def global_pooling(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """The channels stay, the positions go, or stay with size 1."""
    (value,) = inputs
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    shape = call.output_shapes[0]
    labels = value.labels[axis]
    target = axis if len(shape) == value.rank else 1
    return value.with_labels(shape, {} if labels is None else {target: labels})
