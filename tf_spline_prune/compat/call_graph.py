"""`Graph`: a model as a list of calls that can be run with any meaning of "call".

`Graph.run` is a small interpreter: with the layers themselves it computes, with
channel labels it derives the channel graph, with new layers on symbolic tensors
it rebuilds the model.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

Shape = tuple[int | None, ...]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Input:
    """One input of a model: its name, shape (batch axis first) and dtype."""

    name: str
    shape: Shape
    dtype: str


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
    output_shapes: tuple[Shape, ...]
    inner: "Graph | None"
    fill: Callable[[dict[int, Any]], Arguments] = field(repr=False)

    def arrays(self) -> list[tuple[int, ...]]:
        """Give the shapes of arguments that are arrays and no tensors of the model."""
        settings = {} if hasattr(self.layer, "weights") else vars(self.layer)
        given = keras.tree.flatten(self.fill(dict.fromkeys(self.inputs)))
        given += settings.values()
        shapes = [getattr(value, "shape", ()) for value in given]
        return [tuple(shape) for shape in shapes if shape is not None and len(shape)]

    def arguments(self, values: Sequence[Any]) -> dict[str, Any]:
        """Name all that the call is given.

        Args:
            values: One value an input, to stand in the place of the tensors.

        Returns:
            The settings of an operation and the arguments of the call, by name;
            absent ones have their defaults.
        """
        args, kwargs = self.fill(dict(zip(self.inputs, values, strict=True)))
        function = getattr(self.layer, "function", None) or self.layer.call
        bound = inspect.signature(function).bind(*args, **kwargs)
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
                # Keras 3 hands masks on as tensors, behind the inputs.
                given = call.inputs[: len(call.inner.inputs)]
                outputs = call.inner.run([values[i] for i in given], apply)
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
        """Name the calls, nested ones included, that give the model's outputs."""
        found: set[str] = set()
        for call in self.calls:
            if not set(self.output_ids).isdisjoint(call.outputs):
                found |= {call.name} if call.inner is None else call.inner.ends()
        return found

    def leaves(self) -> list[Call]:
        """List all calls, those of nested models in the place of the model."""
        found: list[Call] = []
        for call in self.calls:
            found.extend([call] if call.inner is None else call.inner.leaves())
        return found


def pack(structure: Any, values: list[Any]) -> Any:
    """Arrange values as the tensors of `structure` are arranged."""
    iterator = iter(values)

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            filled = {name: fill(part[name]) for name in sorted(part)}
            return {name: filled[name] for name in part}
        if isinstance(part, (list, tuple)):
            return [fill(item) for item in part]
        return next(iterator)

    return fill(structure)
