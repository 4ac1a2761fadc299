"""Which units of a group can be pruned, and in which order they go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tf_spline_prune.compat import Progress
from tf_spline_prune.criteria import Criterion, PairCriterion, UnitPairs
from tf_spline_prune.criteria._criterion import divisor
from tf_spline_prune.errors import CriterionError
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._cost import CostOfCounts
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.pruning.planning._budget import Budget

# Distances of up to this many pairs are kept; beyond, rows are computed anew.
_KEPT_PAIRS = 2**24


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which the units of a group go.

    Attributes:
        order: Array of shape `(units,)`: unit indices, the first to go first.
        keys: Array of shape `(units,)`: how much is lost with each, in the same
            order, never falling.
        twins: Array of shape `(units,)`: the surviving unit that each is closest
            to when it goes, in the same order, or -1.
        scales: Array of shape `(units,)`: the factor by which the twin's output
            stands in for it, in the same order; 0 where it cannot.
    """

    order: np.ndarray
    keys: np.ndarray
    twins: np.ndarray
    scales: np.ndarray


def rank(criterion: Criterion, group: Group, gone: np.ndarray | None = None) -> Ranking:
    """Rank the units of a group by a prepared criterion.

    Ties are broken by position: the later unit goes first among pairs, the
    earlier one among scores, always the same way.

    Args:
        criterion: A criterion that was prepared.
        group: A group of the same graph.
        gone: Array of shape `(labels,)`, bool, indexed by unit: those that masks have
            removed already, which go first; `None` where there are no masks.

    Returns:
        The ranking.

    Raises:
        CriterionError: If the scores are not one finite number per unit.
    """
    if isinstance(criterion, PairCriterion):
        ranking = eliminate(criterion.pairs(group))
        counted = ranking.keys[:-1]  # nothing is lost to compare the last one with
    else:
        scores = np.asarray(criterion.scores(group), "float64")
        if scores.shape != (group.num_units,):
            raise CriterionError(
                "A criterion must give one score per unit. Expected: shape "
                f"{(group.num_units,)}. Received: shape {scores.shape} of "
                f"{criterion.name!r} for the units of {group.name!r}."
            )
        order = np.argsort(scores, kind="stable")
        none = np.full(len(order), -1)
        ranking = Ranking(order, scores[order], none, np.zeros(len(order)))
        counted = ranking.keys
    keys = ranking.keys
    if not np.isfinite(counted).all():
        raise CriterionError(
            "A criterion must give finite scores. Received: NaN or infinite scores of "
            f"{criterion.name!r} for the units of {group.name!r}."
        )
    keys = np.maximum.accumulate(keys / divisor(counted, criterion.normalizer))
    ranking = Ranking(ranking.order, keys, ranking.twins, ranking.scales)
    return ranking if gone is None else _first(ranking, gone[group.roots])


def _first(ranking: Ranking, gone: np.ndarray) -> Ranking:
    """Move units to the front of all rankings, for nothing is lost with them."""
    first = gone[ranking.order]
    places = np.argsort(~first, kind="stable")
    least = min(0.0, float(ranking.keys.min(initial=0.0))) - 1.0
    return Ranking(
        ranking.order[places],
        np.where(first, least, ranking.keys)[places],
        np.where(first, -1, ranking.twins)[places],
        ranking.scales[places],
    )


def eliminate(pairs: UnitPairs) -> Ranking:
    """Remove greedily one unit of the closest surviving pair, to the last unit.

    Each unit remembers its nearest survivor. When that one goes, the others are only
    farther away: a unit looks again once it would be the closest, and not before.
    Rows of distances are computed in blocks, so memory grows with the number of units,
    not with its square.

    Args:
        pairs: What a pair criterion measured.

    Returns:
        The ranking; the last unit has the key infinity.
    """
    count = len(pairs.worth)
    matrix = pairs.rows(np.arange(count)) if count * count <= _KEPT_PAIRS else None
    if matrix is not None and pairs.dead.any():  # of which anything may be said
        matrix = np.where(pairs.dead, np.inf, matrix)
    alive = ~pairs.dead
    order = np.flatnonzero(pairs.dead).tolist()
    keys = [0.0] * len(order)
    twins = [-1] * len(order)
    nearest = np.full(count, -1)
    closest = np.full(count, np.inf)
    beyond = np.zeros(count, "float32")  # infinity for whoever is gone

    def look(units: np.ndarray) -> None:
        if matrix is not None:  # one by one, for the processor has a row at hand
            for unit in units.tolist():
                row = matrix[unit] + beyond
                row[unit] = np.inf
                nearest[unit] = found = row.argmin()
                closest[unit] = row[found]
            return
        step = max(1, _KEPT_PAIRS // 4 // count)
        for start in range(0, len(units), step):
            some = units[start : start + step]
            rows = np.where(alive, pairs.rows(some), np.inf)
            rows[np.arange(len(some)), some] = np.inf
            nearest[some] = rows.argmin(axis=1)
            closest[some] = rows[np.arange(len(some)), nearest[some]]

    look(np.flatnonzero(alive))
    for _ in range(int(alive.sum()) - 1):
        while (
            np.isfinite(closest[first := int(closest.argmin())])
            and not alive[nearest[first]]
        ):
            if matrix is not None:
                look(np.array([first]))
            else:  # many at a time
                look(np.flatnonzero(alive & ~alive[nearest]))
        second = int(nearest[first])
        low, high = min(first, second), max(first, second)
        gone, kept = (
            (high, low) if pairs.worth[low] >= pairs.worth[high] else (low, high)
        )
        order.append(gone)
        keys.append(float(closest[first]))
        twins.append(kept)
        alive[gone] = False
        closest[gone] = beyond[gone] = np.inf
    order += np.flatnonzero(alive).tolist()
    keys += [np.inf] * (count - len(keys))
    twins += [-1] * (count - len(twins))
    ordered, twin = np.array(order), np.array(twins)
    scales = np.zeros(count)
    known = twin >= 0
    scales[known] = pairs.scale(ordered[known], twin[known])
    return Ranking(ordered, np.array(keys), twin, scales)


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
