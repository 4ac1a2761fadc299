"""Putting a layer that scales before an input of a call."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tf_spline_prune.compat.call_graph import Arguments, Call, Graph
from tf_spline_prune.compat.flavour import keras_of
from tf_spline_prune.compat.weights import coarsest_dtype


def with_scales(graph: Graph, scales: Mapping[str, Mapping[int, float]]) -> Graph:
    """Put Keras' own `Rescaling` layers into a graph, to be built from it.

    Args:
        graph: What `trace` gave.
        scales: For the path of a layer or operation, the factors of its inputs by
            their place.

    Returns:
        The graph, in which these inputs are scaled first.
    """
    # Tensors are known by their `id`, which is never negative.
    return _scaled(graph, scales, coarsest_dtype(graph.model), itertools.count(1))


def _scaled(
    graph: Graph,
    scales: Mapping[str, Mapping[int, float]],
    dtype: str,
    numbers: Iterator[int],
) -> Graph:
    calls = []
    for call in graph.calls:
        if call.inner is not None:
            inner = _scaled(call.inner, scales, dtype, numbers)
            calls.append(replace(call, inner=inner))
            continue
        for place, factor in scales.get(call.path, {}).items():
            scale = _scale_before(call, place, factor, dtype, -next(numbers))
            call = _reading(call, place, scale)
            calls.append(scale)
        calls.append(call)
    return replace(graph, calls=tuple(calls))


def _scale_before(
    call: Call, place: int, factor: float, dtype: str, output: int
) -> Call:
    """Make the call of a layer that scales what a call reads."""
    source, shape = call.inputs[place], call.input_shapes[place]
    own = getattr(call.layer, "dtype_policy", None) or dtype
    path = f"{call.path}_scale_{place}"
    name = path.rpartition("/")[2]
    layers = keras_of(call.layer).layers
    return Call(
        layer=layers.Rescaling(factor, name=name, dtype=own),
        kind="Rescaling",
        path=path,
        name=f"{call.name}_scale_{place}",
        inputs=(source,),
        outputs=(output,),
        input_shapes=(shape,),
        input_dtypes=(dtype,),
        output_shapes=(shape,),
        inner=None,
        fill=lambda values: ((values[source],), {}),
    )


def _reading(call: Call, place: int, scale: Call) -> Call:
    """Let a call read the output of another in the place of one of its inputs."""
    before, now = call.inputs[place], scale.outputs[0]
    inputs = list(call.inputs)
    inputs[place] = now

    def fill(values: dict[int, Any]) -> Arguments:
        return call.fill({**values, before: values[now]})

    return replace(call, inputs=tuple(inputs), fill=fill)
