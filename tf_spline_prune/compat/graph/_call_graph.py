"""`Graph`: a model as a list of calls that can be run with any meaning of "call".

`Graph.run` is a small interpreter: with the layers themselves it computes, with
channel labels it derives the channel graph, with new layers on symbolic tensors
it rebuilds the model.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

Shape = tuple[int | None, ...]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Input:
    """One input of a model.

    Attributes:
        name: Its name.
        shape: Its shape, batch axis first.
        dtype: Its dtype.
        place: Keys and positions that lead to it in what the model is called on.
            Defaults to `()`.
        flags: What else `keras.Input` was told of it: `optional`, `sparse`, `ragged`.
            Defaults to `()`.
    """

    name: str
    shape: Shape
    dtype: str
    place: tuple[Any, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Call:
    """One use of one layer or operation.

    Attributes:
        layer: The layer or operation.
        kind: The class name of a Keras layer (`"Conv2D"`), `"op:relu"` for an
            operation, `"custom:Name"` for a user's layer.
        path: The layer's path, nested models included: `"encoder/conv1"`.
        name: `path`, with the number of the use from the second use on.
        inputs: Identities of the tensors that go in.
        outputs: Identities of the tensors that come out.
        input_shapes: Their shapes, batch axis first.
        input_dtypes: Their dtypes.
        output_shapes: Their shapes, batch axis first.
        inner: The graph of a nested model, else `None`.
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
    inner: "Graph | None"
    fill: Callable[[dict[int, Any]], Arguments] = field(repr=False)

    def arrays(self) -> list[tuple[int, ...]]:
        """Return the shapes of arguments that are arrays, not tensors of the model."""
        settings = {} if hasattr(self.layer, "weights") else vars(self.layer)
        given = keras.tree.flatten(self.fill(dict.fromkeys(self.inputs)))
        given += settings.values()
        shapes = [getattr(value, "shape", ()) for value in given]
        return [tuple(shape) for shape in shapes if shape is not None and len(shape)]

    def given(self) -> dict[str, Any]:
        """Return what the call was given, with `None` in the place of tensors."""
        args, kwargs = self.fill(dict.fromkeys(self.inputs))
        return dict(
            inspect.signature(_function(self.layer)).bind(*args, **kwargs).arguments
        )

    def arguments(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return all that the call is given.

        Args:
            values: One value an input, to stand in the place of the tensors.

        Returns:
            The settings of an operation and the arguments of the call, by name;
            absent ones have their defaults.
        """
        args, kwargs = self.fill(dict(zip(self.inputs, values, strict=True)))
        bound = inspect.signature(_function(self.layer)).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = {} if hasattr(self.layer, "weights") else vars(self.layer)
        return {**settings, **bound.arguments}


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in the order of computation.

    Attributes:
        model: The model that was traced.
        inputs: The model's inputs.
        calls: The calls, inputs excluded.
        sequential: Whether the model is a `Sequential`.
        flat: Whether it takes all tensors of a call in a row, as a layer does that
            was traced for the call.
    """

    model: Any
    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    structure: tuple[Any, Any]
    sequential: bool
    flat: bool = False

    def run(
        self,
        inputs: list[Any],
        apply: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any],
        enter: bool = True,
    ) -> list[Any]:
        """Interpret the graph.

        Args:
            inputs: One value an input.
            apply: Called as `apply(call, args, kwargs)`, with the values in the
                place of the tensors; returns the call's output or outputs.
            enter: Whether nested models are interpreted call by call; otherwise
                they are handed to `apply` whole.

        Returns:
            One value an output.
        """
        values = dict(zip(self.input_ids, inputs, strict=True))
        for call in self.calls:
            if call.inner is not None and enter:
                given = [values[i] for i in call.inputs]
                entering = for_inner(call, given, *call.fill(values))
                pairs = zip(entering, call.inner.inputs, strict=True)
                outputs = call.inner.run(
                    [declared(v, i.dtype) for v, i in pairs], apply
                )
            else:
                args, kwargs = call.fill(values)
                result = apply(call, args, kwargs)
                outputs = (
                    [result] if len(call.outputs) == 1 else keras.tree.flatten(result)
                )
                if isinstance(outputs[0], (list, tuple)) and len(outputs[0]) == 1:
                    outputs = list(outputs[0])
            values.update(zip(call.outputs, outputs, strict=True))
        return [values[i] for i in self.output_ids]

    def ends(self) -> set[str]:
        """List the calls, nested ones included, that return the model's outputs."""
        found: set[str] = set()
        for call in self.calls:
            if not set(self.output_ids).isdisjoint(call.outputs):
                found |= {call.name} if call.inner is None else call.inner.ends()
        return found

    def trains(self) -> bool:
        """Return whether a layer was told to train whenever the model is called."""
        return any(
            call.given().get("training") is True
            or (call.inner is not None and call.inner.trains())
            for call in self.calls
        )

    def leaves(self) -> list[Call]:
        """List all calls, those of nested models in the place of the model."""
        found: list[Call] = []
        for call in self.calls:
            found.extend([call] if call.inner is None else call.inner.leaves())
        return found


def fixed_size(inputs: Sequence[Input]) -> int | None:
    """Return the number of examples that a model takes at a time, if it fixes that."""
    sizes = (entry.shape[0] for entry in inputs if entry.shape)
    return next((size for size in sizes if size is not None), None)


def for_inner(
    call: Call, given: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Choose what the inputs of a nested model are given, as Keras does.

    Args:
        call: A call of a nested model.
        given: The values that it is given, in the order of `call.inputs`.
        args: The positional arguments that hold them.
        kwargs: The others.

    Returns:
        One value an input of the nested model.
    """
    inner: Any = call.inner
    first = args[0] if args else kwargs.get("inputs")
    if isinstance(first, dict) and not inner.flat:  # by name
        by_key = isinstance(inner.structure[0], dict)
        names = [i.place[0] if by_key else i.name for i in inner.inputs]
        if set(names) <= set(first):
            return [first[name] for name in names]
    # Keras 3 hands masks on as tensors, behind the inputs.
    return list(given[: len(inner.inputs)])


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
        names = list(inspect.signature(_function(layer)).parameters)
    except (TypeError, ValueError):  # nothing is known of it
        names = []
    known = {name: kwargs[name] for name in names if name in kwargs}
    return keras.tree.flatten([args, list({**known, **kwargs}.values())])


def _function(layer: Any) -> Any:
    return getattr(layer, "function", None) or layer.call


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


def with_sizes(call: Call, shapes: Sequence[Shape]) -> Call:
    """Fill in the sizes of a call's output from the sizes of its inputs.

    Args:
        call: A call, perhaps of an inner model whose own input leaves sizes open.
        shapes: Shapes of the inputs where it is used, the batch axis first.

    Returns:
        The call, with shapes as far as they are known.
    """
    if list(shapes) == list(call.input_shapes) or not shapes:
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
        specs = call.layer.compute_output_spec(*args, **kwargs)
        return tuple(tuple(spec.shape) for spec in keras.tree.flatten(specs))
    given: Any = list(call.input_shapes)
    shape = call.layer.compute_output_shape(given[0] if len(given) == 1 else given)
    return (tuple(shape.as_list()),)


def without_masks(call: Call) -> tuple[Call, list[int]]:
    """Leave the masks out of a call's inputs; Keras 3 hands them on as tensors.

    Args:
        call: A call.

    Returns:
        The call, and the places of the other tensors among its inputs.
    """
    if len(call.inputs) < 2:
        return call, list(range(len(call.inputs)))
    _, kwargs = call.fill({i: _Tensor(i) for i in call.inputs})
    given = {key: value for key, value in kwargs.items() if key.endswith("mask")}
    masks = {t for t in keras.tree.flatten(given) if isinstance(t, _Tensor)}
    if not masks:
        return call, list(range(len(call.inputs)))
    left = [place for place, i in enumerate(call.inputs) if i not in masks]

    def fill(values: dict[int, Any]) -> Arguments:
        return call.fill({**dict.fromkeys(masks), **values})

    return (
        replace(
            call,
            inputs=tuple(call.inputs[place] for place in left),
            input_shapes=tuple(call.input_shapes[place] for place in left),
            input_dtypes=tuple(call.input_dtypes[place] for place in left),
            fill=fill,
        ),
        left,
    )


class _Tensor(int):
    """A tensor's identity, to be told from the plain integers among arguments."""
