"""What a model costs: multiply-accumulates, parameters, bytes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph.channel_graph import ChannelGraph


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of one inference on one input, in Dense and
            convolution layers; `None` where the input size is open.
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
    for path, arrays in graph.arrays.items():
        known = False
        for name, array in arrays.items():
            entries = math.prod(kept.get((path, name), array.shape))
            params += entries
            size += entries * array.dtype.itemsize
            fact = graph.weights.get((path, name))
            if fact is not None:
                known = True
                if fact.uses is None or macs is None:
                    macs = None
                else:
                    rows = [int((~removed[graph.units_of(r)]).sum()) for r in fact.rows]
                    macs += entries * fact.uses * math.prod(rows)
        if not known:
            uncounted.append(path)
    return Cost(macs, params, size, tuple(uncounted))


def require_macs(found: Cost, name: str) -> int:
    """Return the multiply-accumulates, or say why there are none."""
    if found.macs is None:
        raise ModelError(
            "The multiply-accumulates of a model with an open input size are not "
            "known. Build it with a fixed size, such as `Input((32, 32, 3))`. "
            f"Received: model {name!r}."
        )
    return found.macs
