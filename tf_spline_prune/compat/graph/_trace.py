"""Reading a model as a graph of calls.

`trace(model)` returns the same `Graph` for functional, Sequential, nested and
(where `call` can be traced symbolically) subclassed models of both flavours.
"""

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import (
    calls_as_keras,
    inside_masks,
    is_all_keras,
    is_sequential,
    keras_of,
    kind_of,
    require_flavour,
)
from tf_spline_prune.compat.graph._blueprint import (
    Blueprint,
    Input,
    Node,
    Shape,
    entering,
    in_order,
)
from tf_spline_prune.compat.graph._graph import Graph, flat_graph
from tf_spline_prune.compat.graph._nodes import (
    dtype_of,
    filler,
    history,
    input_tensors,
    reads_weights,
    shape_of,
    structure_of,
)
from tf_spline_prune.compat.graph._symbolic import (
    UNBUILT,
    is_composite,
    require_true_shapes,
    sized,
    symbolic_layer,
    symbolic_model,
)
from tf_spline_prune.errors import ModelError


def trace(
    model: Any,
    shapes: Mapping[str, Shape] | None = None,
    looked_at: bool = False,
    whole: Collection[str] = (),
) -> Graph:
    """Read a model as a graph of calls.

    Wrappers that hold masks are looked through: what the graph names is the layer
    inside, and a model that is built again from the graph has no wrappers.

    Args:
        model: A built model of either flavour. A subclassed model is traced by
            calling its `call` on symbolic inputs.
        shapes: For the name of each input its shape, batch axis first, of which no
            other is open. Defaults to `None`: the shapes are those of the model.
        looked_at: Whether the graph is only looked at and run, and nothing is built
            from it: then layers made of layers are read, too, of which something would
            be lost in a graph of plain layers. Defaults to `False`.
        whole: Paths of layers made of layers that stay one call. Defaults to `()`.

    Returns:
        The graph.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, or its `call` cannot be traced.
    """
    require_flavour(model)
    names = _Names(shapes is not None, looked_at, whole)
    functional = _functional(model)
    traced = functional is None
    if functional is None:
        functional = symbolic_model(model, shapes)
    elif read := reads_weights(functional):
        raise ModelError(
            "The model uses weights outside the layers that they belong to, so a copy "
            "would not share them. Move that use into a layer. Received: model "
            f"{model.name!r}, using {read}"
        )
    elif shapes is not None:
        functional = sized(functional, [shapes[i.name] for i in _inputs(functional)])
    return flat_graph(_blueprint(model, functional, "", names, traced))


def is_its_graph(graph: Graph) -> bool:
    """Return whether a model of Keras 3 runs its graph, and no code but that of Keras.

    What was traced of it is then what Keras itself goes through when it is called.
    """
    nested = any(node.inner is not None for node in graph.blueprint.nodes)
    model = graph.model
    return not nested and _functional(model) is not None and is_all_keras(model)


def graph_of_nodes(functional: Any) -> Graph:
    """Read the object that holds the nodes of a model as a graph of calls."""
    names = _Names()
    return flat_graph(_blueprint(functional, functional, "", names, traced=False))


class _Names:
    """Paths of layers and numbers of their uses, unique over the whole model.

    What a `call` makes when it is run for us has another name in every trace, so that
    its path is of its kind and its place: the same in every trace and every copy.

    Args:
        sized: Whether nested models are read at the sizes with which they are called.
        looked_at: As in `trace`.
        whole: As in `trace`.
    """

    def __init__(
        self,
        sized: bool = False,
        looked_at: bool = False,
        whole: Collection[str] = (),
    ) -> None:
        self.sized = sized
        self.looked_at = looked_at
        self.whole = set(whole)
        self._paths: dict[int, str] = {}
        self._used: set[str] = set()
        # Layers made of layers, as they were traced, and how they were called.
        self.traced: dict[int, tuple[str, Any]] = {}

    def path(self, layer: Any, prefix: str, made: bool) -> str:
        if id(layer) not in self._paths:
            name = kind_of(layer).rpartition(":")[2].lower() if made else layer.name
            path = stem = prefix + str(name).replace("/", "_")
            taken, count = set(self._paths.values()), 1
            while path in taken:
                path = f"{stem}_{count}"
                count += 1
            self._paths[id(layer)] = path
        return self._paths[id(layer)]

    def use(self, layer: Any) -> str:
        path = name = self._paths[id(layer)]
        count = 0
        while name in self._used:  # by the layer itself, or one of such a name
            count += 1
            name = f"{path}:{count}"
        self._used.add(name)
        return name


def _functional(model: Any) -> Any | None:
    """Return the object that holds the nodes of a model, or `None`."""
    if _is_chain(model):
        inner = getattr(model, "_functional", None)
        if inner is not None:
            return inner
        # tf_keras' Sequential holds the nodes itself once its input is known.
        if hasattr(model, "_is_graph_network") and model._is_graph_network:
            return model
        if not model.built:
            raise ModelError(UNBUILT.format(model.name))
        return None
    if not hasattr(model, "_nodes_by_depth") or not calls_as_keras(model):
        return None
    return model


def _blueprint(
    model: Any, functional: Any, prefix: str, names: _Names, traced: bool
) -> Blueprint:
    nodes: list[Node] = []
    owned = {id(layer) for layer in model._flatten_layers()}
    every = [node for some in functional._nodes_by_depth.values() for node in some]
    needed = {id(t) for node in every if not node.is_input for t in input_tensors(node)}
    needed |= {id(tensor) for tensor in functional.outputs}
    depths = sorted(functional._nodes_by_depth, reverse=True)
    for node in (
        node for depth in depths for node in functional._nodes_by_depth[depth]
    ):
        if node.is_input:
            continue
        layer = inside_masks(getattr(node, "operation", None) or node.layer)
        made = traced and id(layer) not in owned
        path = names.path(layer, prefix, made)
        tensors_in = _tensors_in(layer, node)
        tensors_out = keras.tree.flatten(node.outputs)
        taken = [id(tensor) in needed for tensor in tensors_out]
        inner, why = _inner(layer, node, tensors_in, f"{path}/", names, taken)
        if inner is None:
            require_true_shapes(layer, node, tensors_in)
        elif inner.flat:
            tensors_out = list(itertools.compress(tensors_out, taken))
        nodes.append(
            Node(
                layer=layer,
                kind=kind_of(layer),
                path=path,
                name=names.use(layer),
                inputs=tuple(id(t) for t in tensors_in),
                outputs=tuple(id(t) for t in tensors_out),
                input_shapes=tuple(shape_of(t) for t in tensors_in),
                input_dtypes=tuple(dtype_of(t) for t in tensors_in),
                output_shapes=tuple(shape_of(t) for t in tensors_out),
                inner=inner,
                fill=filler(node),
                why=why,
                taken=tuple(taken),
            )
        )
    return Blueprint(
        model=model,
        inputs=_inputs(functional),
        nodes=tuple(nodes),
        input_ids=tuple(id(t) for t in functional.inputs),
        output_ids=tuple(id(t) for t in functional.outputs),
        structure=structure_of(functional),
        sequential=_is_chain(model),
    )


def _is_chain(model: Any) -> bool:
    """Return whether a model is a `Sequential`, and computes as one."""
    return is_sequential(model) and calls_as_keras(model)


def _tensors_in(layer: Any, node: Any) -> list[Any]:
    """List the tensors that go into a node, in the order of the parameters."""
    tensors = {id(tensor): tensor for tensor in input_tensors(node)}
    leaves = in_order(layer, *filler(node)(tensors))
    return [leaf for leaf in leaves if id(leaf) in tensors]


def _inputs(functional: Any) -> tuple[Input, ...]:
    places = {
        id(tensor): tuple(place)
        for place, tensor in keras.tree.flatten_with_path(structure_of(functional)[0])
    }
    flags = ("optional", "sparse", "ragged")
    return tuple(
        Input(
            name=history(tensor).name,
            shape=shape_of(tensor),
            dtype=dtype_of(tensor),
            place=places.get(id(tensor), ()),
            flags=tuple(f for f in flags if getattr(history(tensor), f, False) is True),
        )
        for tensor in functional.inputs
    )


def _inner(
    layer: Any,
    node: Any,
    tensors: list[Any],
    prefix: str,
    names: _Names,
    needed: list[bool],
) -> tuple[Blueprint | None, str]:
    """Trace a nested model, or a user's layer made of layers; or say why not."""
    functional, why = None, ""
    if hasattr(layer, "layers"):
        functional = _functional(layer)
    flat = functional is None
    if flat and prefix.rstrip("/") in names.whole:
        return None, "it is one call"
    if functional is None and is_composite(layer):
        # One tensor in two places is traced as one.
        places = {id(tensor): f"tensor {i}" for i, tensor in enumerate(tensors)}
        how = repr(filler(node)(places))
        if not all(needed):
            how += f", of which outputs {np.flatnonzero(needed).tolist()} are used"
        if id(layer) not in names.traced:
            traced = symbolic_layer(layer, node, tensors, needed, names.looked_at)
            names.traced[id(layer)] = how, traced
        known, (functional, why) = names.traced[id(layer)]
        if known != how:
            raise ModelError(
                "A layer made of layers is called in two different ways, so it has no "
                f"one graph. Received: {layer.name!r}, called with {known} and {how}"
            )
    if functional is None:
        return None, why
    if names.sized and not flat:
        arguments = filler(node)({id(tensor): tensor for tensor in tensors})
        structure, _ = structure_of(functional)
        given = entering(_inputs(functional), structure, tensors, *arguments)
        functional = sized(functional, [shape_of(tensor) for tensor in given])
    inner = _blueprint(layer, functional, prefix, names, flat)
    return replace(inner, flat=flat), ""


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
