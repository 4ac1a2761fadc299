"""What a model costs: multiply-accumulates, parameters, bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import OneOf, Options, checked
from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph.channel_graph import ChannelGraph

WeightDtype = Literal["float32", "float16", "int8"]
WEIGHT_DTYPE: Options = [OneOf(*get_args(WeightDtype)), None]


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of one inference on one input, in layers with
            kernels and between tensors (attention, Dot); `None` where the input
            size is open or a layer is `uncounted`. Layers that no rule covers are
            counted by tracing their `call`. Positions that a reshape folds into
            the batch axis count once.
        params: Number of weights, statistics of normalisations included.
        bytes: Bytes of the weights as the model holds them, or in the dtype that
            was asked for.
        uncounted: Paths of layers whose multiply-accumulates are not known:
            no rule covers them, and tracing cannot tell, as with an FFT or a loop
            whose number of steps depends on the data.
    """

    macs: int | None
    params: int
    bytes: int
    uncounted: tuple[str, ...] = ()


@checked(weight_dtype=WEIGHT_DTYPE)
def cost(model: Any, weight_dtype: WeightDtype | None = None) -> Cost:
    """Count what a model costs.

    `weight_dtype` tells in what dtype the weights are stored; `None` is as the
    model holds them. An entry then has

    - `"float32"` 4 bytes, `"float16"` 2 bytes;
    - `"int8"` 1 byte in arrays of two axes and more (kernels, embeddings), and 4
      bytes in biases and other vectors, which LiteRT stores in int32.

    Weights that hold no real numbers keep their size. This is the size of the
    numbers alone. A `.tflite` file has a graph besides, and in int8 a scale for
    each output channel; the four vectors of a BatchNormalization, which are
    counted here, become one bias where LiteRT folds them into a kernel.

    Args:
        model: A built model of either flavour.
        weight_dtype: `"float32"`, `"float16"`, `"int8"` or `None`.

    Returns:
        The cost.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced.
        ValueError: If `weight_dtype` is none of these.

    Example:

    ```python
    tsp.cost(model).macs     # 5_120
    ```
    """
    graph = ChannelGraph(model)
    return cost_after(graph, graph.nothing_removed(), weight_dtype)


def bytes_of_entry(
    graph: ChannelGraph, path: str, name: str, weight_dtype: WeightDtype | None
) -> int:
    """Give the bytes that one entry of a weight takes, as `cost` counts them."""
    if weight_dtype is None or not graph.arrays.is_float(path, name):
        return graph.arrays.itemsize(path, name)
    if weight_dtype != "int8":
        return {"float32": 4, "float16": 2}[weight_dtype]
    # Some biases have two axes: those of attention heads, of GRU gates.
    is_bias = "bias" in name.rpartition("/")[2]
    return 1 if len(graph.arrays.shapes(path)[name]) > 1 and not is_bias else 4


def cost_after(
    graph: ChannelGraph,
    removed: np.ndarray,
    weight_dtype: WeightDtype | None = None,
) -> Cost:
    """Count what a model will cost once units are removed.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        weight_dtype: As in `cost`.

    Returns:
        The cost.
    """
    layers = layer_costs(graph, removed, weight_dtype)
    macs = [layer.macs for layer in layers.values()]
    return Cost(
        None if None in macs else sum(macs),  # type: ignore[arg-type]
        sum(layer.params for layer in layers.values()),
        sum(layer.bytes for layer in layers.values()),
        graph.uncounted,
    )


def layer_costs(
    graph: ChannelGraph,
    removed: np.ndarray,
    weight_dtype: WeightDtype | None = None,
) -> dict[str, Cost]:
    """Count what each layer will cost once units are removed.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        weight_dtype: As in `cost`.

    Returns:
        The costs by layer path, of layers that have weights or multiply tensors.
    """
    kept = graph.kept_counts(removed)
    found = {}
    working = [work.path for work in graph.work]
    for path in dict.fromkeys([*graph.arrays, *working, *graph.uncounted]):
        uncounted = (path,) * (path in graph.uncounted)
        macs: int | None = None if uncounted else 0
        params = size = 0
        for work in graph.work:
            if work.path == path:
                macs = _plus(macs, work.uses, 1, graph, removed, work.rows)
        shapes = graph.arrays.shapes(path) if path in graph.arrays else {}
        for name, shape in shapes.items():
            entries = math.prod(kept.get((path, name), shape))
            params += entries
            size += entries * bytes_of_entry(graph, path, name, weight_dtype)
            fact = graph.weights.get((path, name))
            if fact is not None:
                macs = _plus(macs, fact.uses, entries, graph, removed, fact.rows)
        found[path] = Cost(macs, params, size, uncounted)
    return found


def _plus(
    macs: int | None,
    uses: int | None,
    entries: int,
    graph: ChannelGraph,
    removed: np.ndarray,
    rows: Sequence[np.ndarray],
) -> int | None:
    if macs is None or uses is None:
        return None
    sizes = [int((~removed[graph.units_of(labels)]).sum()) for labels in rows]
    return macs + entries * uses * math.prod(sizes)


def why_no_macs(found: Cost) -> str:
    """Say in a few words why a model's multiply-accumulates are not known."""
    if found.uncounted:
        return f"those of {', '.join(found.uncounted)} cannot be counted"
    return "the size of an input is open"


def require_macs(found: Cost, name: str) -> int:
    """Return the multiply-accumulates, or say why there are none."""
    if found.uncounted:
        raise ModelError(
            "The multiply-accumulates of some layers cannot be counted, so there is "
            "nothing to compare a target with. Give these layers a rule "
            "(`tsp.register_rule`), or ask for parameters, bytes, or a fraction of "
            f"the units. Received: model {name!r} with {', '.join(found.uncounted)}"
        )
    if found.macs is None:
        raise ModelError(
            "The multiply-accumulates of a model with an open input size are not "
            "known. Build it with a fixed size, such as `Input((32, 32, 3))`. "
            f"Received: model {name!r}."
        )
    return found.macs
