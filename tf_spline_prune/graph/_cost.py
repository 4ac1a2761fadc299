"""What a model costs: multiply-accumulates, parameters, bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import OneOf, Options, checked
from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph._channel_graph import ChannelGraph
from tf_spline_prune.graph._facts import Group
from tf_spline_prune.graph._input_shapes import INPUT_SHAPES, InputShapes

WeightDtype = Literal["float32", "float16", "int8"]
WEIGHT_DTYPE: Options = [OneOf(*get_args(WeightDtype)), None]


@dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        macs: Multiply-accumulates of one inference on one input, in layers with
            kernels and between tensors (attention, Dot); `None` where the input
            size is open or a layer is `uncounted`. Layers that no rule covers are
            counted by tracing their `call`.
        params: Number of weights, statistics of normalisations included.
        bytes: Bytes of the weights as the model holds them, or in the dtype that
            was asked for.
        uncounted: Paths of layers whose multiply-accumulates are not known: no rule
            covers them, and tracing cannot tell, as with an FFT or a loop whose number
            of steps depends on the data. Defaults to `()`.
    """

    macs: int | None
    params: int
    bytes: int
    uncounted: tuple[str, ...] = ()


@checked(weight_dtype=WEIGHT_DTYPE, input_shapes=INPUT_SHAPES)
def cost(
    model: Any,
    weight_dtype: WeightDtype | None = None,
    *,
    input_shapes: InputShapes | None = None,
) -> Cost:
    """Compute what a model costs.

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
        weight_dtype: `"float32"`, `"float16"`, `"int8"` or `None`. Defaults to `None`.
        input_shapes: For names of inputs the shapes, without the batch axis, for which
            to count where the model leaves sizes open: `{"token_ids": (128,)}`.
            Defaults to `None`.

    Returns:
        The cost.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced.
        ValueError: If `weight_dtype` is none of these, or `input_shapes` does not fit
            the inputs.

    Example:

    ```python
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64)])
    tsp.cost(model).macs       # 512: 8 x 64
    tsp.cost(model).params     # 576
    ```
    """
    graph = ChannelGraph(model, input_shapes=input_shapes)
    return cost_after(graph, graph.nothing_removed(), weight_dtype)


def bytes_of_entry(
    graph: ChannelGraph, path: str, name: str, weight_dtype: WeightDtype | None
) -> int:
    """Return the bytes that one entry of a weight takes, as `cost` counts them."""
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
    """Describe in a few words why a model's multiply-accumulates are not known."""
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


class CostOfCounts:
    """What a model costs once so many units of each group are gone.

    Every axis of every weight shrinks by a fixed number of places for each unit of
    a group, so the cost of a choice is a few products.

    Args:
        graph: The model's channel graph.
        groups: Groups of the graph.
        weight_dtype: The dtype in which bytes are counted, as in `cost`.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        groups: Sequence[Group],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        self._graph = graph
        owner = graph.owners(groups)
        units = np.array([group.num_units for group in groups], float)
        self._sizes: list[int] = [1]  # an axis that is not there
        self._places: list[np.ndarray] = [np.zeros(len(groups))]
        known: dict[int, int] = {}

        def axis(labels: np.ndarray) -> int:
            if id(labels) not in known:
                known[id(labels)] = len(self._sizes)
                owners = owner[graph.units_of(labels)]
                counts = np.bincount(owners + 1, minlength=len(groups) + 1)[1:]
                self._sizes.append(len(labels))
                self._places.append(counts / np.maximum(units, 1))
            return known[id(labels)]

        entries, uses, axes, rows, itemsizes = [], [], [], [], []
        for path in graph.arrays:
            for name, shape in graph.arrays.shapes(path).items():
                fact = graph.weights.get((path, name))
                held = fact.axes if fact else (None,) * len(shape)
                fixed = [n for n, a in zip(shape, held, strict=True) if a is None]
                entries.append(math.prod(fixed))
                uses.append(fact.uses if fact else 0)
                axes.append([axis(a) for a in held if a is not None])
                rows.append([axis(a) for a in fact.rows] if fact else [])
                itemsizes.append(bytes_of_entry(graph, path, name, weight_dtype))
        for work in graph.work:
            entries.append(0)
            uses.append(work.uses)
            axes.append([])
            rows.append([axis(a) for a in work.rows])
            itemsizes.append(0)
        self._entries = np.array(entries, np.int64)
        self._has_macs = None not in uses and not graph.uncounted
        times = np.array([n or 0 for n in uses], np.int64)
        self._factors = np.array([max(1, n) for n in entries], np.int64) * times
        self._axes, self._rows = _table(axes), _table(rows)
        self._itemsizes = np.array(itemsizes, np.int64)
        self._matrix = np.rint(np.stack(self._places)).astype(np.int64)
        self._all = np.array(self._sizes, np.int64)

    def __call__(self, measure: str, counts: np.ndarray) -> int:
        """Return one cost.

        Args:
            measure: `"macs"`, `"params"` or `"bytes"`.
            counts: Array of shape `(groups,)`: how many units of each are gone.

        Returns:
            The cost.

        Raises:
            ModelError: If multiply-accumulates are asked for that are not known.
        """
        if measure == "macs" and not self._has_macs:
            whole = cost_after(self._graph, self._graph.nothing_removed())
            require_macs(whole, self._graph.model.name)
        kept = self._all - self._matrix @ counts
        sizes = kept[self._axes].prod(axis=1)
        if measure == "macs":
            return int((self._factors * sizes * kept[self._rows].prod(axis=1)).sum())
        entries = self._entries * sizes
        return int((entries * (self._itemsizes if measure == "bytes" else 1)).sum())


def _table(lists: list[list[int]]) -> np.ndarray:
    """Put lists of axes into one array, filled up with the axis that is not there."""
    width = max((len(one) for one in lists), default=0) or 1
    return np.array([one + [0] * (width - len(one)) for one in lists]).reshape(
        -1, width
    )
