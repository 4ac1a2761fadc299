"""Convolutions: plain, grouped, transposed, depthwise and separable."""

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Role, TensorAxes, channel_axis, positions
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._elementwise import bar_if_mixing
from tf_spline_prune.graph.rules._registry import rule


@rule("Conv1D", "Conv2D", "Conv3D")
def convolution(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Reads the channels, makes new ones; groups keep the same number each."""
    (value,) = inputs
    layer, shape = call.layer, call.output_shapes[0]
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    taken = recorder.read(value, axis, call)
    groups = layer.groups
    kernel_rank = value.rank
    spatial: tuple[None, ...] = (None,) * (kernel_rank - 2)
    uses = positions(shape, [axis])
    none: tuple[Role | None, ...] = (None,) * (kernel_rank - 2)
    if groups == len(taken) and groups > 1:
        # Every channel has filters of its own: a unit is a channel with them.
        made = np.repeat(taken, layer.filters // groups)
        recorder.weight(
            call, "kernel", (*spatial, None, made), (*none, None, "channel"), uses
        )
        recorder.resize(call, "groups", taken)
    else:
        made = recorder.units(call, layer.filters)
        if groups > 1:
            recorder.tie_groups(taken, groups)
            recorder.tie_groups(made, groups)
        recorder.weight(
            call,
            "kernel",
            (*spatial, taken[: len(taken) // groups], made),
            (*none, "in", "out"),
            uses,
        )
    bar_if_mixing(call, made, recorder)
    recorder.vector(call, "bias", made, optional=True)
    recorder.resize(call, "filters", made)
    return value.with_labels(shape, {axis: made})


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """As a convolution, with the axes of the kernel the other way round."""
    (value,) = inputs
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    taken = recorder.read(value, axis, call)
    made = recorder.units(call, call.layer.filters)
    bar_if_mixing(call, made, recorder)
    spatial: tuple[None, ...] = (None,) * (value.rank - 2)
    recorder.weight(
        call,
        "kernel",
        (*spatial, made, taken),
        (*spatial, "out", "in"),
        positions(value.shape, [axis]),
    )
    recorder.vector(call, "bias", made, optional=True)
    recorder.resize(call, "filters", made)
    return value.with_labels(call.output_shapes[0], {axis: made})


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Every channel has filters of its own, so its units are the input's."""
    (value,) = inputs
    shape = call.output_shapes[0]
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    taken = recorder.read(value, axis, call)
    made = np.repeat(taken, call.layer.depth_multiplier)
    spatial: tuple[None, ...] = (None,) * (value.rank - 2)
    none: tuple[Role | None, ...] = (None,) * (value.rank - 2)
    recorder.weight(
        call,
        "kernel",
        (*spatial, taken, None),
        (*none, "channel", None),
        positions(shape, [axis]),
    )
    recorder.vector(call, "bias", made, optional=True)
    bar_if_mixing(call, made, recorder)
    return value.with_labels(shape, {axis: made})


@rule("SeparableConv1D", "SeparableConv2D")
def separable(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """A depthwise convolution and a 1x1 convolution in one layer."""
    (value,) = inputs
    shape = call.output_shapes[0]
    axis = channel_axis(call, value.rank)
    recorder.bar_space(value, axis, call)
    taken = recorder.read(value, axis, call)
    middle = np.repeat(taken, call.layer.depth_multiplier)
    made = recorder.units(call, call.layer.filters)
    spatial: tuple[None, ...] = (None,) * (value.rank - 2)
    none: tuple[Role | None, ...] = (None,) * (value.rank - 2)
    uses = positions(shape, [axis])
    recorder.weight(
        call,
        "depthwise_kernel",
        (*spatial, taken, None),
        (*none, "channel", None),
        uses,
    )
    recorder.weight(
        call, "pointwise_kernel", (*spatial, middle, made), (*none, "in", "out"), uses
    )
    recorder.vector(call, "bias", made, optional=True)
    bar_if_mixing(call, made, recorder)
    recorder.resize(call, "filters", made)
    return value.with_labels(shape, {axis: made})
