"""`CostOfCounts`: the cost of a choice of units, fast enough to search with."""

import math
from collections.abc import Sequence

import numpy as np

from tf_spline_prune.graph.channel_graph import ChannelGraph
from tf_spline_prune.graph.costing import (
    WeightDtype,
    bytes_of_entry,
    cost_after,
    require_macs,
)
from tf_spline_prune.graph.facts import Group


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
        """Give one cost.

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
