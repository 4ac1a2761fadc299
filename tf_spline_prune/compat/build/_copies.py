"""Copies of a model: with other weights, in another precision, under other names."""

import contextlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.compat._flavour import flavour_of, is_layer, keras_of
from tf_spline_prune.compat._weights import (
    CurrentWeights,
    coarsest_dtype,
    weight_variables,
    write_values,
)
from tf_spline_prune.compat.build._own_class import (
    Place,
    is_own_class,
    size_entries,
)
from tf_spline_prune.compat.build._rebuild import rebuild
from tf_spline_prune.compat.build._same_graph import difference_of
from tf_spline_prune.compat.graph._blueprint import (
    Arguments,
    Blueprint,
    Node,
    for_inner,
)
from tf_spline_prune.compat.graph._graph import Graph, flat_graph
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.run._execution import widest_dtype
from tf_spline_prune.compat.run._states import values_kept
from tf_spline_prune.errors import FlavourError, ModelError

Weights = Mapping[str, Mapping[str, np.ndarray]]


def with_weights(model: Any, weights: Weights) -> Any:
    """Copy a model, with other values for some of its weights.

    Args:
        model: A built model of either flavour.
        weights: New arrays by layer path and weight name; the rest is copied.

    Returns:
        A new model of the same flavour and shape, of the same class where that is
        made from its config; the original is untouched.
    """
    graph = trace(model)
    if is_own_class(model) and size_entries(model, ()) is not None:
        with contextlib.suppress(ModelError):
            made = copied(graph, weights, classes={"": {}})
            if difference_of(graph, {}, trace(made)) is None:
                return made
    return copied(graph, weights)


def with_dtype(model: Any, dtype: str) -> Any:
    """Copy a model into another floating-point precision.

    Args:
        model: A built model of either flavour.
        dtype: `"float64"`, `"float32"` or another dtype policy of Keras.

    Returns:
        A new model that computes and holds its weights in `dtype`.

    Raises:
        FlavourError: If `dtype` is float64, and the model's backend has none.
    """
    if dtype == "float64" and widest_dtype(model) != dtype:
        raise FlavourError(
            "Keras computes in float64 on TensorFlow, and on JAX if told to. Set "
            "KERAS_BACKEND=tensorflow, or on JAX JAX_ENABLE_X64=1, before the first "
            f"import. Received: model {model.name!r} on {keras.config.backend()!r}"
        )
    return copied(trace(model), dtype=dtype)


def copied(
    graph: Graph,
    weights: Weights | None = None,
    dtype: str | None = None,
    classes: Mapping[str, Mapping[Place, int]] | None = None,
) -> Any:
    """Copy a model that is traced, as `with_weights` and `with_dtype` do."""
    current, changed = CurrentWeights(graph), weights or {}
    return rebuild(
        graph if dtype is None else flat_graph(_in_dtype(graph.blueprint, dtype)),
        weights=lambda path: {**current[path], **changed.get(path, {})},
        dtype=dtype,
        classes=classes,
    )


@contextlib.contextmanager
def overlaid(graph: Graph, weights: Weights) -> Iterator[None]:
    """Let a model of Keras 3 compute with other weights; it holds its own all along.

    Args:
        graph: The model, traced.
        weights: Arrays by layer path and weight name.
    """
    tensors = [
        (variable, keras.ops.convert_to_tensor(array, variable.dtype))
        for variable, array in _assignments(graph, weights)
    ]
    with keras.StatelessScope(state_mapping=tensors):
        yield


@contextlib.contextmanager
def assigned(graph: Graph, weights: Weights) -> Iterator[None]:
    """Set other weights on a copy of a model, and restore its own afterwards.

    Args:
        graph: The copy, traced; of either flavour.
        weights: Arrays by layer path and weight name.
    """
    pairs = _assignments(graph, weights)
    with values_kept(variable for variable, _ in pairs):
        for variable, array in pairs:
            write_values(variable, array)
        yield


def can_overlay(graph: Graph) -> bool:
    """Return whether `overlaid` takes a model."""
    return flavour_of(graph.model) == "keras"


def _assignments(graph: Graph, weights: Weights) -> list[tuple[Any, np.ndarray]]:
    return [
        (weight_variables(graph.layers[path])[name], array)
        for path, arrays in weights.items()
        for name, array in arrays.items()
    ]


def with_plain_names(graph: Graph) -> Any:
    """Copy a model whose names TensorFlow does not take for parts of a graph.

    Those have letters of English, digits and `_.-`, and begin with a letter or digit.

    Args:
        graph: The model, traced.

    Returns:
        The model itself, if all names are such; else a copy in which they are.
    """
    names = _plain_names(graph)
    if all(name == plain for name, plain in names.items()):
        return graph.model
    return rebuild(graph, names=names)


def _plain_names(graph: Graph) -> dict[str, str]:
    """Map each name of a layer or model to a plain one, no two of them the same."""
    names = _names(graph.blueprint)
    found = {name: name for name in names if _is_plain(name)}
    taken = {*found, *(i.name for i in graph.inputs)}
    for name in sorted(names - set(found)):
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        plain = stem = stem if _is_plain(stem) else f"layer{stem}"
        count = 1
        while plain in taken:
            plain = f"{stem}_{count}"
            count += 1
        taken.add(plain)
        found[name] = plain
    return found


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", name) is not None


def _names(blueprint: Blueprint) -> set[str]:
    found = {blueprint.model.name}
    for node in blueprint.nodes:
        if node.inner is not None:
            found |= _names(node.inner)
        elif hasattr(node.layer, "weights"):
            found.add(node.path.rpartition("/")[2])
    return found


def _in_dtype(blueprint: Blueprint, dtype: str) -> Blueprint:
    """Change the dtype of the inputs, those of nested models too."""
    inputs = tuple(
        replace(i, dtype=dtype) if i.dtype.startswith(("float", "bf")) else i
        for i in blueprint.inputs
    )
    nodes = tuple(
        replace(node, inner=_in_dtype(node.inner, dtype)) if node.inner else node
        for node in blueprint.nodes
    )
    return replace(blueprint, inputs=inputs, nodes=nodes)


def with_scales(graph: Graph, scales: Mapping[str, Mapping[int, float]]) -> Graph:
    """Put Keras' own `Rescaling` layers into a graph, to be built from it.

    Args:
        graph: What `trace` returned.
        scales: For the path of a layer or operation, the factors of its inputs by
            their place.

    Returns:
        The graph, in which these inputs are scaled first.
    """
    dtype = coarsest_dtype(graph.model)
    # Tensors are known by their `id`, which is never negative.
    return flat_graph(_scaled(graph.blueprint, scales, dtype, itertools.count(1)))


def _scaled(
    blueprint: Blueprint,
    scales: Mapping[str, Mapping[int, float]],
    dtype: str,
    numbers: Iterator[int],
) -> Blueprint:
    nodes = []
    for node in blueprint.nodes:
        if node.inner is not None:
            inner = _scaled(node.inner, scales, dtype, numbers)
            nodes.append(replace(node, inner=inner))
            continue
        for place, factor in scales.get(node.path, {}).items():
            scale = _scale_before(node, place, factor, dtype, -next(numbers))
            node = _taking(node, place, scale.outputs[0])
            nodes.append(scale)
        nodes.append(node)
    return replace(blueprint, nodes=tuple(nodes))


def _scale_before(
    node: Node, place: int, factor: float, dtype: str, output: int
) -> Node:
    """Make the node of a layer that scales what another node takes in."""
    source, shape = node.inputs[place], node.input_shapes[place]
    own = getattr(node.layer, "dtype_policy", None) or dtype
    path = f"{node.path}_scale_{place}"
    name = path.rpartition("/")[2]
    layers = keras_of(node.layer).layers
    return Node(
        layer=layers.Rescaling(factor, name=name, dtype=own),
        kind="Rescaling",
        path=path,
        name=f"{node.name}_scale_{place}",
        inputs=(source,),
        outputs=(output,),
        input_shapes=(shape,),
        input_dtypes=(dtype,),
        output_shapes=(shape,),
        inner=None,
        fill=lambda values: ((values[source],), {}),
    )


def _taking(node: Node, place: int, now: int) -> Node:
    """Let a node take in another tensor in the place of one of its inputs."""
    before = node.inputs[place]
    inputs = list(node.inputs)
    inputs[place] = now

    def fill(values: dict[int, Any]) -> Arguments:
        return node.fill({**values, before: values[now]})

    return replace(node, inputs=tuple(inputs), fill=fill)


def without_calls(
    graph: Graph, stand_ins: Mapping[str, int], gone: Collection[str] = ()
) -> Graph:
    """Take calls out of a graph, to be built from it.

    Args:
        graph: What `trace` returned.
        stand_ins: By the name of a call of one output, the place of the input that
            stands in for its output.
        gone: The names of calls that go without anything in their place: what consumes
            their outputs goes as well.

    Returns:
        The graph, whose calls are those that are left, in their order. The shapes that
        it says are the old ones.

    Raises:
        ModelError: If a model within the model would lack an output.
    """
    return flat_graph(_without(graph.blueprint, stand_ins, gone))


def _without(
    blueprint: Blueprint, stand_ins: Mapping[str, int], gone: Collection[str]
) -> Blueprint:
    nodes = []
    stands_for: dict[int, int] = {}
    for node in blueprint.nodes:
        if node.name in gone:
            continue
        for place, tensor in enumerate(node.inputs):
            if tensor in stands_for:
                node = _taking(node, place, stands_for[tensor])
        if node.name in stand_ins:
            stands_for[node.outputs[0]] = node.inputs[stand_ins[node.name]]
            continue
        if node.inner is not None:
            inner = _without(node.inner, stand_ins, gone)
            if node.inner.nodes and not inner.nodes:
                stands_for.update(_handed_through(node, inner))
                continue
            node = replace(node, inner=inner)
        nodes.append(node)
    outputs = tuple(stands_for.get(tensor, tensor) for tensor in blueprint.output_ids)
    made = {*blueprint.input_ids, *(t for node in nodes for t in node.outputs)}
    if nodes and not made.issuperset(outputs):
        raise ModelError(
            "A model within the model would lack an output. Received: "
            f"{blueprint.model.name!r}"
        )
    return replace(blueprint, nodes=tuple(nodes), output_ids=outputs)


def _handed_through(node: Node, inner: Blueprint) -> dict[int, int]:
    """Map the outputs of a nested model without any calls to what it was given."""
    args, kwargs = node.fill({tensor: tensor for tensor in node.inputs})
    entering = for_inner(node, node.inputs, args, kwargs)
    given = dict(zip(inner.input_ids, entering, strict=True))
    pairs = zip(node.outputs, inner.output_ids, strict=True)
    return {output: given[tensor] for output, tensor in pairs if tensor in given}


def require_layer(layer: Any) -> None:
    """Raise `FlavourError` unless an object is a layer of either flavour."""
    if not is_layer(layer):
        raise FlavourError(
            "Expected a layer of `keras` or `tf_keras`, not its class. Received: "
            f"{received(layer)}"
        )


def model_around(
    layer: Any, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> Any:
    """Put a copy of a layer between layers that produce units and one that reads.

    Args:
        layer: A layer of either flavour.
        shapes: Shape of each of its inputs, the batch axis left out.
        rng: Draws the weights.

    Returns:
        A model of the layer's flavour: for each input a `Dense` on the last axis,
        the layer, and for each output a `Dense` on all of its entries.
    """
    keras = keras_of(layer)
    inputs = [keras.Input(shape) for shape in shapes]
    units = [
        keras.layers.Dense(shape[-1], name=f"units_{i}")(x)
        for i, (x, shape) in enumerate(zip(inputs, shapes, strict=True))
    ]
    copy = type(layer).from_config(layer.get_config())
    outputs = copy(units[0] if len(units) == 1 else units)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    read = [
        keras.layers.Dense(3, name=f"reader_{i}")(keras.layers.Flatten()(y))
        for i, y in enumerate(outputs)
    ]
    model = keras.Model(inputs, read)
    for variable in model.weights:
        shape = tuple(variable.shape)
        values = rng.normal(0.0, 1.0 / np.sqrt(max(1, np.prod(shape[:-1]))), shape)
        if "variance" in variable.name:
            values = rng.uniform(0.5, 2.0, shape)
        variable.assign(values.astype("float32"))
    return model
