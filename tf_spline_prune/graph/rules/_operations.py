"""Operations of functional graphs that take axes: reductions, slices, and so on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import opaque, rule


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
    *("op:cumprod", "op:cumsum", "op:flip", "op:layernorm", "op:l2normalize"),
    *("op:normalize", "op:pad", "op:repeat", "op:roll", "op:sort", "op:tile"),
    *("op:reverse", "op:rmsnorm"),
)
def along(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Works along some axes, whose units must stay, and leaves the others alone."""
    value = inputs[0]
    shape = call.output_shapes[0]
    given = call.arguments(inputs)
    changed = {
        a for a in value.kept if len(shape) != value.rank or shape[a] != value.shape[a]
    }
    named = _axes_of(given, value.rank)
    if call.kind not in ("op:pad", "op:tile"):
        changed |= set(value.kept if named is None else named)
    for axis in changed & set(value.kept):
        recorder.bar(value.kept[axis], f"{call.path} works along their axis")
    for other in inputs[1:]:
        recorder.bar_tensor(other, f"{call.path} uses them entry by entry")
    return value.with_labels(
        shape, {a: v for a, v in value.kept.items() if a not in changed}
    )


@rule("op:split", homogeneous=True)
def split(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> list[TensorAxes]:
    """Equal parts share their units, so that they stay equal."""
    value = inputs[0]
    given = call.arguments(inputs)
    axis = int(given["axis"]) % value.rank
    labels = value.labels[axis]
    parts = given.get("indices_or_sections", given.get("num_or_size_splits"))
    pieces: Sequence[Labels | None] = [None] * len(call.output_shapes)
    if labels is not None and isinstance(parts, int):
        recorder.tie_groups(labels, parts)
        pieces = np.split(labels, parts)
    elif labels is not None:
        recorder.bar(labels, f"{call.path} has fixed split points")
    others = {a: v for a, v in value.kept.items() if a != axis}
    return [
        value.with_labels(shape, others if piece is None else {**others, axis: piece})
        for shape, piece in zip(call.output_shapes, pieces, strict=True)
    ]


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


@rule("op:getitem", homogeneous=True)
def getitem(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Units stay where an axis is taken whole, and must stay where it is cut."""
    value = inputs[0]
    shape = call.output_shapes[0]
    given = call.arguments(inputs)
    key = given.get("key", given.get("slice_spec"))
    items = list(key) if isinstance(key, (list, tuple)) else [key]
    plain = (int, slice, type(None), type(Ellipsis), dict)
    if len(inputs) > 1 or not all(isinstance(item, plain) for item in items):
        return opaque(call, inputs, recorder)
    missing = value.rank - sum(i is not None and i is not ... for i in items)
    at = items.index(...) if ... in items else len(items)
    items[at : at + 1] = [slice(None)] * missing
    labels: list[Labels | None] = []
    axes = iter(range(value.rank))
    for item in items:
        if item is None:
            labels.append(None)
            continue
        axis = next(axes)
        held = value.labels[axis]
        whole = isinstance(item, (slice, dict)) and _is_whole(item)
        if held is not None and not whole:
            recorder.bar(held, f"{call.path} selects some of them by position")
        if not isinstance(item, int):
            labels.append(held if whole else None)
    return TensorAxes(shape, tuple(labels))


def _is_whole(item: Any) -> bool:
    # tf_keras writes a slice down as a dict.
    if isinstance(item, dict):
        return all(value is None for value in item.values())
    return item == slice(None)


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
        elif hasattr(call.layer, "get_config"):
            recorder.resize(call, "shape", labels, target)
            found[target] = labels
        else:
            recorder.bar(labels, f"{call.path} has a fixed shape")
    return value.with_labels(shape, found)
