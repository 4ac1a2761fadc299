"""Convolutions: plain, grouped, depthwise and separable."""

import math
from collections.abc import Sequence

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import Labels, TensorAxes, channel_axis
from tf_spline_prune.graph.facts import Role
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.elementwise import mixes_units
from tf_spline_prune.graph.rules.registry import rule


def _bar_mixed(call: Call, made: Labels, recorder: Recorder) -> None:
    if mixes_units(call):
        recorder.bar(made, f"the activation of {call.path} may mix its units")


def _positions(shape: Sequence[int | None], channel: int) -> int | None:
    """Count the positions that a kernel is applied at."""
    spatial = [size for axis, size in enumerate(shape) if axis not in (0, channel)]
    return None if None in spatial else math.prod(spatial)  # type: ignore[arg-type]


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
    uses = _positions(shape, axis)
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
            for labels in (taken, made):
                by_group = labels.reshape(groups, -1)
                recorder.tie(np.repeat(by_group[:1], groups, axis=0), by_group)
        recorder.weight(
            call,
            "kernel",
            (*spatial, taken[: len(taken) // groups], made),
            (*none, "in", "out"),
            uses,
        )
    _bar_mixed(call, made, recorder)
    recorder.vector(call, "bias", made)
    recorder.resize(call, "filters", made)
    return value.with_labels(shape, {axis: made})


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
        _positions(shape, axis),
    )
    recorder.vector(call, "bias", made)
    _bar_mixed(call, made, recorder)
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
    uses = _positions(shape, axis)
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
    recorder.vector(call, "bias", made)
    _bar_mixed(call, made, recorder)
    recorder.resize(call, "filters", made)
    return value.with_labels(shape, {axis: made})
