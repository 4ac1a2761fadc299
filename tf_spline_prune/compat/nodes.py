"""Nodes of Keras graphs, read alike in both flavours."""

from collections.abc import Callable
from typing import Any

from tf_spline_prune.compat.call_graph import Arguments, Shape


def input_tensors(node: Any) -> list[Any]:
    """List the tensors that go into a node."""
    if hasattr(node, "arguments"):
        return list(node.arguments.keras_tensors)
    return list(node.keras_inputs)


def filler(node: Any) -> Callable[[dict[int, Any]], Arguments]:
    """Return a function that puts values in the place of a node's tensors."""
    if hasattr(node, "arguments"):
        return node.arguments.fill_in

    def fill(values: dict[int, Any]) -> Arguments:
        # tf_keras pops each value as often as the node uses it.
        uses: dict[str, list[Any]] = {}
        for tensor in node.keras_inputs:
            uses.setdefault(str(id(tensor)), []).append(values[id(tensor)])
        args, kwargs = node.map_arguments(uses)
        return tuple(args), dict(kwargs)

    return fill


def history(tensor: Any) -> Any:
    """Find the layer or operation that a tensor comes from."""
    source = tensor._keras_history
    return getattr(source, "operation", None) or source.layer


def shape_of(tensor: Any) -> Shape:
    """Give the shape of a tensor, batch axis first."""
    return tuple(tensor.shape)


def dtype_of(tensor: Any) -> str:
    """Name the dtype of a tensor."""
    dtype = tensor.dtype
    return str(getattr(dtype, "name", dtype))


def structure_of(functional: Any) -> tuple[Any, Any]:
    """Give the structures in which a model takes and gives tensors."""
    if hasattr(functional, "_inputs_struct"):
        return functional._inputs_struct, functional._outputs_struct
    return functional._nested_inputs, functional._nested_outputs
