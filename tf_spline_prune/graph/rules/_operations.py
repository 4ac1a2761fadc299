"""Operations of functional graphs that take axes: reductions, stacks, and so on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import rule


def _axes_of(given: Mapping[str, Any], rank: int) -> list[int] | None:
    """Return the axes that an operation is asked to work on; `None` for all."""
    axis = given.get("axis", given.get("dim"))
    if axis is None:
        return None
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return sorted(int(one) % rank for one in axes)


@rule(
    *("op:all", "op:any", "op:amax", "op:amin", "op:logsumexp", "op:max", "op:mean"),
    *("op:median", "op:min", "op:prod", "op:reducemax", "op:reducemean"),
    *("op:reducemin", "op:reduceprod", "op:reducestd", "op:reducesum"),
    *("op:reducevariance", "op:std", "op:sum", "op:var", "op:argmax", "op:argmin"),
    *("op:countnonzero", "op:reducelogsumexp", "op:reduceany", "op:reduceall"),
)
def reduce(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Axes go, or stay with size 1; units along them must stay."""
    value = inputs[0]
    shape = call.output_shapes[0]
    axes = _axes_of(call.arguments(inputs), value.rank)
    gone = range(value.rank) if axes is None else axes
    for axis in gone:
        if (lost := value.labels[axis]) is not None:
            recorder.bar(lost, f"{call.path} reduces over them")
    left = [axis for axis in range(value.rank) if axis not in gone]
    if len(shape) == value.rank:
        return value.with_labels(
            shape, {a: v for a, v in value.kept.items() if a in left}
        )
    return TensorAxes(shape, tuple(value.labels[axis] for axis in left))


@rule("op:expanddims", homogeneous=True)
def expand(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """New axes of size 1."""
    shape = call.output_shapes[0]
    new = _axes_of(call.arguments(inputs), len(shape)) or []
    old = iter(inputs[0].labels)
    labels = [None if axis in new else next(old) for axis in range(len(shape))]
    return TensorAxes(shape, tuple(labels))


@rule("op:squeeze", homogeneous=True)
def squeeze(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Axes of size 1 go; a single unit along one must stay."""
    value = inputs[0]
    axes = _axes_of(call.arguments(inputs), value.rank)
    if axes is None:
        axes = [axis for axis, size in enumerate(value.shape) if size == 1]
    for axis in axes:
        if (lost := value.labels[axis]) is not None:
            recorder.bar(lost, f"{call.path} removes their axis")
    left = [v for axis, v in enumerate(value.labels) if axis not in axes]
    return TensorAxes(call.output_shapes[0], tuple(left))


@rule(
    *("op:cumprod", "op:cumsum", "op:layernorm", "op:l2normalize"),
    *("op:normalize", "op:sort", "op:rmsnorm"),
)
def along(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Works along some axes, whose units must stay, and leaves the others alone."""
    value = inputs[0]
    shape = call.output_shapes[0]
    named = _axes_of(call.arguments(inputs), value.rank)
    changed = set(value.kept if named is None or len(shape) != value.rank else named)
    for axis in changed & set(value.kept):
        recorder.bar(value.kept[axis], f"{call.path} works along their axis")
    for other in inputs[1:]:
        recorder.bar_tensor(other, f"{call.path} uses them entry by entry")
    return value.with_labels(
        shape, {a: v for a, v in value.kept.items() if a not in changed}
    )


@rule("op:glu")
def glu(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """One half gates the other."""
    value = inputs[0]
    axis = int(call.arguments(inputs).get("axis", -1)) % value.rank
    labels = value.labels[axis]
    kept = dict(value.kept)
    if labels is not None:
        recorder.tie_groups(labels, 2)
        kept[axis] = np.split(labels, 2)[0]
    return value.with_labels(call.output_shapes[0], kept)


@rule("op:stack")
def stack(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Tensors of one shape side by side along a new axis."""
    shape = call.output_shapes[0]
    new = int(call.arguments(inputs)["axis"]) % len(shape)
    found: dict[int, Labels] = {}
    for axis in range(1, inputs[0].rank):
        met = recorder.meet(call, [value.labels[axis] for value in inputs])
        if met is not None:
            found[axis + (axis >= new)] = met
    return inputs[0].with_labels(shape, found)


@rule("op:broadcastto")
def broadcast(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Axes of size 1 grow; the size of the others is written into the operation."""
    value = inputs[0]
    shape = call.output_shapes[0]
    found = {}
    for axis, labels in value.kept.items():
        target = axis + len(shape) - value.rank
        if shape[target] != value.shape[axis]:
            recorder.bar(labels, f"{call.path} repeats them")
        else:
            recorder.resize(call, "shape", labels, target)
            found[target] = labels
    return value.with_labels(shape, found)
