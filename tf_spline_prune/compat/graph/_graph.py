"""`Graph`: a model as one flat list of calls, every tensor made just once.

All that is known of a network is read off this one form: with the layers themselves
it computes, with channel labels it becomes the channel graph, with bounds it tells
which units never change. Models within the model stand there call by call; how they
were nested is kept in the `Blueprint`, from which the model is built again.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from tf_spline_prune.compat.graph._blueprint import (
    Apply,
    Arguments,
    Blueprint,
    Input,
    Node,
    Shape,
    declared,
    given,
    in_a_row,
    in_order,
)


class Tensor(str):
    """The name of a tensor in a graph: its call, and which of its outputs.

    Attributes:
        dtype: What the nested model that takes it in wants it to be, if any does.
    """

    dtype: str | None = None

    def declared(self, dtype: str) -> "Tensor":
        """Return the same tensor, taken in as another dtype."""
        tensor = Tensor(self)
        tensor.dtype = dtype
        return tensor

    def among(self, values: Mapping["Tensor", Any]) -> Any:
        """Look up the tensor's value."""
        value = values[self]
        return declared(value, self.dtype) if self.dtype else value


Values = dict[Tensor, Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One use of one layer or operation.

    Attributes:
        layer: The layer or operation.
        kind: The class name of a Keras layer (`"Conv2D"`), `"op:relu"` for an
            operation, `"custom:Name"` for a user's layer.
        path: The layer's path, nested models included: `"encoder/conv1"`.
        name: `path`, with the number of the use from the second use on.
        key: The same in every copy of the model: the name; of what has no weights,
            and gets another name in every copy, the kind and a number.
        args: The positional arguments, with `Tensor`s in the place of tensors.
        kwargs: The arguments by name, likewise.
        inputs: The tensors that go in, masks left out, in the order of parameters.
        masks: The tensors that go in as masks; Keras 3 hands them on so.
        outputs: The tensors that come out.
        input_shapes: Shapes of the inputs, batch axis first.
        input_dtypes: Their dtypes.
        output_shapes: Shapes of the outputs, batch axis first.
        why: Why a user's layer made of layers could not be traced. Defaults to `""`.
    """

    layer: Any
    kind: str
    path: str
    name: str
    key: str
    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    inputs: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_shapes: tuple[Shape, ...]
    input_dtypes: tuple[str, ...]
    output_shapes: tuple[Shape, ...]
    why: str = ""

    def fill(self, values: Mapping[Tensor, Any]) -> Arguments:
        """Put values in the place of tensors.

        Args:
            values: By tensor; masks may be absent, then they are `None`.

        Returns:
            The positional arguments, and those by name.
        """

        def value(part: Any) -> Any:
            if not isinstance(part, Tensor):
                return part
            if part in self.masks and part not in values:
                return None
            return part.among(values)

        filled: Arguments = keras.tree.map_structure(value, (self.args, self.kwargs))
        return filled

    def needs(self) -> list[Tensor]:
        """List all tensors that go in, masks too, in the order of the arguments."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def arrays(self) -> list[tuple[int, ...]]:
        """List the shapes of arguments that are arrays and no tensors of the model."""
        settings = {} if hasattr(self.layer, "weights") else vars(self.layer)
        leaves = keras.tree.flatten((self.args, self.kwargs))
        shapes = [getattr(v, "shape", ()) for v in (*leaves, *settings.values())]
        return [tuple(shape) for shape in shapes if shape is not None and len(shape)]

    def arguments(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return all that the call is given.

        Args:
            values: One value per input, to stand in the place of the tensors.

        Returns:
            The settings of an operation and the arguments of the call, by name;
            absent ones have their defaults.
        """
        args, kwargs = self.fill(dict(zip(self.inputs, values, strict=True)))
        settings = {} if hasattr(self.layer, "weights") else vars(self.layer)
        return {**settings, **given(self.layer, args, kwargs, defaults=True)}


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in an order of computation.

    Two models of the same wiring have the same keys and tensors, so that these can be
    compared one by one.

    Attributes:
        blueprint: How the model is put together.
        calls: The calls, those of nested models in the place of the model.
        input_tensors: The tensors that go in.
        output_tensors: The tensors that come out.
    """

    blueprint: Blueprint
    calls: tuple[Call, ...]
    input_tensors: tuple[Tensor, ...]
    output_tensors: tuple[Tensor, ...]

    @property
    def model(self) -> Any:
        """The model that was traced."""
        return self.blueprint.model

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The model's inputs."""
        return self.blueprint.inputs

    @functools.cached_property
    def layers(self) -> dict[str, Any]:
        """The layers and operations by path."""
        return {call.path: call.layer for call in self.calls}

    @functools.cached_property
    def uses(self) -> dict[str, list[Call]]:
        """The calls of each layer or operation, by path."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.path, []).append(call)
        return found

    @functools.cached_property
    def call_of(self) -> dict[str, Call]:
        """The calls by key."""
        return {call.key: call for call in self.calls}

    @functools.cached_property
    def producer_of(self) -> dict[Tensor, Call]:
        """The call that each tensor comes out of; the inputs have none."""
        return {tensor: call for call in self.calls for tensor in call.outputs}

    @functools.cached_property
    def consumers_of(self) -> dict[Tensor, list[Call]]:
        """The calls that each tensor goes into, other than as a mask."""
        found: dict[Tensor, list[Call]] = {t: [] for t in self.input_tensors}
        for call in self.calls:
            found.update({tensor: [] for tensor in call.outputs})
            for tensor in dict.fromkeys(call.inputs):
                found[tensor].append(call)
        return found

    def chain(self, tensor: Tensor) -> Iterator[Call]:
        """Yield what a tensor goes through, while just one call consumes it."""
        while tensor not in self.output_tensors:
            consumers = self.consumers_of[tensor]
            if len(consumers) != 1:
                return
            yield consumers[0]
            if len(consumers[0].outputs) != 1:
                return
            (tensor,) = consumers[0].outputs

    def ends(self) -> set[str]:
        """List the calls that the model's outputs come out of."""
        made = (self.producer_of.get(tensor) for tensor in self.output_tensors)
        return {call.name for call in made if call is not None}

    def run(self, inputs: Sequence[Any], apply: Apply) -> list[Any]:
        """Interpret all calls.

        Args:
            inputs: One value per input.
            apply: Called as `apply(call, args, kwargs)`, with the values in the
                place of the tensors; returns the call's output or outputs.

        Returns:
            One value per output.
        """
        values: Values = dict(zip(self.input_tensors, inputs, strict=True))
        run_calls(self.calls, values, apply)
        return [tensor.among(values) for tensor in self.output_tensors]

    @functools.cached_property
    def branch_by_branch(self) -> tuple[str, ...]:
        """The keys in an order that ends one branch before it begins the next.

        Each call comes right after what it needs: little has to be held at a time.
        """
        ordered: dict[str, None] = {}
        for output in self.output_tensors:
            stack = [output]
            while stack:
                call = self.producer_of.get(stack[-1])
                if call is None or call.key in ordered:
                    stack.pop()
                    continue
                missing = [
                    tensor
                    for tensor in call.needs()
                    if tensor in self.producer_of
                    and self.producer_of[tensor].key not in ordered
                ]
                if missing:
                    stack.append(missing[0])
                else:
                    ordered[call.key] = None
        return tuple({**ordered, **dict.fromkeys(self.call_of)})

    def live(self, order: Sequence[str], place: int) -> set[Tensor]:
        """List the tensors that are made before a place and needed from there on.

        Args:
            order: All keys, in the order of running.
            place: Index of a call.

        Returns:
            The tensors.
        """
        calls = [self.call_of[key] for key in order[place:]]
        made = {tensor for call in calls for tensor in call.outputs}
        needed = {tensor for call in calls for tensor in call.needs()}
        return (needed | set(self.output_tensors)) - made

    def spent(self, order: Sequence[str]) -> list[list[Tensor]]:
        """List the tensors that nobody needs any more after each call.

        Args:
            order: All keys, in the order of running.

        Returns:
            For each call the tensors that it is the last to take in or give.
        """
        last = {
            tensor: place
            for place, key in enumerate(order)
            for tensor in (*self.call_of[key].needs(), *self.call_of[key].outputs)
        }
        found: list[list[Tensor]] = [[] for _ in order]
        for tensor, place in last.items():
            if tensor not in self.output_tensors:
                found[place].append(tensor)
        return found


def run_calls(calls: Iterable[Call], values: Values, apply: Apply) -> None:
    """Interpret calls, each after those that it needs.

    Args:
        calls: The calls.
        values: The values by tensor; what the calls give is added.
        apply: As in `Graph.run`.
    """
    for call in calls:
        outputs = in_a_row(apply(call, *call.fill(values)), len(call.outputs))
        values.update(zip(call.outputs, outputs, strict=True))


def flat_graph(blueprint: Blueprint) -> Graph:
    """List the calls of a model and of all models within it.

    Args:
        blueprint: How the model is put together.

    Returns:
        Its graph.
    """
    calls: dict[str, Call] = {}

    def record(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = node.name if getattr(node.layer, "weights", ()) else node.kind
        key, count = first, 1
        while key in calls or key == "input":  # as the model's own inputs are named
            count += 1
            key = f"{first} ({count})"
        outputs = tuple(Tensor(f"{key}:{i}") for i in range(len(node.outputs)))
        calls[key] = _call_of(node, key, args, kwargs, outputs)
        return outputs[0] if len(outputs) == 1 else list(outputs)

    inputs = [Tensor(f"input:{i}") for i in range(len(blueprint.inputs))]
    outputs = blueprint.run(list(inputs), record, enter=True)
    return Graph(blueprint, tuple(calls.values()), tuple(inputs), tuple(outputs))


def _call_of(
    node: Node,
    key: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: tuple[Tensor, ...],
) -> Call:
    """Make the call of a node, masks told from the other tensors."""
    flags = {
        name: [name.endswith("mask")] * len(keras.tree.flatten(value))
        for name, value in kwargs.items()
    }
    pairs = zip(
        in_order(node.layer, args, kwargs),
        in_order(node.layer, (False,) * len(keras.tree.flatten(args)), flags),
        strict=True,
    )
    # One tensor may go in as data and as a mask.
    tensors = [(leaf, mask) for leaf, mask in pairs if isinstance(leaf, Tensor)]
    taken = [place for place, (_, mask) in enumerate(tensors) if not mask]
    return Call(
        layer=node.layer,
        kind=node.kind,
        path=node.path,
        name=node.name,
        key=key,
        args=args,
        kwargs=kwargs,
        inputs=tuple(tensors[place][0] for place in taken),
        masks=tuple(tensor for tensor, mask in tensors if mask),
        outputs=outputs,
        input_shapes=tuple(node.input_shapes[place] for place in taken),
        input_dtypes=tuple(node.input_dtypes[place] for place in taken),
        output_shapes=node.output_shapes,
        why=node.why,
    )


def fixed_size(inputs: Sequence[Input]) -> int | None:
    """Return the number of examples that a model takes at a time, if it fixes that."""
    sizes = (entry.shape[0] for entry in inputs if entry.shape)
    return next((size for size in sizes if size is not None), None)


def with_sizes(call: Call, shapes: Sequence[Shape]) -> Call:
    """Fill in the sizes of a call's output from the sizes of its inputs.

    Args:
        call: A call, perhaps of an inner model whose own input leaves sizes open.
        shapes: Shapes of the inputs where it is used, the batch axis first.

    Returns:
        The call, with shapes as far as they are known.
    """
    if not shapes:
        return call
    given = [size for shape in shapes for size in shape[1:]]
    made = [size for shape in call.output_shapes for size in shape[1:]]
    forgets = None in made and None not in given
    if list(shapes) == list(call.input_shapes) and not forgets:
        return call
    call = replace(call, input_shapes=tuple(shapes))
    try:
        found = _output_shapes(call)
    except Exception:  # whatever a layer raises: then the sizes stay as they were
        return call
    fits = [len(a) == len(b) for a, b in zip(found, call.output_shapes, strict=False)]
    if len(found) == len(call.output_shapes) and all(fits):
        return replace(call, output_shapes=found)
    return call


def _output_shapes(call: Call) -> tuple[Shape, ...]:
    if hasattr(call.layer, "compute_output_spec"):
        tensors = [keras.KerasTensor(shape) for shape in call.input_shapes]
        args, kwargs = call.fill(dict(zip(call.inputs, tensors, strict=True)))
        if call.kind == "EinsumDense":  # says `None` where its config does
            specs = keras.src.backend.compute_output_spec(call.layer.call, *args)
        else:
            specs = call.layer.compute_output_spec(*args, **kwargs)
        return tuple(tuple(spec.shape) for spec in keras.tree.flatten(specs))
    shapes: Any = list(call.input_shapes)
    shape = call.layer.compute_output_shape(shapes[0] if len(shapes) == 1 else shapes)
    return (tuple(shape.as_list()),)
