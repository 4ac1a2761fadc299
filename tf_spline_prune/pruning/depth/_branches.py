"""The residual branches of a graph, and why some cannot be dropped."""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Graph,
    Tensor,
    Values,
    call_layer,
    with_mask,
    without_calls,
)
from tf_spline_prune.errors import ModelError

# What adds tensors.
SUMS = ("Add", "op:add")


@dataclass(frozen=True, eq=False)
class Branch:
    """A residual branch: all that lies between a stream and what is added to it.

    Attributes:
        add: The call that adds.
        stream: The tensor that the branch is added to.
        calls: The calls of the branch, in the order of computation.
        origin: Where the stream comes from, seen through activations and the like.
        reason: Why it cannot be dropped; empty if it can.
    """

    add: Call
    stream: Tensor
    calls: tuple[Call, ...]
    origin: Tensor
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of the call that adds, which is the name of the block."""
        return self.add.name

    @property
    def output(self) -> Tensor:
        """The stream behind the branch."""
        return self.add.outputs[0]

    @property
    def place(self) -> int:
        """Index of the stream among the inputs of the sum."""
        return self.add.inputs.index(self.stream)

    @property
    def layers(self) -> dict[str, Any]:
        """The layers of the branch that have weights, by path."""
        calls = [c for c in self.calls if getattr(c.layer, "weights", ())]
        return {call.path: call.layer for call in calls}

    @property
    def params(self) -> int:
        """The number of weights that go with it."""
        weights = [w for layer in self.layers.values() for w in layer.weights]
        return sum(math.prod(w.shape) for w in weights)

    def holds(self, other: "Branch") -> bool:
        """Return whether another block is a part of this branch."""
        return other.add in self.calls


def branches_of(graph: Graph) -> list[Branch]:
    """Find the residual branches of a model.

    Args:
        graph: The model, traced.

    Returns:
        The branches in the order of computation, those too that cannot be dropped. Sums
        of what has nothing in common, such as embeddings and positions, are none.
    """
    facts = _Facts(graph)
    found = (_branch(facts, call) for call in graph.calls if call.kind in SUMS)
    return [branch for branch in found if branch is not None]


class _Facts:
    """What is asked of a graph again and again."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers: dict[Tensor, list[Call]] = {}
        for call in graph.calls:
            for tensor in dict.fromkeys(call.needs()):
                self.consumers.setdefault(tensor, []).append(call)
        self.masked = _masked(graph)
        self.reused = _called_again(graph.blueprint)


def _branch(facts: _Facts, add: Call) -> Branch | None:
    """Read a sum as a stream and a branch of it, if it is one."""
    sides = dict.fromkeys(add.inputs)
    if len(sides) < 2:
        return None
    graph = facts.graph
    for stream in sides:
        keys = _between(graph, stream, [side for side in sides if side != stream])
        if keys:
            calls = tuple(call for call in graph.calls if call.key in keys)
            reason = _reason(facts, add, stream, calls)
            return Branch(add, stream, calls, _origin(graph, stream), reason)
    behind = {side: _behind(graph, side) for side in sides}
    for stream in sides:
        if any(stream in behind[side] for side in sides if side != stream):
            reason = "the branch takes in something else besides the stream"
            return Branch(add, stream, (), _origin(graph, stream), reason)
    if any(one & other for one, other in itertools.pairwise(behind.values())):
        reason = (
            "none of the tensors that it adds is what the others are computed from, as "
            "in a projection skip"
        )
        return Branch(add, add.inputs[0], (), add.inputs[0], reason)
    return None


def _origin(graph: Graph, tensor: Tensor) -> Tensor:
    """Follow a tensor back through calls of one input that have no weights."""
    call = graph.producer_of.get(tensor)
    while call is not None and len(call.needs()) == len(call.inputs) == 1:
        if getattr(call.layer, "weights", ()):
            break
        tensor = call.inputs[0]
        call = graph.producer_of.get(tensor)
    return tensor


def _between(graph: Graph, stream: Tensor, ends: Sequence[Tensor]) -> set[str] | None:
    """Find the keys of the calls between tensors, if all of the ends hang on it."""
    keys: set[str] = set()
    stack, reached = list(ends), False
    while stack:
        tensor = stack.pop()
        if tensor == stream:
            reached = True
            continue
        call = graph.producer_of.get(tensor)
        if call is None:  # another input of the model
            return None
        if call.key not in keys:
            keys.add(call.key)
            stack.extend(call.inputs)
    return keys if reached else None


def _behind(graph: Graph, tensor: Tensor) -> set[Tensor]:
    """Find the computed tensors that a tensor hangs on, itself among them."""
    found: set[Tensor] = set()
    stack = [tensor]
    while stack:
        tensor = stack.pop()
        if tensor in found or tensor not in graph.producer_of:
            continue
        found.add(tensor)
        stack.extend(graph.producer_of[tensor].inputs)
    return found


def _reason(facts: _Facts, add: Call, stream: Tensor, calls: Sequence[Call]) -> str:
    """Return why a branch cannot be dropped; an empty text if it can."""
    graph, keys = facts.graph, {call.key for call in calls}
    if len({*add.input_shapes, add.output_shapes[0]}) > 1:
        return (
            "the branch has another shape than the stream: "
            f"{' and '.join(map(str, dict.fromkeys(add.input_shapes)))}"
        )
    if add.inputs.count(stream) > 1:
        return "the stream is added more than once"
    if stream in facts.masked:
        return "a mask runs along with the stream, and through the sum"
    for call in calls:
        for tensor in call.outputs:
            if tensor in graph.output_tensors:
                return f"the model gives out what {call.name!r} computes"
            for consumer in facts.consumers.get(tensor, ()):
                if consumer.key not in keys and consumer is not add:
                    what = "is a mask of" if tensor in consumer.masks else "goes into"
                    return f"what {call.name!r} computes {what} {consumer.name!r}, too"
        if getattr(call.layer, "weights", ()):
            for use in graph.uses[call.path]:
                if use.key not in keys:
                    return f"its layer {call.path!r} is also used outside of it"
    for call in (*calls, add):
        for model in facts.reused:
            if call.path.startswith(model):
                return f"it lies in {model[:-1]!r}, which is called more than once"
    if len({call.path.rpartition("/")[0] for call in (*calls, add)}) > 1:
        try:
            without_branches(graph, [Branch(add, stream, tuple(calls), stream)])
        except ModelError:
            return "a model within the model computes a part of it and what stays"
    return ""


def _called_again(blueprint: Any) -> set[str]:
    """List the paths of nested models that are called more than once."""
    paths: list[str] = []

    def visit(one: Any) -> None:
        for node in one.nodes:
            if node.inner is not None:
                paths.append(f"{node.path}/")
                visit(node.inner)

    visit(blueprint)
    return {path for path in paths if paths.count(path) > 1}


def _masked(graph: Graph) -> set[Tensor]:
    """Find the sequences that Keras hands a mask on with."""
    found: set[Tensor] = set()
    for call in graph.calls:
        makes = getattr(call.layer, "mask_zero", False) or call.kind == "Masking"
        carries = getattr(call.layer, "supports_masking", False)
        if makes or (carries and not found.isdisjoint(call.inputs)):
            pairs = zip(call.outputs, call.output_shapes, strict=True)
            # What is no sequence any more has no mask.
            found.update(tensor for tensor, shape in pairs if len(shape) > 2)
    return found


def outermost(branches: Sequence[Branch]) -> list[Branch]:
    """Leave out those that are parts of others."""
    return [b for b in branches if not any(one.holds(b) for one in branches)]


def without_branches(graph: Graph, branches: Sequence[Branch]) -> Graph:
    """Take branches out of a graph: the stream takes the place of each sum.

    Args:
        graph: The model, traced.
        branches: The branches.

    Returns:
        The graph, to be built from it; its calls are `left_of` the branches.
    """
    kept = outermost(branches)
    stand_ins = {branch.add.name: branch.place for branch in kept}
    gone = {call.name for branch in kept for call in branch.calls}
    return without_calls(graph, stand_ins, gone)


def left_of(graph: Graph, branches: Collection[Branch]) -> list[Call]:
    """List the calls that stay when branches go."""
    gone = {call.key for branch in branches for call in (*branch.calls, branch.add)}
    return [call for call in graph.calls if call.key not in gone]


def skipping(
    graph: Graph, branches: Sequence[Branch], start: int, values: Values
) -> Iterator[Call]:
    """Yield the calls that are to be run when branches are not.

    Args:
        graph: The model, traced.
        branches: The branches.
        start: Index of the first call of interest.
        values: The tensors so far. As soon as a sum is reached, its output is the
            stream.

    Yields:
        The calls, each to be run before the next one is asked for.
    """
    ends = {branch.add.key: branch for branch in outermost(branches)}
    gone = {call.key for branch in ends.values() for call in branch.calls}
    for call in graph.calls[start:]:
        if call.key in ends:
            branch = ends[call.key]
            values[branch.output] = branch.stream.among(values)
        elif call.key not in gone:
            yield call


def with_zeros(branches: Sequence[Branch]) -> Any:
    """Return what runs a call with zeros in the place of what branches give.

    Args:
        branches: The branches.

    Returns:
        A function that fits `Graph.run`. Every call is run, those of the branches too.
    """
    ends = {branch.add.key: branch for branch in branches}

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        branch = ends.get(call.key)
        for place in range(len(call.inputs) if branch else 0):
            if branch is not None and place != branch.place:
                args, kwargs = with_mask(args, kwargs, place, 0, np.zeros(1, bool))
        return call_layer(call, args, kwargs)

    return apply
