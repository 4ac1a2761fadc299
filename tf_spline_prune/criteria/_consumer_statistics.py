"""Statistics of what the consumers of units see, over calibration data."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Progress,
    Tensor,
    call_layer,
    compiled,
    to_numpy,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._readings import Reading


def sums_at_consumers(
    graph: ChannelGraph,
    wanted: Sequence[Reading],
    statistic: Callable[[Reading, Any], Any],
    data: Calibration,
    batch_size: int,
) -> dict[Reading, np.ndarray]:
    """Run the data through the model once, and add up a statistic of each reading.

    Args:
        graph: The channel graph.
        wanted: The readings.
        statistic: Takes a reading and the tensor that it reads, a batch of it; gives
            a tensor to be added up. It is compiled with the model.
        data: The data.
        batch_size: How many inputs run at a time.

    Returns:
        The sums over all batches, float64, by reading.
    """
    by_call: dict[str, list[Reading]] = {}
    for reading in wanted:
        by_call.setdefault(reading.call, []).append(reading)
    entries = {
        call.name: _entries(call) for call in graph.graph.calls if call.name in by_call
    }

    def statistics(inputs: list[Any]) -> list[Any]:
        found: dict[Reading, list[Any]] = {reading: [] for reading in wanted}

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            for reading in by_call.get(call.name, ()):
                given = keras.tree.flatten((args, kwargs))
                tensor = given[entries[call.name][reading.input]]
                found[reading].append(statistic(reading, tensor))
            return call_layer(call, args, kwargs)

        graph.graph.run([keras.ops.convert_to_tensor(x) for x in inputs], apply)
        return [found[reading] for reading in wanted]

    run = compiled(statistics, graph.model)
    progress = Progress(math.ceil(len(data) / batch_size), "batch")
    total: dict[Reading, np.ndarray] = {}
    for inputs, _ in data.batches(batch_size) if wanted else ():
        for reading, found in zip(wanted, run(inputs), strict=True):
            for tensor in found:
                new = to_numpy(tensor).astype("float64")
                total[reading] = total.get(reading, 0.0) + new
        progress.step()
    return total


def _entries(call: Call) -> list[int]:
    """Find where the inputs of a call, masks left out, are among its arguments."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    at = {leaf: n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    return [at[tensor] for tensor in call.inputs]
