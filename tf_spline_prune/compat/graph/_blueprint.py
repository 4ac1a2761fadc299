"""`Blueprint`: how a model is put together, models within it, to build it again."""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

Shape = tuple[int | None, ...]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Apply = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Input:
    """One input of a model.

    Attributes:
        name: Its name.
        shape: Its shape, batch axis first.
        dtype: Its dtype.
        place: Keys and positions that lead to it in what the model is called on.
        flags: What else `keras.Input` was told of it: `optional`, `sparse`, `ragged`.
    """

    name: str
    shape: Shape
    dtype: str
    place: tuple[Any, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Node:
    """One use of a layer, an operation or a model within a model.

    Attributes:
        layer: The layer, operation or model.
        kind: The class name of a Keras layer (`"Conv2D"`), `"op:relu"` for an
            operation, `"custom:Name"` for a user's layer.
        path: The layer's path, nested models included: `"encoder/conv1"`.
        name: `path`, with the number of the use from the second use on.
        inputs: Identities of the tensors that go in, in the order of parameters.
        outputs: Identities of the tensors that come out.
        input_shapes: Their shapes, batch axis first.
        input_dtypes: Their dtypes.
        output_shapes: Their shapes, batch axis first.
        inner: The blueprint of a nested model, else `None`.
        fill: Puts values, by identity, in the place of the tensors of the call.
        why: Why a user's layer made of layers could not be traced. Defaults to `""`.
        taken: Of all that the call gives, whether it is among the outputs; empty for
            all. Defaults to `()`.
    """

    layer: Any
    kind: str
    path: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    input_dtypes: tuple[str, ...]
    output_shapes: tuple[Shape, ...]
    inner: "Blueprint | None"
    fill: Callable[[dict[int, Any]], Arguments] = field(repr=False)
    why: str = ""
    taken: tuple[bool, ...] = ()


@dataclass(frozen=True, eq=False)
class Blueprint:
    """The nodes of a model in the order of computation, nested as the model is.

    Attributes:
        model: The model that was traced.
        inputs: The model's inputs.
        nodes: The nodes, inputs excluded.
        input_ids: Identities of the tensors that go in.
        output_ids: Identities of the tensors that come out.
        structure: How the model takes its inputs and gives its outputs.
        sequential: Whether the model is a `Sequential`.
        flat: Whether it takes all tensors of a call in a row, as a layer does that
            was traced for the call.
    """

    model: Any
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    structure: tuple[Any, Any]
    sequential: bool
    flat: bool = False

    def run(self, inputs: list[Any], apply: Apply, enter: bool) -> list[Any]:
        """Interpret the nodes.

        Args:
            inputs: One value per input.
            apply: Called as `apply(node, args, kwargs)`, with the values in the
                place of the tensors; returns the node's output or outputs.
            enter: Whether nested models are interpreted node by node; otherwise
                they are handed to `apply` whole.

        Returns:
            One value per output.
        """
        values = dict(zip(self.input_ids, inputs, strict=True))
        for node in self.nodes:
            args, kwargs = node.fill(values)
            if node.inner is not None and enter:
                taken = [values[i] for i in node.inputs]
                entering = for_inner(node, taken, args, kwargs)
                pairs = zip(entering, node.inner.inputs, strict=True)
                outputs = node.inner.run(
                    [declared(value, entry.dtype) for value, entry in pairs],
                    apply,
                    enter,
                )
            else:
                outputs = in_a_row(apply(node, args, kwargs), len(node.outputs))
            values.update(zip(node.outputs, outputs, strict=True))
        return [values[i] for i in self.output_ids]

    def ends(self) -> list[tuple[str, Shape]]:
        """List the outputs: names of their layers or models, and shapes."""
        made = {
            i: (entry.name, entry.shape)
            for i, entry in zip(self.input_ids, self.inputs, strict=True)
        }
        for node in self.nodes:
            for i, shape in zip(node.outputs, node.output_shapes, strict=True):
                made[i] = node.layer.name, shape
        return [made[i] for i in self.output_ids]

    def trains(self) -> bool:
        """Check whether a layer is told to train whenever the model is called."""
        return any(
            given(node.layer, *node.fill(dict.fromkeys(node.inputs))).get("training")
            is True
            or (node.inner is not None and node.inner.trains())
            for node in self.nodes
        )


def in_a_row(result: Any, count: int) -> list[Any]:
    """List what a call returned, one value per output."""
    outputs = [result] if count == 1 else keras.tree.flatten(result)
    if isinstance(outputs[0], (list, tuple)) and len(outputs[0]) == 1:
        return list(outputs[0])
    return outputs


def for_inner(
    node: Node, values: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Choose what the inputs of a nested model are given, as Keras does.

    Args:
        node: A use of a nested model.
        values: The values that it is given, in the order of `node.inputs`.
        args: The positional arguments that hold them.
        kwargs: The others.

    Returns:
        One value per input of the nested model.
    """
    inner: Any = node.inner
    if inner.flat:
        return list(values[: len(inner.inputs)])
    return entering(inner.inputs, inner.structure[0], values, args, kwargs)


def entering(
    inputs: Sequence[Input],
    structure: Any,
    values: Sequence[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[Any]:
    """Choose what the inputs of a functional model are given.

    Args:
        inputs: The inputs of the model.
        structure: How it takes them.
        values: The values that it is given, in a row.
        args: The positional arguments that hold them.
        kwargs: The others.

    Returns:
        One value per input.
    """
    first = args[0] if args else kwargs.get("inputs")
    if isinstance(first, dict):  # by name
        by_key = isinstance(structure, dict)
        names = [i.place[0] if by_key else i.name for i in inputs]
        if set(names) <= set(first):
            return [first[name] for name in names]
    # Keras 3 hands masks on as tensors, behind the inputs.
    return list(values[: len(inputs)])


def declared(value: Any, dtype: str) -> Any:
    """Turn integers into the floats that a nested model's input declares, or back.

    Args:
        value: A tensor, or what stands in the place of one; that may say by a method
            `declared(dtype)` what it becomes.
        dtype: The dtype of the input.

    Returns:
        The tensor, cast as Keras does; anything else as it is.
    """
    if hasattr(value, "declared"):
        return value.declared(dtype)
    if not keras.ops.is_tensor(value):
        return value
    kinds = {"float" in str(one) for one in (value.dtype, dtype)}
    return keras.ops.cast(value, dtype) if len(kinds) > 1 else value


def in_order(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """List what a call is given, in the order of the layer's parameters.

    Args:
        layer: A layer or operation.
        args: Its positional arguments.
        kwargs: Its arguments by name, in any order.

    Returns:
        The leaves of all of them.
    """
    try:
        names = list(signature_of(function_of(layer)).parameters)
    except (TypeError, ValueError):  # nothing is known of it
        names = []
    known = {name: kwargs[name] for name in names if name in kwargs}
    return keras.tree.flatten([args, list({**known, **kwargs}.values())])


def given(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], defaults: bool = False
) -> dict[str, Any]:
    """Return the arguments of a call by name.

    Args:
        layer: A layer or operation.
        args: Its positional arguments.
        kwargs: Its arguments by name.
        defaults: Whether absent ones are named too, with their defaults.

    Returns:
        The arguments by name.
    """
    bound = signature_of(function_of(layer)).bind(*args, **kwargs)
    if defaults:
        bound.apply_defaults()
    return dict(bound.arguments)


def function_of(layer: Any) -> Any:
    """Return the function that a layer or operation runs."""
    return getattr(layer, "function", None) or layer.call


def signature_of(function: Any) -> inspect.Signature:
    """Return the signature of a function; that of a method is read once per class."""
    method = getattr(function, "__func__", None)
    if method is None or not inspect.ismethod(function):
        return inspect.signature(function)
    return _signature_of_method(method)


@functools.lru_cache(maxsize=1024)
def _signature_of_method(method: Any) -> inspect.Signature:
    return inspect.signature(types.MethodType(method, method))


def pack(structure: Any, values: list[Any]) -> Any:
    """Arrange values as the tensors of `structure` are arranged."""
    iterator = iter(values)

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            filled = {name: fill(part[name]) for name in sorted(part)}
            return {name: filled[name] for name in part}
        if isinstance(part, (list, tuple)):
            items = [fill(item) for item in part]
            return tuple(items) if type(part) is tuple else items
        return next(iterator)

    return fill(structure)
