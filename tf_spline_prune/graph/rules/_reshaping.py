"""Layers that rearrange axes: Flatten, Reshape, Permute, and such operations."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes, channel_axis, positions
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import rule


def _spread(value: TensorAxes, recorder: Recorder, why: str) -> Labels | None:
    """Return a label for every entry of a tensor, batch axis left out."""
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


@rule("Reshape", "op:reshape", homogeneous=True)
def reshape(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Units go where their entries go; several axes share them evenly."""
    value = inputs[0]
    shape = call.output_shapes[0]
    if not value.labelled or shape[-1] is None:
        recorder.bar_tensor(value, f"{call.path} moves them to an axis of unknown size")
        return value.with_labels(shape, {})
    last = value.labels[-1]
    if value.labelled == [value.rank - 1] and last is not None:
        # Other axes may be open as long as the last one stays whole.
        if value.shape[-1] == shape[-1]:
            return _reshaped(call, value, {len(shape) - 1: last}, recorder)
    if None in (*value.shape[1:], *shape[1:]):
        recorder.bar_tensor(value, f"{call.path} mixes axes that hold units")
        return value.with_labels(shape, {})
    if positions(value.shape, ()) != positions(shape, ()):
        recorder.bar_tensor(value, f"{call.path} moves them to the batch axis")
        return value.with_labels(shape, {})
    found: dict[int, Labels] = {}
    for taken, made in _parts(value.shape, shape):
        held = [axis for axis in taken if value.labels[axis] is not None]
        for axis in held[1:]:
            labels: Any = value.labels[axis]
            recorder.bar(
                labels, f"{call.path} lays them out with those of another axis"
            )
        if held and not made:  # an axis of size 1
            recorder.bar_tensor(value, f"{call.path} takes their axis away")
        elif held:
            axis, labels = _laid_out(value, taken, held[0], shape, made, recorder)
            found[axis] = labels
    return _reshaped(call, value, found, recorder)


def _parts(before: Any, after: Any) -> list[tuple[range, range]]:
    """Divide the axes of two shapes into runs of the same number of entries.

    Args:
        before: Shape, batch axis first; no other size is open.
        after: The other shape.

    Returns:
        For each run its axes before and after.
    """
    found = []
    ends = [1, 1]
    while ends[0] < len(before) or ends[1] < len(after):
        starts, sizes = list(ends), [1, 1]
        while ends == starts or sizes[0] != sizes[1]:
            # The one that has less goes on, or the one that is not yet at its end.
            behind = sizes[0] > sizes[1] or ends[0] == len(before)
            sizes[behind] *= (before, after)[behind][ends[behind]]
            ends[behind] += 1
        found.append((range(starts[0], ends[0]), range(starts[1], ends[1])))
    return found


def _laid_out(
    value: TensorAxes,
    taken: range,
    axis: int,
    shape: Any,
    made: range,
    recorder: Recorder,
) -> tuple[int, Labels]:
    """Lay the units of one axis out over others.

    Args:
        value: The tensor.
        taken: A run of its axes.
        axis: The one of them that holds the units.
        shape: The new shape.
        made: The axes that the run becomes.
        recorder: Takes down what is pruned together.

    Returns:
        The axis that holds the units now, and their labels on it.
    """
    labels: Any = value.labels[axis]
    alone = [len(labels) if one == axis else 1 for one in taken]
    sizes: Any = [value.shape[i] for i in taken]
    spread = np.broadcast_to(labels.reshape(alone), sizes)
    target = spread.reshape([shape[i] for i in made])
    varying = [
        place
        for place in range(target.ndim)
        if (target != np.take(target, [0], place)).any()
    ] or [target.ndim - 1]
    # Where units come to lie on several axes, one stands for them: all that share a
    # place on it are pruned together.
    one = varying[min(recorder.standing, len(varying) - 1)]
    along = np.moveaxis(target, one, 0).reshape(target.shape[one], -1)
    labels = along[:, 0].copy()
    if len(varying) > 1:
        recorder.spread.append((labels, len(varying)))
    recorder.tie(np.repeat(labels[:, None], along.shape[1], axis=1), along)
    return made[one], labels


def _reshaped(
    call: Call, value: TensorAxes, found: dict[int, Labels], recorder: Recorder
) -> TensorAxes:
    shape = call.output_shapes[0]
    for axis, labels in found.items():
        if call.kind == "Reshape":
            recorder.resize(call, "target_shape", labels, axis - 1)
        elif hasattr(call.layer, "newshape"):
            recorder.resize(call, "newshape", labels, axis)
        else:
            recorder.resize(call, "shape", labels, axis)
    return value.with_labels(shape, found)


@rule("Permute", homogeneous=True)
def permute(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """The axes change places and take their units along."""
    return moved(call, inputs[0], (0, *call.layer.dims))


@rule("op:transpose", homogeneous=True, anywhere=True)
def transpose(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """As Permute, the batch axis included."""
    given = call.arguments(inputs)
    order = given.get("axes", given.get("perm"))
    return moved(call, inputs[0], order or range(inputs[0].rank)[::-1])


@rule("op:swapaxes", "op:moveaxis", homogeneous=True, anywhere=True)
def swap(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Some axes change places."""
    given, axes = call.arguments(inputs), np.arange(inputs[0].rank)
    if call.kind == "op:swapaxes":
        a, b = given["axis1"], given["axis2"]
        axes[[a, b]] = axes[[b, a]]
        return moved(call, inputs[0], axes.tolist())
    order = _moved_order(len(axes), given["source"], given["destination"])
    return moved(call, inputs[0], order)


def moved(call: Call, value: TensorAxes, order: Iterable[int]) -> TensorAxes:
    """Describe a tensor whose axes were put into another order."""
    order = [axis % value.rank for axis in order]
    return TensorAxes(
        call.output_shapes[0],
        tuple(value.labels[axis] for axis in order),
        order.index(value.batch),
    )


def _moved_order(rank: int, source: Any, destination: Any) -> list[int]:
    shape = np.zeros(range(1, rank + 1), bool)
    return [size - 1 for size in np.moveaxis(shape, source, destination).shape]


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


@rule("op:depthtospace", homogeneous=True)
def depth_to_space(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """Blocks of channels become positions: those of one place in each go together."""
    (value,) = inputs
    axis, size = _blocks(call, value)
    recorder.bar_space(value, axis, call)
    labels = value.labels[axis]
    if labels is not None:
        recorder.tie_groups(labels, size)
        labels = labels[: len(labels) // size]
    shape = call.output_shapes[0]
    return value.with_labels(shape, {} if labels is None else {axis: labels})


@rule("op:spacetodepth", "op:extractpatches", homogeneous=True)
def space_to_depth(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """Positions become blocks of channels, each of all channels."""
    (value,) = inputs
    shape = call.output_shapes[0]
    axis, size = _blocks(call, value)
    recorder.bar_space(value, axis, call)
    labels = value.labels[axis]
    found = {} if labels is None else {axis: np.tile(labels, size)}
    if hasattr(call.layer, "strides"):  # Keras takes patches by a convolution
        uses = positions(shape, [axis] if found else [])
        width = size if found else size * (value.shape[axis] or 0)
        rows = () if labels is None else (labels, found[axis])
        recorder.multiply(call, uses and uses * width, rows)
    return value.with_labels(shape, found)


def _blocks(call: Call, value: TensorAxes) -> tuple[int, int]:
    """Return the axis of channels, and how many positions there are in a block."""
    given = call.arguments([value])
    first = str(given.get("data_format")) in ("channels_first", "NCHW")
    size: Any = given.get("block_size", given.get("size", given.get("sizes")))
    sides = (size, size) if isinstance(size, int) else size
    return 1 if first else value.rank - 1, int(np.prod(sides))
