"""Layers that rearrange axes: Flatten, Reshape, Permute."""

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import Labels, TensorAxes
from tf_spline_prune.graph.recorder import Recorder
from tf_spline_prune.graph.rules.registry import rule


def _spread(value: TensorAxes, recorder: Recorder, why: str) -> Labels | None:
    """Give a label to every entry of a tensor, batch axis left out."""
    sizes = value.shape[1:]
    if not value.labelled:
        return None
    if len(value.labelled) > 1 or None in sizes:
        recorder.bar_tensor(value, why)
        return None
    (axis,) = value.labelled
    labels = value.labels[axis]
    alone = [1] * len(sizes)
    alone[axis - 1] = len(labels)  # type: ignore[arg-type]
    return np.broadcast_to(labels.reshape(alone), sizes)  # type: ignore


@rule("Flatten", homogeneous=True)
def flatten(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Every position of a channel becomes an entry of its own."""
    (value,) = inputs
    labels = _spread(value, recorder, f"{call.path} mixes axes that hold units")
    if (
        labels is not None
        and getattr(call.layer, "data_format", "") == "channels_first"
    ):
        # Keras moves the channels last before it flattens.
        if value.rank > 2:
            labels = np.moveaxis(labels, 0, -1)
    shape = call.output_shapes[0]
    return value.with_labels(shape, {} if labels is None else {1: labels.ravel()})


@rule("Reshape", homogeneous=True)
def reshape(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Units survive where they still lie along a single axis."""
    (value,) = inputs
    shape = call.output_shapes[0]
    sizes = shape[1:]
    why = f"{call.path} splits its units over several axes"
    spread = _spread(value, recorder, why)
    if spread is None:
        return value.with_labels(shape, {})
    target = spread.reshape(sizes)  # type: ignore[arg-type]
    for axis in range(len(sizes)):
        along = np.moveaxis(target, axis, 0).reshape(target.shape[axis], -1)
        if (along == along[:, :1]).all():
            labels = along[:, 0].copy()
            if call.layer.get_config()["target_shape"][axis] != -1:
                recorder.resize(call, "target_shape", labels, axis)
            return value.with_labels(shape, {axis + 1: labels})
    recorder.bar_tensor(value, why)
    return value.with_labels(shape, {})


@rule("Permute", homogeneous=True)
def permute(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """The axes change places and take their units along."""
    (value,) = inputs
    order = (0, *call.layer.dims)
    return TensorAxes(
        call.output_shapes[0], tuple(value.labels[axis] for axis in order)
    )
