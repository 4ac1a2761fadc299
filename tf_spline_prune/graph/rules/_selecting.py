"""Operations that cut, choose, repeat or shift along an axis, by numbers.

Their output holds units of their input in another order or number, and the numbers
that they are told follow the kept units: `x[..., :8]` becomes `x[..., :5]` where three
of the first eight go. Where no such numbers would do, the units must stay.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import opaque, rule


def _first_of(given: Mapping[str, Any], *names: str) -> tuple[str, Any]:
    """Return the argument that is there, by the names of both flavours."""
    return next((name, given[name]) for name in names if name in given)


def _replaced(value: TensorAxes, axis: int, labels: Labels | None) -> list[Any]:
    """Return the labels of all axes, those of one replaced."""
    return [*value.labels[:axis], labels, *value.labels[axis + 1 :]]


def _before(keep: np.ndarray, places: Sequence[int]) -> list[int]:
    """Count the kept units before each of some places."""
    return [int(keep[:place].sum()) for place in places]


@rule("op:split", homogeneous=True, anywhere=True)
def split(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> list[TensorAxes]:
    """Each part has its own units; the split points follow the kept ones."""
    value = inputs[0]
    given = call.arguments(inputs)
    axis = int(given["axis"]) % value.rank
    key, _ = _first_of(given, "indices_or_sections", "num_or_size_splits")
    if axis == value.batch or len(inputs) > 1:
        return opaque(call, inputs, recorder)
    labels = value.labels[axis]
    pieces: list[Labels | None] = [None] * len(call.output_shapes)
    if labels is not None:
        ends = np.cumsum([shape[axis] for shape in call.output_shapes])
        pieces = list(np.split(labels, ends[:-1]))
        by_size = key == "num_or_size_splits"
        if not all(piece is not None and len(piece) for piece in pieces):
            recorder.bar(labels, f"{call.path} makes parts without units")
        else:
            for piece in pieces:
                recorder.part(call, piece)  # type: ignore[arg-type]
            change = functools.partial(_split_points, ends=ends, by_size=by_size)
            recorder.edit(call, key, labels, change)
    return [
        TensorAxes(shape, tuple(_replaced(value, axis, piece)), value.batch)
        for shape, piece in zip(call.output_shapes, pieces, strict=True)
    ]


@rule("op:arraysplit", homogeneous=True)
def array_split(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """Parts as equal as can be, and only those: one place of all of them goes."""
    (value,) = inputs
    axis = int(call.arguments(inputs)["axis"]) % value.rank
    if axis == 0:
        return opaque(call, inputs, recorder)
    pieces: list[Labels | None] = [None] * len(call.output_shapes)
    if (labels := value.labels[axis]) is not None:
        found = np.array_split(labels, len(pieces))
        for piece in found:
            recorder.tie(found[0][: len(piece)], piece)
            recorder.part(call, piece)
        pieces = list(found)
    return [
        TensorAxes(shape, tuple(_replaced(value, axis, piece)))
        for shape, piece in zip(call.output_shapes, pieces, strict=True)
    ]


def _split_points(old: Any, keep: np.ndarray, ends: Any, by_size: bool) -> Any:
    points = _before(keep, ends)
    sizes = np.diff(points, prepend=0).tolist()
    if isinstance(old, int) and len(set(sizes)) == 1:
        return old
    return sizes if by_size else points[:-1]


@rule("op:getitem", homogeneous=True, anywhere=True)
def getitem(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Whole axes and slices of them; a unit that is taken out alone must stay."""
    value = inputs[0]
    key, asked = _first_of(call.arguments(inputs), "key", "slice_spec")
    items = _items(asked, value.rank)
    plain = (int, np.integer, slice, type(None), dict)
    if len(inputs) > 1 or not all(isinstance(item, plain) for item in items):
        return opaque(call, inputs, recorder)
    labels: list[Labels | None] = []
    axes = iter(range(value.rank))
    batch = -1
    for place, item in enumerate(items):
        axis = None if item is None else next(axes)
        held = None if axis is None else value.labels[axis]
        if isinstance(item, (int, np.integer)):
            if axis == value.batch:
                return opaque(call, inputs, recorder)
            if held is not None:
                at = range(len(held))[item]
                recorder.bar(held[at : at + 1], f"{call.path} takes it out alone")
                change = functools.partial(_index, place=place, rank=value.rank, at=at)
                recorder.edit(call, key, held, change)
            continue
        if axis == value.batch:
            batch = len(labels)
        if held is not None and item is not None:
            start, stop, step = _as_slice(item).indices(len(held))
            change = functools.partial(_slice, place=place, rank=value.rank)
            edit = functools.partial(recorder.edit, call, key, held)
            held = _sliced(call, held, (start, stop, step), edit, change, recorder)
        labels.append(held)
    return TensorAxes(call.output_shapes[0], tuple(labels), batch)


def _items(key: Any, rank: int) -> list[Any]:
    """List what a key says of each axis, the ellipsis written out."""
    items = list(key) if isinstance(key, (list, tuple)) else [key]
    missing = rank - sum(i is not None and i is not ... for i in items)
    at = next((at for at, item in enumerate(items) if item is ...), len(items))
    items[at : at + 1] = [slice(None)] * missing
    return items


def _as_slice(item: Any) -> slice:
    # tf_keras writes a slice down as a dict.
    if isinstance(item, dict):
        return slice(item["start"], item["stop"], item["step"])
    found: slice = item
    return found


def _sliced(
    call: Call,
    held: Labels,
    bounds: tuple[int, int, int],
    edit: Callable[..., None],
    change: Callable[..., Any],
    recorder: Recorder,
) -> Labels:
    """Cut units as a slice does.

    Args:
        call: The call.
        held: The units of the axis.
        bounds: Start, stop and step, as `slice.indices` gives them.
        edit: Records an edit of the key.
        change: Puts other bounds into it.
        recorder: Where the rest is written down.

    Returns:
        The units that are left.
    """
    start, stop, step = bounds
    found = held[slice(start, stop if stop >= 0 else None, step)]
    if len(found) == len(held):  # whole, perhaps turned round
        return found
    if step < 0 or not len(found):
        recorder.bar(held, f"{call.path} takes a part of them that cannot follow")
        return found
    if step > 1:
        # Only whole runs of a step's length leave each place of it where it is.
        runs = np.arange(len(held)) // step
        recorder.tie(held[runs * step], held)
    recorder.part(call, found)
    edit(functools.partial(change, bounds=bounds))
    return found


def _index(old: Any, keep: np.ndarray, place: int, rank: int, at: int) -> Any:
    """Put the new number of a unit into a key."""
    items = _items(old, rank)
    (items[place],) = _before(keep, [at])
    return items if isinstance(old, list) else tuple(items)


def _slice(
    old: Any, keep: np.ndarray, place: int, rank: int, bounds: tuple[int, int, int]
) -> Any:
    """Put bounds into a key that take what is left of the same units."""
    start, stop, step = bounds
    items = _items(old, rank)
    first, last = _before(keep, [start - start % step, stop])
    bounds = (first + start % step, last, step)
    names = ("start", "stop", "step")
    is_dict = isinstance(items[place], dict)
    items[place] = dict(zip(names, bounds, strict=True)) if is_dict else slice(*bounds)
    return items if isinstance(old, list) else tuple(items)


@rule("op:take", "op:gather", "op:gatherv2", homogeneous=True, arrays=True)
def take(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Fixed indices of units follow the kept ones."""
    given = call.arguments(inputs)
    _, value = _first_of(given, "x", "params")
    chosen, axis = given["indices"], given["axis"]
    if len(inputs) > 1 or value is not inputs[0] or given.get("batch_dims"):
        return opaque(call, inputs, recorder)
    indices = np.asarray(chosen)
    if axis is None or indices.ndim != 1 or indices.dtype.kind not in "iu":
        return opaque(call, inputs, recorder)
    axis = int(axis) % value.rank
    if axis == 0:
        return opaque(call, inputs, recorder)
    held = value.labels[axis]
    if held is not None:
        indices = np.where(indices < 0, indices + len(held), indices)
        edit = functools.partial(_indices, indices=indices)
        recorder.edit(call, "indices", held, edit)
        held = held[indices]
        recorder.part(call, held)
    return TensorAxes(call.output_shapes[0], tuple(_replaced(value, axis, held)))


def _indices(old: Any, keep: np.ndarray, indices: np.ndarray) -> Any:
    places = np.cumsum(keep) - 1
    found = places[indices[keep[indices]]].astype(indices.dtype)
    return found.tolist() if isinstance(old, (list, tuple)) else found


@rule("op:unstack", homogeneous=True, anywhere=True)
def unstack(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """An axis goes, and each of its entries becomes a tensor."""
    value = inputs[0]
    axis = int(call.arguments(inputs)["axis"]) % value.rank
    if axis == value.batch:
        return opaque(call, inputs, recorder)
    if (lost := value.labels[axis]) is not None:
        recorder.bar(lost, f"{call.path} makes a tensor of each of them")
    labels = (*value.labels[:axis], *value.labels[axis + 1 :])
    batch = value.batch - (axis < value.batch)
    return [TensorAxes(shape, labels, batch) for shape in call.output_shapes]


@rule("op:tile", homogeneous=True)
def tile(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """The units of an axis come again, all in a row."""
    value = inputs[0]
    _, times = _first_of(call.arguments(inputs), "repeats", "multiples")
    times = list(times) if isinstance(times, (list, tuple)) else [times]
    times = [1] * (value.rank - len(times)) + times
    if len(times) != value.rank or times[0] != 1:
        return opaque(call, inputs, recorder)
    found = {axis: np.tile(held, times[axis]) for axis, held in value.kept.items()}
    return value.with_labels(call.output_shapes[0], found)


@rule("op:repeat", homogeneous=True)
def repeat(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Each unit of an axis comes again, beside itself."""
    value = inputs[0]
    given = call.arguments(inputs)
    if given["axis"] is None or int(given["axis"]) % value.rank == 0:
        return opaque(call, inputs, recorder)
    axis = int(given["axis"]) % value.rank
    found, held = value.kept, value.labels[axis]
    if held is not None:
        times = np.asarray(given["repeats"])
        if times.size > 1:  # a number for each
            recorder.slice(call, "repeats", held)
        found[axis] = np.repeat(held, times.ravel())
    return value.with_labels(call.output_shapes[0], found)


@rule("op:flip", "op:reverse", homogeneous=True)
def flip(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """The units of an axis stand in the opposite order."""
    value = inputs[0]
    axes = call.arguments(inputs)["axis"]
    if axes is None:
        return opaque(call, inputs, recorder)
    named = np.atleast_1d(axes) % value.rank
    found = {a: held[::-1] if a in named else held for a, held in value.kept.items()}
    return value.with_labels(call.output_shapes[0], found)


@rule("op:roll", homogeneous=True)
def roll(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """The last units of an axis go to its front; how many, follows the kept ones."""
    value = inputs[0]
    given = call.arguments(inputs)
    if given["axis"] is None:
        return opaque(call, inputs, recorder)
    shifts, axes = np.atleast_1d(given["shift"]), np.atleast_1d(given["axis"])
    shifts, axes = np.broadcast_arrays(shifts, axes % value.rank)
    found = value.kept
    for place, (shift, axis) in enumerate(zip(shifts, axes, strict=True)):
        held = value.labels[axis]
        if held is None:
            continue
        if list(axes).count(axis) > 1 or np.size(given["shift"]) < len(axes):
            recorder.bar(held, f"{call.path} shifts several axes by one number")
        change = functools.partial(_shift, place=place, last=int(-shift % len(held)))
        recorder.edit(call, "shift", held, change)
        found[int(axis)] = np.roll(held, shift)
    return value.with_labels(call.output_shapes[0], found)


def _shift(old: Any, keep: np.ndarray, place: int, last: int) -> Any:
    kept = int(keep[last:].sum())
    if not isinstance(old, (list, tuple)):
        return kept
    return tuple(kept if at == place else one for at, one in enumerate(old))


@rule("op:pad")
def pad(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Constants before and behind the units, as many as what they meet has left."""
    value = inputs[0]
    given = call.arguments(inputs)
    key, widths = _first_of(given, "pad_width", "paddings")
    if len(widths) != value.rank or any(widths[0]) or len(inputs) > 1:
        return opaque(call, inputs, recorder)
    found = {}
    for axis, held in value.kept.items():
        before, after = map(int, widths[axis])
        if before or after:
            if str(given["mode"]).lower() != "constant":
                recorder.bar(held, f"{call.path} pads them with one another")
            more = recorder.fresh(before + after)
            change = functools.partial(_widths, axis=axis, before=before)
            recorder.edit(call, key, more, change)
            held = np.concatenate([more[:before], held, more[before:]])
        found[axis] = held
    return value.with_labels(call.output_shapes[0], found)


def _widths(old: Any, keep: np.ndarray, axis: int, before: int) -> Any:
    new = [list(map(int, pair)) for pair in old]
    new[axis] = [int(keep[:before].sum()), int(keep[before:].sum())]
    return new
