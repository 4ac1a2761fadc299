"""What a model costs: multiply-accumulates, parameters, bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph.channel_graph import ChannelGraph


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of one inference on one input, in layers with
            kernels and between tensors (attention, Dot); `None` where the input
            size is open. Positions that a reshape folds into the batch axis
            count once.
        params: Number of weights, statistics of normalisations included.
        bytes: Bytes of the weights as the model holds them.
        uncounted: Paths of layers with weights whose multiply-accumulates are
            not known, because no rule covers them.
    """

    macs: int | None
    params: int
    bytes: int
    uncounted: tuple[str, ...] = ()


def cost(model: Any) -> Cost:
    """Count what a model costs.

    Args:
        model: A built model of either flavour.

    Returns:
        The cost.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced.

    Example:

    ```python
    tsp.cost(model).macs     # 5_120
    ```
    """
    graph = ChannelGraph(model)
    return cost_after(graph, graph.nothing_removed())


def cost_after(graph: ChannelGraph, removed: np.ndarray) -> Cost:
    """Count what a model will cost once units are removed.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.

    Returns:
        The cost.
    """
    kept = graph.kept_counts(removed)
    macs: int | None = 0
    params = size = 0
    uncounted = []
    for work in graph.work:
        macs = _plus(macs, work.uses, 1, graph, removed, work.rows)
    for path in graph.arrays:
        known = False
        for name, shape in graph.arrays.shapes(path).items():
            entries = math.prod(kept.get((path, name), shape))
            params += entries
            size += entries * graph.arrays.itemsize(path, name)
            fact = graph.weights.get((path, name))
            if fact is not None:
                known = True
                macs = _plus(macs, fact.uses, entries, graph, removed, fact.rows)
        if not known:
            uncounted.append(path)
    return Cost(macs, params, size, tuple(uncounted))


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


def require_macs(found: Cost, name: str) -> int:
    """Return the multiply-accumulates, or say why there are none."""
    if found.macs is None:
        raise ModelError(
            "The multiply-accumulates of a model with an open input size are not "
            "known. Build it with a fixed size, such as `Input((32, 32, 3))`. "
            f"Received: model {name!r}."
        )
    return found.macs
