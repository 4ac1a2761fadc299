"""What is left learns to do the work of dropped blocks, by least squares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    Tensor,
    Values,
    Watcher,
    numpy_of,
    read_weights,
    trace,
    watch,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.depth._branches import (
    SUMS,
    Branch,
    left_of,
    outermost,
)
from tf_spline_prune.pruning.recovery._least_squares import (
    Product,
    solve_in_order,
)
from tf_spline_prune.pruning.recovery._linear_views import linear_views
from tf_spline_prune.pruning.recovery._output_tail import (
    IDENTITIES,
    OutputTail,
    is_relu,
    output_tail,
)
from tf_spline_prune.pruning.recovery._recording import (
    Recorded,
    Recording,
)

_RELU_STEPS = 2


@dataclass(frozen=True, eq=False)
class Gap:
    """Blocks in a row that go, and the layer before them that makes up for them.

    Attributes:
        last: The sum behind the last of them; what it gives is to be restored.
        writer: The call whose output is all that the stream before the first of them
            is, or is the last that is added to it.
        tail: What lies between the writer and that stream.
    """

    last: Call
    writer: Call
    tail: OutputTail


def gaps_of(graph: Graph, dropped: Sequence[Branch]) -> list[Gap]:
    """Find the gaps that a layer before them can close.

    Args:
        graph: The model, traced.
        dropped: The blocks that go.

    Returns:
        The gaps, in the order of computation.
    """
    ends = {branch.output for branch in dropped}
    found: dict[Tensor, tuple[bool, Call]] = {}
    starts: dict[Tensor, Tensor] = {}  # where the gap begins that ends there
    for branch in outermost(dropped):
        base, bent = _before_relu(graph, branch.stream)
        inside = {call.key for call in (*branch.calls, branch.add)}
        if not _only_into(graph, branch.stream, inside):
            continue  # somebody else wants the stream as it is
        if base in starts:
            start = starts[base]
            if bent and not found[start][0]:  # the stream before it has met no ReLU
                continue
        elif base in ends or base in found:
            continue
        else:
            start = base
            found[start] = bent, branch.add
        starts[branch.output] = start
        found[start] = found[start][0], branch.add
    gaps = []
    for base, (bent, last) in found.items():
        if bent and not _only_into_relu(graph, last.outputs[0]):
            continue
        gap = _gap(graph, base, bent, last)
        if gap is not None:
            gaps.append(gap)
    return gaps


def _before_relu(graph: Graph, stream: Tensor) -> tuple[Tensor, bool]:
    """Return what a stream is before its ReLU, and whether it comes out of one."""
    call = graph.producer_of.get(stream)
    if call is not None and is_relu(call):
        if _only_into(graph, call.inputs[0], {call.key}):
            return call.inputs[0], True
    return stream, False


def _only_into(graph: Graph, tensor: Tensor, keys: set[str]) -> bool:
    """Return whether nothing but some calls takes a tensor in."""
    consumers = {call.key for call in graph.consumers_of[tensor]}
    return tensor not in graph.output_tensors and consumers <= keys


def _only_into_relu(graph: Graph, tensor: Tensor) -> bool:
    consumers = graph.consumers_of[tensor]
    return tensor not in graph.output_tensors and all(map(is_relu, consumers))


def _gap(graph: Graph, base: Tensor, bent: bool, last: Call) -> Gap | None:
    """Find the last linear layer before a gap, from which the stream comes."""
    producer = graph.producer_of.get(base)
    if producer is None:
        return None
    sides = producer.inputs if producer.kind in SUMS else (base,)
    order = graph.branch_by_branch
    found: dict[int, Gap] = {}
    for side in sides:
        call = graph.producer_of.get(side)
        while call is not None and call.kind in ("BatchNormalization", *IDENTITIES):
            call = graph.producer_of.get(call.inputs[0])
        if call is None or not call.inputs or len(graph.uses[call.path]) > 1:
            continue
        views = linear_views(call)
        if not views or not views[-1].ends:
            continue
        view = views[-1]
        matrix = view.arrangement.matrix(view.joined(read_weights(call.layer)))
        tail = output_tail(graph, call, view, len(matrix) * matrix.shape[-1])
        if tail.end != base or tail.meets_relu != bent:
            continue
        other = graph.producer_of.get(tail.addend) if tail.addend else None
        place = order.index(call.key)
        if other is not None and order.index(other.key) > place:
            continue  # it would not be known yet
        found[place] = Gap(last, call, tail)
    return found[max(found)] if found else None


def close_gaps(
    graph: Graph,
    dropped: Sequence[Branch],
    left: Graph,
    small: Any,
    data: Calibration,
    seed: int = 0,
    ridge: float = 1e-3,
) -> list[str]:
    """Solve the layers before dropped blocks for the stream behind them, in place.

    The layers behind are solved, too, for what they gave: they see what no layer before
    the gap could make up for.

    Args:
        graph: The original model, traced.
        dropped: The blocks that are gone.
        left: The graph without them, from which `small` was built.
        small: The smaller model; its weights change.
        data: The data.
        seed: Seed of the draw.
        ridge: As in `least_squares`.

    Returns:
        The paths of the layers that were solved.
    """
    recording = Recording(ChannelGraph(graph.model), data, seed=seed)
    gaps = {gap.writer.key: gap for gap in gaps_of(graph, dropped)}
    tasks = _tasks(graph, dropped, gaps, recording)
    if not tasks:
        return []
    _record(recording, tasks)
    cut, tensors = _standing_for(graph, dropped, left, small)
    products = [_product(graph, task, cut, tensors) for task in tasks]
    solved = solve_in_order(products, cut, recording, ridge, _RELU_STEPS)
    return [product.calls[0].path for product in solved]


@dataclass(frozen=True, eq=False)
class _Task:
    """A product that is to be solved.

    Attributes:
        call: The last call of its layer.
        place: Which of the layer's products it is.
        recorded: What it is in the original.
        gap: The gap that it closes, if it does.
    """

    call: Call
    place: int
    recorded: Recorded
    gap: Gap | None


def _tasks(
    graph: Graph,
    dropped: Sequence[Branch],
    gaps: Mapping[str, Gap],
    recording: Recording,
) -> list[_Task]:
    """List what is to be solved, in the order in which it can be."""
    gone = {call.key for branch in dropped for call in branch.calls}
    changed = {branch.output for branch in dropped}
    tasks = []
    for key in graph.branch_by_branch:
        call = graph.call_of[key]
        gap = gaps.get(key)
        if key in gone or (gap is None and changed.isdisjoint(call.inputs)):
            continue
        changed.update(call.outputs)
        if key != recording.last[call.path]:
            continue
        products = recording.of[call.path]
        for place, one in enumerate(products):
            last = gap if place == len(products) - 1 else None
            if one is not None:
                tasks.append(_Task(call, place, one, last))
    return tasks


def _record(recording: Recording, tasks: Sequence[_Task]) -> None:
    """Record what each product was, or should be so that the stream is the later one.

    Nothing else is recorded.
    """
    wanted = {id(task.recorded) for task in tasks}
    for path, products in recording.of.items():
        known = [one if id(one) in wanted else None for one in products]
        recording.of[path] = known if any(known) else []
    closing = [(task.recorded, task.gap) for task in tasks if task.gap]
    done = [0] * len(closing)

    def visit(call: Call, values: Values) -> None:
        for number, (one, gap) in enumerate(closing):
            if call.key == gap.last.key and len(one.seen) > done[number]:
                done[number] = len(one.seen)
                there = one.seen[-1]  # of the same batch, for the writer runs before
                later: Any = sum(numpy_of(values, tensor) for tensor in call.inputs)
                target = one.view.arrangement.outputs(later, there.chosen)
                if there.addends is not None:
                    target = target - there.addends
                target = target * gap.tail.unscaled - gap.tail.offset
                there.targets = target.astype(later.dtype)

    keys = {gap.last.key for _, gap in closing}
    graph, size = recording.graph.graph, recording.batch_size
    watch(graph, recording.data, size, [Watcher(keys, visit)])
    recording.run()


def _standing_for(
    graph: Graph, dropped: Sequence[Branch], left: Graph, small: Any
) -> tuple[Graph, Mapping[Tensor, Tensor]]:
    """Put the smaller model's layers into the graph that it was built from.

    Returns:
        The graph, and which of its tensors stands for each of the original.
    """
    layers = trace(small).layers
    calls = tuple(
        replace(call, layer=layers.get(call.path, call.layer))
        if getattr(call.layer, "weights", ())
        else call
        for call in left.calls
    )
    tensors = dict(zip(graph.input_tensors, left.input_tensors, strict=True))
    ends = {branch.add.key: branch for branch in outermost(dropped)}
    kept = iter(calls)
    stay = {call.key for call in left_of(graph, dropped)}
    for call in graph.calls:
        if call.key in stay:
            tensors.update(zip(call.outputs, next(kept).outputs, strict=True))
        elif call.key in ends:
            tensors[call.outputs[0]] = tensors[ends[call.key].stream]
    return replace(left, calls=calls), tensors


def _product(
    graph: Graph, task: _Task, cut: Graph, tensors: Mapping[Tensor, Tensor]
) -> Product:
    """Find a product in the smaller model."""
    uses, old = cut.uses[task.call.path], task.recorded
    view = linear_views(uses[-1])[task.place]
    outputs = len(old.matrix) * old.matrix.shape[-1]
    tail = output_tail(graph, task.call, view, outputs)
    intercept = tail.intercept
    if intercept is not None:
        paths = {id(layer): path for path, layer in graph.layers.items()}
        intercept = cut.layers[paths[id(intercept[0])]], *intercept[1:]
    addend = None if tail.addend is None else tensors[tail.addend]
    tail = replace(tail, intercept=intercept, addend=addend)
    held = old.seen[0].states
    states = np.arange(0 if held is None else held.shape[1])
    kept = np.ones(outputs, bool)
    return Product(old, view, uses, kept, states, 1.0, tail, task.gap is not None)
