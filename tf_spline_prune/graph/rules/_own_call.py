"""Users' layers without a rule whose `call` shows that they treat each entry alone."""

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Graph,
    Tensor,
    entries_that_count,
    graphs_of_call,
)
from tf_spline_prune.graph._facts import Labels, Role, TensorAxes
from tf_spline_prune.graph._recorder import Recorder, counted
from tf_spline_prune.graph.rules._registry import describe, opaque, rule


@rule("custom")
def own_call(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Activations, scales and offsets, dropped paths: the units stay where they are."""
    given = [*call.args, *(v for key, v in call.kwargs.items() if key != "training")]
    alone = len(given) == len(inputs) == 1 and isinstance(given[0], Tensor)
    if not alone or call.masks:
        return opaque(call, inputs, recorder)
    (value,) = inputs
    unknown = value.rank < 2 or None in value.shape[1:]
    if unknown or call.output_shapes != (value.shape,):
        return opaque(call, inputs, recorder)
    read = graphs_of_call(call.layer, value.shape)
    if read is None:
        return opaque(call, inputs, recorder)
    graphs, names = read
    found = [_axes_of_weights(graph, value.shape) for graph in graphs]
    if found[0] is None or any(other != found[0] for other in found[1:]):
        return opaque(call, inputs, recorder)
    weights = dict(zip(names, found[0], strict=True))
    edits: list[tuple[str, Labels]] = []
    for axis, labels in value.kept.items():
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


def _axes_of_weights(
    graph: Graph, shape: tuple[int | None, ...]
) -> list[list[int | None]] | None:
    """Walk a graph with a label for each entry of a tensor, and see what is left.

    Args:
        graph: A graph of the tensor and of weights with an axis in front.
        shape: Shape of the tensor.

    Returns:
        For each weight, the tensor's axes along which its own lie, `None` for those of
        size 1; nothing at all if an entry of the result hangs on other entries.
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
    for call in graph.calls:
        made = describe(call, [axes[tensor] for tensor in call.inputs], recorder)
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
    return found
