"""Running calls on tensors in which some units are masked or left out."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._states import states_kept
from tf_spline_prune.compat.call_graph import Arguments, Call, Graph
from tf_spline_prune.compat.execution import call_layer


def run_eagerly(
    graph: Graph, inputs: list[np.ndarray], apply: Callable[..., Any]
) -> list[Any]:
    """Interpret a graph on arrays, without compiling it; the model's states stay."""
    with states_kept(graph.model):
        return graph.run([keras.ops.convert_to_tensor(x) for x in inputs], apply)


def with_mask(
    args: tuple[Any, ...], kwargs: dict[str, Any], which: int, axis: int, keep: Any
) -> Arguments:
    """Multiply one tensor among the arguments of a call by zeros and ones.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        which: Index of the tensor among all tensors of the arguments.
        axis: The axis of the units.
        keep: Array of shape `(units,)`, bool.

    Returns:
        The arguments with that tensor masked.
    """
    seen = -1

    def visit(part: Any) -> Any:
        nonlocal seen
        if not keras.ops.is_tensor(part):
            return part
        seen += 1
        if seen != which:
            return part
        shape = [1] * len(part.shape)
        shape[axis] = len(keep)
        return part * keras.ops.cast(np.reshape(keep, shape), part.dtype)

    masked = keras.tree.map_structure(visit, (args, kwargs))
    return masked[0], masked[1]


def on_kept(
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kept: Sequence[tuple[int, np.ndarray]],
) -> Any:
    """Run a call on the kept units of its one input, and put zeros for the rest.

    Args:
        call: A call whose layer was built for the kept units.
        args: Positional arguments.
        kwargs: Keyword arguments.
        kept: For each axis of units the indices of the kept ones.

    Returns:
        The output, as wide as the input.
    """
    value = narrow = args[0]
    for axis, keep in kept:
        narrow = keras.ops.take(narrow, keep, axis=axis)
    output = call_layer(call, (narrow, *args[1:]), kwargs)
    for axis, keep in kept:
        place = np.full(value.shape[axis], len(keep))
        place[keep] = np.arange(len(keep))
        rest = keras.ops.zeros_like(keras.ops.take(output, [0], axis=axis))
        wide = keras.ops.concatenate([output, rest], axis=axis)
        output = keras.ops.take(wide, place, axis=axis)
    return output
