"""Reading a model as a graph of calls.

`trace(model)` gives the same `Graph` for functional, Sequential, nested and
(where `call` can be traced symbolically) subclassed models of both flavours.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from tf_spline_prune.compat.call_graph import Arguments, Call, Graph, Input, Shape
from tf_spline_prune.compat.flavour import keras_of, require_flavour
from tf_spline_prune.compat.kinds import is_sequential, kind_of
from tf_spline_prune.errors import ModelError


def trace(model: Any) -> Graph:
    """Read a model as a graph of calls.

    Args:
        model: A built model of either flavour. A subclassed model is traced by
            calling its `call` on symbolic inputs.

    Returns:
        The graph.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, or its `call` cannot be traced.
    """
    require_flavour(model)
    names = _Names()
    functional = _functional(model)
    if functional is None:
        functional = _symbolic_model(model)
    return _graph(model, functional, "", names)


class _Names:
    """Paths of layers and numbers of their uses, unique over the whole model."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._uses: dict[int, int] = {}

    def path(self, layer: Any, prefix: str) -> str:
        if id(layer) not in self._paths:
            path = stem = prefix + str(layer.name).replace("/", "_")
            taken, count = set(self._paths.values()), 1
            while path in taken:
                path = f"{stem}_{count}"
                count += 1
            self._paths[id(layer)] = path
        return self._paths[id(layer)]

    def use(self, layer: Any) -> str:
        count = self._uses.get(id(layer), 0)
        self._uses[id(layer)] = count + 1
        path = self._paths[id(layer)]
        return f"{path}:{count}" if count else path


def _functional(model: Any) -> Any | None:
    """Return the object that holds the nodes of a model, or `None`."""
    if is_sequential(model):
        inner = getattr(model, "_functional", None)
        if inner is not None:
            return inner
        # tf_keras' Sequential holds the nodes itself once its input is known.
        if hasattr(model, "_is_graph_network") and model._is_graph_network:
            return model
        if not model.built:
            raise ModelError(_UNBUILT.format(model.name))
        return None
    return model if hasattr(model, "_nodes_by_depth") else None


_UNBUILT = (
    "The model is not built, so it has neither weights nor a graph yet. Call it "
    "once on data, or give its first layer an `Input`. Received: model {0!r}."
)


def _symbolic_model(model: Any) -> Any:
    """Trace a subclassed model by calling `call` on symbolic inputs."""
    if not model.built:
        raise ModelError(_UNBUILT.format(model.name))
    keras_module = keras_of(model)
    shape = _built_shape(model)
    if shape is None:
        raise ModelError(
            "The input shape of this subclassed model is not known. Call it once on "
            "a single array, or build a functional model from it: `keras.Model(x, "
            f"model.call(x))`. Received: model {model.name!r}."
        )
    inputs = _inputs(keras_module, shape)
    try:
        outputs = _symbolic_call(model, (inputs,), {})
        traced = keras_module.Model(inputs, outputs, name=model.name)
    except Exception as error:
        raise ModelError(
            "The `call` of this subclassed model cannot be traced on symbolic "
            "inputs, so its graph is not known. Use layers and `keras.ops` in "
            "`call`, and no Python branches on values. Received: model "
            f"{model.name!r}, which raised {type(error).__name__}: {error}"
        ) from error
    lost = _lost_weights(model, traced)
    if lost:
        raise ModelError(
            "The model has weights that belong to no layer, so they cannot be copied. "
            f"Put them into a layer. Received: model {model.name!r} with {lost}"
        )
    return traced


def _lost_weights(owner: Any, traced: Any) -> list[str]:
    """Name the weights that a symbolic trace has made constants of."""
    kept = {id(weight) for weight in traced.weights}
    return [str(w.name) for w in owner.weights if id(w) not in kept]


def _built_shape(model: Any) -> Any:
    """Return the input shape, or a structure of shapes, of a subclassed model."""
    if hasattr(model, "get_build_config"):
        config = model.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None:
            shapes = config.get("shapes_dict") or {}
            shape = next(iter(shapes.values()), None)
        if shape is not None:
            return shape
    return getattr(model, "_build_input_shape", None)


def _is_shape(thing: Any) -> bool:
    return isinstance(thing, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in thing
    )


def _inputs(keras_module: Any, shapes: Any, name: str | None = None) -> Any:
    """Make symbolic inputs for a shape, or for a list, tuple or dict of shapes."""
    if hasattr(shapes, "as_list"):
        shapes = tuple(shapes.as_list())
    if _is_shape(shapes):
        return keras_module.Input(batch_shape=(None, *shapes[1:]), name=name)
    if isinstance(shapes, dict):
        return {key: _inputs(keras_module, s, key) for key, s in shapes.items()}
    return [_inputs(keras_module, s) for s in shapes]


def _symbolic_call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parameters = inspect.signature(layer.call).parameters
    if "training" in parameters and "training" not in kwargs:
        # Not False: tf_keras would record it and never train the layers again.
        kwargs = {**kwargs, "training": None}
    return layer.call(*args, **kwargs)


def _graph(model: Any, functional: Any, prefix: str, names: _Names) -> Graph:
    calls: list[Call] = []
    depths = sorted(functional._nodes_by_depth, reverse=True)
    for node in (
        node for depth in depths for node in functional._nodes_by_depth[depth]
    ):
        if node.is_input:
            continue
        layer = getattr(node, "operation", None) or node.layer
        path = names.path(layer, prefix)
        tensors_in = _input_tensors(node)
        tensors_out = keras.tree.flatten(node.outputs)
        calls.append(
            Call(
                layer=layer,
                kind=kind_of(layer),
                path=path,
                name=names.use(layer),
                inputs=tuple(id(t) for t in tensors_in),
                outputs=tuple(id(t) for t in tensors_out),
                input_shapes=tuple(_shape(t) for t in tensors_in),
                output_shapes=tuple(_shape(t) for t in tensors_out),
                inner=_inner(layer, node, tensors_in, f"{path}/", names),
                fill=_filler(node),
            )
        )
    return Graph(
        model=model,
        inputs=tuple(
            Input(_history(t).name, _shape(t), _dtype(t)) for t in functional.inputs
        ),
        calls=tuple(calls),
        input_ids=tuple(id(t) for t in functional.inputs),
        output_ids=tuple(id(t) for t in functional.outputs),
        structure=_structure(functional),
        sequential=is_sequential(model),
    )


def _input_tensors(node: Any) -> list[Any]:
    if hasattr(node, "arguments"):
        return list(node.arguments.keras_tensors)
    return list(node.keras_inputs)


def _filler(node: Any) -> Callable[[dict[int, Any]], Arguments]:
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


def _inner(
    layer: Any, node: Any, tensors: list[Any], prefix: str, names: _Names
) -> Graph | None:
    """Trace a nested model, or a user's layer made of layers."""
    functional = None
    if hasattr(layer, "layers"):
        functional = _functional(layer)
    if functional is None and _is_composite(layer):
        functional = _symbolic_layer(layer, node, tensors)
    return None if functional is None else _graph(layer, functional, prefix, names)


def _is_composite(layer: Any) -> bool:
    own = kind_of(layer).startswith("custom:")
    flatten = getattr(layer, "_flatten_layers", None)
    return (
        own and flatten is not None and any(True for _ in flatten(include_self=False))
    )


def _symbolic_layer(layer: Any, node: Any, tensors: list[Any]) -> Any | None:
    """Trace a composite layer; `None` leaves it opaque, a barrier to pruning."""
    keras_module = keras_of(layer)
    inputs = [
        keras_module.Input(batch_shape=_shape(t), dtype=_dtype(t)) for t in tensors
    ]
    values = {id(t): x for t, x in zip(tensors, inputs, strict=True)}
    try:
        outputs = _symbolic_call(layer, *_filler(node)(values))
        traced = keras_module.Model(inputs, outputs)
        return None if _lost_weights(layer, traced) else traced
    except Exception:  # whatever the user's `call` raises: it cannot be traced
        return None


def _history(tensor: Any) -> Any:
    history = tensor._keras_history
    return getattr(history, "operation", None) or history.layer


def _shape(tensor: Any) -> Shape:
    return tuple(tensor.shape)


def _dtype(tensor: Any) -> str:
    dtype = tensor.dtype
    return str(getattr(dtype, "name", dtype))


def _structure(functional: Any) -> tuple[Any, Any]:
    if hasattr(functional, "_inputs_struct"):
        return functional._inputs_struct, functional._outputs_struct
    return functional._nested_inputs, functional._nested_outputs
