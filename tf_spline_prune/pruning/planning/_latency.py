"""Where the latency of a choice of units comes from."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.compat import Progress
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.litert import Runner, convert, interleaved_latencies

# A function of the model, or for each layer the microseconds by units kept.
Latency = Callable[[Any], float] | Mapping[str, Sequence[float]]

# How many candidates are built and measured, where each is.
CANDIDATES = 12


class LatencyOfCounts:
    """The latency of the model, and of what is left of it, in microseconds.

    Each choice is looked at once and remembered.

    Args:
        graph: The model's channel graph.
        groups: The groups whose numbers of units are free.
        latency: `None` measures through LiteRT on this machine, each candidate in
            turns with the model; a function is asked; a table is summed up.
        build: Builds the candidate of a choice.

    Attributes:
        is_table: Whether a choice costs next to nothing to look at.

    Raises:
        ValueError: If a table names an unknown layer, has another length than
            the layer has units plus one, or holds what is no time.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        groups: Sequence[Group],
        latency: Latency | None,
        build: Callable[[np.ndarray], Any],
    ) -> None:
        self._model = graph.model
        self._build = build
        self._latency = latency
        self._full: Any = None  # the model's own runner or latency, once known
        self._found: dict[tuple[int, ...], tuple[float, float]] = {}
        self.is_table = isinstance(latency, Mapping)
        self._progress = Progress(CANDIDATES + 1, "candidate")
        if isinstance(latency, Mapping):
            self._table = _Table(graph, groups, latency)

    def __call__(self, counts: np.ndarray) -> tuple[float, float]:
        """Return two latencies.

        Args:
            counts: Array of shape `(groups,)`: how many units of each are gone.

        Returns:
            That of the model, and that of what is left of it.
        """
        if self.is_table:
            return self._table(np.zeros_like(counts)), self._table(counts)
        key = tuple(map(int, counts))
        if key not in self._found:
            self._found[key] = self._measured(counts)
            self._progress.step()
        return self._found[key]

    def _measured(self, counts: np.ndarray) -> tuple[float, float]:
        if callable(self._latency):
            if self._full is None:
                self._full = _number(self._latency(self._model), "`latency`")
            if not counts.any():
                return self._full, self._full
            return self._full, _number(self._latency(self._build(counts)), "`latency`")
        if self._full is None:
            self._full = Runner(convert(self._model))
        if not counts.any():
            (one,) = interleaved_latencies(self._full)
            return one, one
        small = Runner(convert(self._build(counts)))
        one, other = interleaved_latencies(self._full, small)
        return one, other


class _Table:
    """Sums a table of microseconds up over its layers."""

    def __init__(
        self,
        graph: ChannelGraph,
        groups: Sequence[Group],
        table: Mapping[str, Sequence[float]],
    ) -> None:
        if not table:
            raise ValueError("The table `latency` names no layer. Received: {}")
        owner = graph.owners(groups)
        named = [graph.nameable.one(name, "latency") for name in table]
        self._rows = [
            _row(graph, *each) for each in zip(named, table.values(), strict=True)
        ]
        self._full = np.array([len(row) - 1 for row in self._rows], int)
        self._places = np.zeros((len(table), len(groups)), int)
        for number, name in enumerate(named):
            mine = owner[graph.makers[name]]
            self._places[number, np.unique(mine[mine >= 0])] = 1

    def __call__(self, counts: np.ndarray) -> float:
        kept = (self._full - self._places @ counts).tolist()
        return float(sum(row[n] for row, n in zip(self._rows, kept, strict=True)))


def _row(graph: ChannelGraph, name: str, times: Sequence[float]) -> list[float]:
    units = len(np.unique(graph.makers[name]))
    try:
        row = np.array(times, "float64")
    except (TypeError, ValueError):
        row = np.zeros(0)
    if row.shape != (units + 1,) or not np.isfinite(row).all() or (row < 0).any():
        raise ValueError(
            f"The table `latency` must hold {units + 1} times for {name!r}: finite "
            f"microseconds for 0 to {units} units kept. Received: {received(times)}"
        )
    return [float(time) for time in row]


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise ValueError(
            f"{name} must return microseconds, finite and above 0. Received: "
            f"{received(value)}"
        )
    return number
