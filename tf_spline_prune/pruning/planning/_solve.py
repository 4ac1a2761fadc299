"""From a budget to the number of units that each group loses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._cost import CostOfCounts
from tf_spline_prune.pruning._remove_units import shrink
from tf_spline_prune.pruning.planning._allocation import Allocation
from tf_spline_prune.pruning.planning._budget import Budget
from tf_spline_prune.pruning.planning._candidates import reasons
from tf_spline_prune.pruning.planning._latency import PROBES, LatencyOfCounts

Achieved = tuple[float, float]


def solve(
    budget: Budget,
    allocation: Allocation,
    graph: ChannelGraph,
    barriers: Sequence[Barrier],
    shares: Sequence[float] | None,
) -> tuple[np.ndarray, Achieved]:
    """Find how many units of each group go.

    Args:
        budget: What the user asked for.
        allocation: The groups, in the order of going.
        graph: The model's channel graph.
        barriers: Who must stay, for the messages.
        shares: The share of each group, where `sparsity` names layers.

    Returns:
        Array of shape `(groups,)`, and what the budget counts before and after:
        units, or the cost that the target bounds.

    Raises:
        BudgetError: If the target is above what is there or out of reach.
    """
    if budget.measure is None:
        if shares is None:
            counts = allocation.by_share(float(budget.value))
            total = int(allocation.sizes.sum())
        else:
            counts = allocation.by_shares(shares)
            total = sum(
                size
                for size, share in zip(allocation.sizes.tolist(), shares, strict=True)
                if share
            )
        return counts, (total, total - int(counts.sum()))
    groups = list(allocation.groups)
    costs = CostOfCounts(graph, groups, budget.weight_dtype)
    none = np.zeros(len(groups), int)
    if budget.kind == "target_latency":
        return _by_latency(budget, allocation, graph, barriers, costs)

    def cost_of(counts: np.ndarray) -> int:
        return costs(str(budget.measure), counts)

    full = cost_of(none)
    counts = allocation.by_cost(
        cost_of, budget.limit(full), budget, reasons(barriers), cost_of
    )
    return counts, (full, cost_of(counts))


def _by_latency(
    budget: Budget,
    allocation: Allocation,
    graph: ChannelGraph,
    barriers: Sequence[Barrier],
    costs: CostOfCounts,
) -> tuple[np.ndarray, Achieved]:
    def build(counts: np.ndarray) -> Any:
        return shrink(graph, allocation.removed(graph, counts), graph.arrays)

    groups: list[Group] = list(allocation.groups)
    latency_of = LatencyOfCounts(graph, groups, budget.latency, build)
    full, _ = latency_of(np.zeros(len(groups), int))
    limit = budget.limit(full)

    def cost_of(counts: np.ndarray) -> float:
        before, after = latency_of(counts)
        # A share is one of what the model took in the same measurement.
        return after * full / before if isinstance(budget.value, float) else after

    def price(counts: np.ndarray) -> float:
        return costs("macs", counts) or costs("params", counts)

    counts = allocation.by_cost(
        cost_of,
        limit,
        budget,
        reasons(barriers),
        price,
        None if latency_of.is_table else PROBES,
        steady=not latency_of.is_table,
    )
    return counts, latency_of(counts)
