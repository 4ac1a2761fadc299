"""Functions of one tensor, such as a user's activation, as the operations they run."""

from collections.abc import Callable
from typing import Any

import keras

from tf_spline_prune.compat._flavour import keras_of
from tf_spline_prune.compat.graph._blueprint import Shape
from tf_spline_prune.compat.graph._graph import Graph
from tf_spline_prune.compat.graph._trace import graph_of_nodes


def trace_function(
    function: Callable[[Any], Any], owner: Any, shape: Shape
) -> Graph | None:
    """Read a function of one tensor as a graph of calls.

    Args:
        function: The function.
        owner: The layer that calls it, of either flavour.
        shape: Shape of the tensor, batch axis first.

    Returns:
        The graph; `None` if the function cannot be run on a symbolic tensor.
    """
    package = keras_of(owner)
    tensor = package.Input(batch_shape=shape)
    try:
        return graph_of_nodes(package.Model(tensor, function(tensor)))
    except Exception:  # whatever a user's function raises
        return None


def tensorflow_operations(
    function: Callable[[Any], Any], shape: Shape
) -> list[tuple[str, list[Shape | None]]] | None:
    """List the operations that a function of one tensor runs in TensorFlow.

    Args:
        function: The function.
        shape: Shape of the tensor, batch axis first.

    Returns:
        The type of each operation and the shapes of what it gives (`None` where even
        the rank is open); `None` if the function cannot be traced.
    """
    if keras.config.backend() != "tensorflow":
        return None
    import tensorflow as tf

    try:
        spec = tf.TensorSpec(shape, "float32")
        graph = tf.function(function, autograph=False).get_concrete_function(spec).graph
    except Exception:  # whatever a user's function raises
        return None
    return [
        (
            operation.type,
            [_shape(output) for output in operation.outputs],
        )
        for operation in graph.get_operations()
    ]


def _shape(tensor: Any) -> Shape | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
