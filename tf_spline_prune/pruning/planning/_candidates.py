"""Which groups may lose units, and in which order they would."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tf_spline_prune.compat import Progress
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._cost import CostOfCounts
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.pruning.planning._budget import Budget
from tf_spline_prune.pruning.planning._ranking import Ranking, rank


def candidates(
    graph: ChannelGraph, criterion: Criterion, layers: Selector, min_units: int = 1
) -> tuple[list[Group], list[Barrier]]:
    """Find the groups to rank, and say why the others are not."""
    chosen = graph.nameable.chosen(layers)
    barriers = list(graph.barriers)
    groups = []
    for group in graph.groups:
        makers = group.makers
        reason = criterion.reason_against(group)
        frozen = [name for name in makers if not graph.layer(name).trainable]
        if frozen and layers is None:
            reason = f"{frozen[0]} is frozen; name it in `layers` to prune it"
        if not chosen.issuperset(makers):
            reason = "`layers` leaves them out"
        elif group.num_units <= min_units:
            least = f"`min_units={min_units}`" if min_units > 1 else "one"
            reason = f"{least} must be kept, and there are no more"
        if reason is None:
            groups.append(group)
        else:
            barriers += [Barrier(name, group.num_units, reason) for name in makers]
    return groups, barriers


def rankings_of(
    criterion: Criterion, groups: Sequence[Group], gone: np.ndarray | None = None
) -> list[Ranking]:
    """Rank the units of each group, by a prepared criterion; see `rank`."""
    progress = Progress(len(groups), "group")
    rankings = []
    for group in groups:
        rankings.append(rank(criterion, group, gone))
        progress.step()
    return rankings


def weighed(
    graph: ChannelGraph,
    groups: Sequence[Group],
    rankings: Sequence[Ranking],
    budget: Budget,
) -> list[Ranking]:
    """Divide what is lost with a unit by what it saves of the budgeted cost."""
    measure = "macs" if budget.kind == "target_latency" else str(budget.measure)
    costs = CostOfCounts(graph, groups, budget.weight_dtype)
    none = np.zeros(len(groups), int)
    full = costs(measure, none)
    found = []
    for index, ranking in enumerate(rankings):
        one = none.copy()
        one[index] = 1
        saved = max(1, full - costs(measure, one)) / max(1, full)
        found.append(replace(ranking, keys=ranking.keys / saved))
    return found


def reasons(barriers: Sequence[Barrier]) -> str:
    """Describe in one line what cannot be pruned, and why."""
    return "; ".join(sorted({f"{b.layer}: {b.reason}" for b in barriers})) or "none"
