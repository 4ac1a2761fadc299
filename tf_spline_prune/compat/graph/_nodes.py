"""Weights that a graph reads outside the layers that they belong to."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.graph._blueprint import Arguments, Shape


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
    """Return the shape of a tensor, batch axis first."""
    return tuple(tensor.shape)


def dtype_of(tensor: Any) -> str:
    """Return the name of a tensor's dtype."""
    dtype = tensor.dtype
    return str(getattr(dtype, "name", dtype))


def structure_of(functional: Any) -> tuple[Any, Any]:
    """Return the structures in which a model takes and gives tensors."""
    if hasattr(functional, "_inputs_struct"):
        return functional._inputs_struct, functional._outputs_struct
    return functional._nested_inputs, functional._nested_outputs


def reads_weights(functional: Any, owner: Any = None) -> list[str]:
    """List the weights that a graph takes as arguments or as fixed numbers.

    A copy of such a graph would read the weights of the original.

    Args:
        functional: The object that holds the nodes.
        owner: The model or layer that was traced, if `call` was run for it: a weight
            that `call` reads by itself is a fixed number in the trace.

    Returns:
        Names of weights.
    """
    found = []
    known = None
    for nodes in functional._nodes_by_depth.values():
        for node in nodes:
            for given in _constants(node):
                if hasattr(given, "assign"):
                    found.append(str(given.name))
                elif owner is not None:
                    known = _fingerprints(owner) if known is None else known
                    key = _fingerprint(given)
                    found += known.get(key, []) if key is not None else []
    return found


def _constants(node: Any) -> list[Any]:
    """List the arguments of a node that hold numbers and are not computed."""
    if node.is_input:
        return []
    if hasattr(node, "arguments"):
        given = (node.arguments.args, node.arguments.kwargs)
    else:
        given = (node.call_args, node.call_kwargs)
    return [
        value
        for value in keras.tree.flatten(given)
        if getattr(value, "shape", None) and not hasattr(value, "_keras_history")
    ]


def _fingerprints(owner: Any) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for weight in owner.weights:
        key = _fingerprint(weight) if getattr(weight, "shape", None) else None
        if key is not None:
            found.setdefault(key, []).append(str(weight.name))
    return found


def _fingerprint(values: Any) -> Any:
    """Describe numbers whatever their order, or `None` where they are all the same."""
    numbers = np.sort(np.asarray(keras.ops.convert_to_numpy(values)).ravel())
    if numbers.dtype.kind not in "fV" or len(numbers) < 2 or numbers[0] == numbers[-1]:
        return None
    return len(numbers), numbers.astype("float32").tobytes()
