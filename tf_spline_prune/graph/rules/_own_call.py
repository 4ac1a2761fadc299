"""Users' layers without a rule whose `call` shows that they treat each entry alone."""

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Graph,
    Tensor,
    config_of,
    entries_that_count,
    graphs_of_call,
    table_given,
)
from tf_spline_prune.graph._facts import Labels, Role, TensorAxes
from tf_spline_prune.graph._recorder import Recorder, counted
from tf_spline_prune.graph.rules._registry import describe, opaque, rule


@rule("custom")
def own_call(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Activations, scales, dropped paths, normalisations: the units stay in place."""
    given = [*call.args, *(v for key, v in call.kwargs.items() if key != "training")]
    alone = len(given) == len(inputs) == 1 and isinstance(given[0], Tensor)
    if not alone or call.masks:
        return opaque(call, inputs, recorder)
    (value,) = inputs
    unknown = value.rank < 2 or None in value.shape[1:]
    if unknown or call.output_shapes != (value.shape,):
        return opaque(call, inputs, recorder)
    if (table := table_given(call.layer, value.shape)) is not None:
        return _table(call, value, table, recorder)
    read = graphs_of_call(call.layer, value.shape)
    if read is None:
        return opaque(call, inputs, recorder)
    graphs, names = read
    found = [_axes_of(graph, value.shape) for graph in graphs]
    if found[0] is None or any(other != found[0] for other in found[1:]):
        return opaque(call, inputs, recorder)
    held_axes, mixed = found[0]
    weights = dict(zip(names, held_axes, strict=True))
    edits: list[tuple[str, Labels]] = []
    for axis in mixed & set(value.kept):
        if _counts(call, value.shape[axis]):
            return opaque(call, inputs, recorder)
        recorder.mix(call, inputs, axis)
    for axis, labels in value.kept.items():
        if axis in mixed:
            continue
        counted = [
            (name, at)
            for name, axes in weights.items()
            for at, one in enumerate(axes)
            if one == axis
        ]
        keys = entries_that_count(call.layer, value.shape, axis, counted)
        if keys is None:
            return opaque(call, inputs, recorder)
        edits += [(key, labels) for key in keys]
    for name, axes in weights.items():
        held = [None if axis is None else value.labels[axis] for axis in axes]
        roles: list[Role | None] = [None if h is None else "channel" for h in held]
        recorder.weight(call, name, held, roles, 0)
    for key, labels in edits:
        recorder.resize(call, key, labels)
    return TensorAxes(value.shape, value.labels)


def _table(
    call: Call, value: TensorAxes, name: str, recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """A table that is given out whatever goes in, as position embeddings are."""
    last = value.rank - 1
    keys = entries_that_count(call.layer, value.shape, last, [(name, 1)])
    if keys is None:
        return opaque(call, [value], recorder)
    made = recorder.units(call, value.shape[last] or 0)
    recorder.tie(made, recorder.read(value, last, call))
    recorder.weight(call, name, (None, made), (None, "out"), 0)
    for key in keys:
        recorder.resize(call, key, made)
    return value.with_labels(call.output_shapes[0], {last: made})


def _counts(call: Call, size: int | None) -> bool:
    """Return whether an entry of a layer's config may be the number of its units."""
    try:
        config = config_of(call.layer)
    except Exception:  # whatever a user's `get_config` raises; it is mended by these
        config = vars(call.layer)
    return any(type(value) is int and value == size for value in config.values())


def _axes_of(
    graph: Graph, shape: tuple[int | None, ...]
) -> tuple[list[list[int | None]], set[int]] | None:
    """Walk a graph with a label for each entry of a tensor, and see what is left.

    Args:
        graph: A graph of the tensor and of weights with an axis in front.
        shape: Shape of the tensor.

    Returns:
        For each weight, the tensor's axes along which its own lie, `None` for those of
        size 1; and the axes whose means the result hangs on. Nothing at all if an entry
        of the result hangs on others in another way.
    """
    recorder = Recorder({}, approximate=False)
    shapes = [shape, *(entry.shape for entry in graph.inputs[1:])]
    inputs = [
        TensorAxes(
            one, (None, *(recorder.fresh(n or 0) if n != 1 else None for n in one[1:]))
        )
        for one in shapes
    ]
    axes = dict(zip(graph.input_tensors, inputs, strict=True))
    averaged: list[Labels] = []
    for call in graph.calls:
        values = [axes[tensor] for tensor in call.inputs]
        made = _mean(call, values, averaged) or describe(call, values, recorder)
        axes.update(zip(call.outputs, made, strict=True))
    result = axes[graph.output_tensors[0]]
    root, reasons = recorder.solve()
    if reasons or recorder.opaque or len(result.labels) != len(shape):
        return None
    if any(getattr(one.change, "func", None) is not counted for one in recorder.edits):
        return None  # other numbers than sizes do not follow the layer's config
    entry, *weights = inputs
    for before, after in zip(entry.labels, result.labels, strict=True):
        if (before is None) != (after is None):
            return None
        if before is not None and not np.array_equal(root[before], root[after]):
            return None
    places = {tuple(root[labels]): axis for axis, labels in sorted(entry.kept.items())}
    if len(places) < len(entry.kept):  # two axes hold the same
        return None
    found: list[list[int | None]] = []
    for weight in weights:
        keys = [None if a is None else tuple(root[a]) for a in weight.labels[1:]]
        if any(key is not None and key not in places for key in keys):
            return None
        found.append([None if key is None else places[key] for key in keys])
    over = [tuple(root[labels]) for labels in averaged]
    if any(key not in places for key in over):
        return None
    return found, {places[key] for key in over}


def _mean(
    call: Call, values: list[TensorAxes], averaged: list[Labels]
) -> list[TensorAxes] | None:
    """Describe a mean along axes that stay, as a normalisation takes it.

    Args:
        call: The call.
        values: What goes in.
        averaged: The labels of these axes are put there.

    Returns:
        What comes out; `None` of any other call.
    """
    if call.kind not in ("op:mean", "op:var") or len(values) != 1:
        return None
    (value,), given = values, call.arguments(values)
    axis = given["axis"]
    if axis is None or not given["keepdims"]:
        return None
    axes = [one % value.rank for one in np.atleast_1d(axis).tolist()]
    averaged += [labels for one in axes if (labels := value.labels[one]) is not None]
    left = {one: labels for one, labels in value.kept.items() if one not in axes}
    return [value.with_labels(call.output_shapes[0], left)]
