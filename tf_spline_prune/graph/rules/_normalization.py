"""Normalisations: of each unit alone, and over units; scales a unit."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import (
    Labels,
    Role,
    TensorAxes,
    channel_axis,
    norm_axis,
)
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import opaque, per_unit, rule


@rule("BatchNormalization")
def batch_normalization(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Four vectors with one entry per channel."""
    value = inputs[0]
    if isinstance(call.layer.axis, (list, tuple)) and len(call.layer.axis) > 1:
        return opaque(call, inputs, recorder)  # tf_keras alone takes several
    axis = norm_axis(call, value.rank)
    labels = recorder.read(value, axis, call)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        recorder.vector(call, name, labels, optional=True)
    return value.with_labels(call.output_shapes[0], {**value.kept, axis: labels})


rule("LayerScale")(per_unit("gamma", sizes=("projection_dim",)))


@rule("LayerNormalization", "RMSNormalization", "UnitNormalization")
def over_units(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Statistics over axes of one input; scales along the same axes."""
    (value,) = inputs
    axis = call.layer.axis
    given = axis if isinstance(axis, (list, tuple)) else [axis]
    over = [one % value.rank for one in given]  # the weights keep this order
    axes = [value.labels[one] for one in over]
    for one in over:
        recorder.mix(call, inputs, one)
    for name in ("gamma", "beta", "scale"):
        recorder.weight(call, name, axes, _channels(axes), 0, optional=True)
    return TensorAxes(call.output_shapes[0], value.labels)


@rule("GroupNormalization")
def group_normalization(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """Statistics over space and groups of channels; one channel a group is exact."""
    (value,) = inputs
    axis = call.layer.axis % value.rank
    recorder.bar_space(value, axis, call)
    labels = recorder.read(value, axis, call)
    groups = call.layer.groups
    if groups in (-1, len(labels)):
        if call.layer.get_config()["groups"] != -1:
            recorder.resize(call, "groups", labels)
    else:
        recorder.tie_groups(labels, groups)
        recorder.mix(call, inputs, axis)
    for name in ("gamma", "beta"):
        recorder.vector(call, name, labels, optional=True)
    return value.with_labels(call.output_shapes[0], {**value.kept, axis: labels})


@rule("Normalization")
def normalization(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """A mean and a variance for each entry of some axes, learnt or given."""
    (value,) = inputs
    axis = call.layer.axis
    kept = axis if isinstance(axis, (list, tuple)) else [] if axis is None else [axis]
    axes = [value.labels[one] for one in sorted(one % value.rank for one in kept)]
    for name in ("mean", "variance"):
        recorder.weight(call, name, axes, _channels(axes), 0, optional=True)
        if len(axes) == 1 and axes[0] is not None:
            recorder.slice(call, name, axes[0])
    return TensorAxes(call.output_shapes[0], value.labels)


@rule("Rescaling")
def rescaling(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """A scale and an offset, one for all or one per channel."""
    (value,) = inputs
    labels = value.labels[channel_axis(call, value.rank)]
    if labels is not None:
        recorder.slice(call, "scale", labels)
        recorder.slice(call, "offset", labels)
    return TensorAxes(call.output_shapes[0], value.labels)


def _channels(axes: list[Labels | None]) -> list[Role | None]:
    return [None if labels is None else "channel" for labels in axes]
