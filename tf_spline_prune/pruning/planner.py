"""`plan`: which units go, so that a budget is met."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.errors import BudgetError, NothingPrunedWarning
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph.costing import cost_after, require_macs
from tf_spline_prune.pruning.budget import Budget
from tf_spline_prune.pruning.pruning_plan import PruningPlan, fingerprint
from tf_spline_prune.pruning.ranking import Ranking, rank
from tf_spline_prune.pruning.selection import Selector, selected

Scope = Literal["global", "layer", "isomorphic"]


def plan(
    model: Any,
    criterion: str | Criterion = "spline",
    *,
    sparsity: float | None = None,
    target_macs: float | int | None = None,
    target_params: float | int | None = None,
    scope: Scope = "global",
    layers: Selector = None,
    data: Any = None,
    round_to: int = 1,
    min_units: int = 1,
    max_sparsity: float | None = None,
    seed: int = 0,
) -> PruningPlan:
    """Decide which units of a model to remove; the model is not changed.

    Give exactly one budget. Units are ranked by the criterion, together or layer
    by layer as `scope` says, and removed from the bottom until the budget is met:
    with `sparsity` exactly that many units go; with a target the fewest that
    bring the cost to it. Units that must stay are listed with the reason.

    Args:
        model: A built model of either flavour.
        criterion: A name such as `"spline"`, `"magnitude"`, `"batchnorm_scale"`,
            `"random"`, or an instance of `criteria.Criterion`.
        sparsity: Share of the prunable units to remove, in [0, 1).
        target_macs: Multiply-accumulates to come down to: a share of the model's
            (float, at most 1.0) or a number (int).
        target_params: Parameters to come down to, likewise.
        scope: What is ranked together: `"global"` everything, `"layer"` each
            group for itself (every group loses the same share),
            `"isomorphic"` groups of the same structure.
        layers: Which layers may be pruned: a name, a regular expression, a list
            of these, or a function of the layer. A group is pruned only if all
            layers that make its units may be.
        data: Inputs for criteria that read any, shape `(n, *input shape)`.
        round_to: Keep a multiple of this many units of each group.
        min_units: Keep at least this many units of each group.
        max_sparsity: Remove at most this share of a group, in [0, 1). Defaults
            to 0.9, or more where `sparsity` asks for more.
        seed: Seed of whatever is random.

    Returns:
        The plan.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        BudgetError: If the target is above what is there or out of reach.
        ValueError: If an argument is out of range.

    Example:

    ```python
    plan = tsp.plan(model, "spline", target_macs=0.5)
    plan.summary()
    small = plan.apply(model)
    ```
    """
    budget = Budget.of(
        sparsity=sparsity, target_macs=target_macs, target_params=target_params
    )
    criterion = criteria.get(criterion)
    if max_sparsity is None:
        max_sparsity = max(0.9, (1 + (sparsity or 0)) / 2)
    _check_bounds(scope, round_to, min_units, max_sparsity)
    graph = ChannelGraph(model)
    before = cost_after(graph, graph.nothing_removed())
    if budget.measure == "macs":
        require_macs(before, model.name)
    limit = budget.limit(before) if budget.measure else 0
    criterion.prepare(graph, data=data, seed=seed)
    groups, barriers = _candidates(graph, criterion, layers)
    allocation = _Allocation(
        groups,
        [rank(criterion, group) for group in groups],
        scope,
        # The smallest number that must stay of each group.
        [
            max(min_units, math.ceil(g.num_units * (1 - max_sparsity) - 1e-9))
            for g in groups
        ],
        round_to,
    )
    if budget.measure is None:
        counts = allocation.by_share(float(budget.value))
    else:

        def cost_of(counts: np.ndarray) -> int:
            removed = allocation.removed(graph, counts)
            return int(getattr(cost_after(graph, removed), str(budget.measure)))

        counts = allocation.by_cost(cost_of, limit, budget, _reasons(barriers))
    removed = allocation.removed(graph, counts)
    if not removed.any():
        _warn_nothing(budget, groups, barriers)
    return PruningPlan(
        model=model.name,
        fingerprint=fingerprint(graph),
        criterion=criterion.name,
        criterion_config=criterion.get_config(),
        scope=scope,
        budget={budget.kind: budget.value},
        removed=graph.indices(removed),
        merges=_merges(graph, groups, allocation.rankings, counts),
        barriers=tuple(barriers),
        units=_units(graph, removed),
        before=before,
        after=cost_after(graph, removed),
    )


def _check_bounds(
    scope: str, round_to: int, min_units: int, max_sparsity: float
) -> None:
    if scope not in get_args(Scope):
        raise ValueError(
            f"`scope` must be one of {get_args(Scope)}. Received: {scope!r}"
        )
    if round_to < 1 or min_units < 1:
        raise ValueError(
            "`round_to` and `min_units` must be at least 1. Received: "
            f"round_to={round_to}, min_units={min_units}"
        )
    if not 0 <= max_sparsity < 1:
        raise ValueError(
            "`max_sparsity` must be at least 0 and less than 1. Received: "
            f"max_sparsity={max_sparsity}"
        )


def _candidates(
    graph: ChannelGraph, criterion: Criterion, layers: Selector
) -> tuple[list[Group], list[Barrier]]:
    """Find the groups to rank, and say why the others are not."""
    chosen = selected(graph, layers)
    barriers = list(graph.barriers)
    groups = []
    for group in graph.groups:
        makers = [member.path for member in group.producers]
        reason = criterion.reason_against(group)
        if not chosen.issuperset(makers):
            reason = "`layers` leaves them out"
        if reason is None:
            groups.append(group)
        else:
            barriers += [Barrier(path, group.num_units, reason) for path in makers]
    return groups, barriers


class _Allocation:
    """Turns rankings of groups into numbers of units to remove.

    All units stand in one row, by their place among those that they are ranked
    with; a budget is a point in that row, and everything before it goes.
    """

    def __init__(
        self,
        groups: list[Group],
        rankings: list[Ranking],
        scope: Scope,
        floors: list[int],
        round_to: int,
    ) -> None:
        self.groups = groups
        self.rankings = rankings
        self.sizes = np.array([group.num_units for group in groups], int)
        self.floors = np.array(floors, int)
        self.round_to = round_to
        self.pools = [self._pool(group, scope) for group in groups]
        # For each pool, the owner group of each unit, in the order of going.
        self.rows: dict[Any, np.ndarray] = {}
        for pool in dict.fromkeys(self.pools):
            mine = [i for i, p in enumerate(self.pools) if p == pool]
            owner = np.repeat(mine, self.sizes[mine])
            place = np.concatenate([np.arange(self.sizes[i]) for i in mine])
            keys = np.concatenate([rankings[i].keys for i in mine])
            self.rows[pool] = owner[np.lexsort((place, owner, keys))]

    def _pool(self, group: Group, scope: Scope) -> Any:
        if scope == "global":
            return "all"
        if scope == "layer":
            return group.name
        return tuple(sorted((m.role, m.name, m.positions.shape) for m in group.members))

    def removed(self, graph: ChannelGraph, counts: np.ndarray) -> np.ndarray:
        """Mark the first `counts` units of each group as removed."""
        removed = graph.nothing_removed()
        for group, ranking, count in zip(
            self.groups, self.rankings, counts, strict=True
        ):
            removed[group.roots[ranking.order[:count]]] = True
        return removed

    def by_share(self, share: float) -> np.ndarray:
        """Remove the same share of every pool, exactly."""
        counts = np.zeros(len(self.groups), int)
        for row in self.rows.values():
            wanted = math.floor(share * len(row) + 0.5)
            allowed = self._allowed(row)
            if wanted > len(allowed):
                raise BudgetError(
                    "So many units cannot go: `min_units` and `max_sparsity` keep "
                    f"{len(row) - len(allowed)} of {len(row)}. Ask for less, or "
                    f"loosen them. Received: sparsity={share}"
                )
            counts += np.bincount(allowed[:wanted], minlength=len(counts))
        return self._rounded(counts)

    def by_cost(
        self,
        cost_of: Callable[[np.ndarray], int],
        limit: int,
        budget: Budget,
        why_not: str,
    ) -> np.ndarray:
        """Remove the fewest units that bring the cost down to a limit."""
        row = self._one_row()

        def counts(length: int) -> np.ndarray:
            return self._rounded(np.bincount(row[:length], minlength=len(self.groups)))

        low, high = 0, len(row)
        if cost_of(counts(0)) <= limit:
            return counts(0)
        least = cost_of(counts(high))
        if least > limit:
            raise BudgetError(
                f"The target is out of reach: with all units removed that may go, "
                f"{least:,} {budget.measure} remain, and {limit:,} are asked for. Ask "
                "for less, or loosen `min_units`, `max_sparsity` and `layers`. Units "
                f"that may not go at all: {why_not}. Received: "
                f"{budget.kind}={budget.value}"
            )
        while high - low > 1:
            middle = (low + high) // 2
            if cost_of(counts(middle)) > limit:
                low = middle
            else:
                high = middle
        return self._given_back(counts(high), row[:high], cost_of, limit)

    def _given_back(
        self,
        counts: np.ndarray,
        row: np.ndarray,
        cost_of: Callable[[np.ndarray], int],
        limit: int,
    ) -> np.ndarray:
        """Give units back that the last removal, a costly one, made room for."""
        for owner in dict.fromkeys(row[::-1].tolist()):
            while counts[owner]:
                fewer = counts.copy()
                fewer[owner] = max(0, fewer[owner] - self.round_to)
                if cost_of(fewer) > limit:
                    break
                counts = fewer
        return counts

    def _one_row(self) -> np.ndarray:
        """Merge the pools' rows, each unit at its relative place."""
        rows = [self._allowed(row) for row in self.rows.values()]
        if not rows:
            return np.zeros(0, int)
        full = [len(row) for row in self.rows.values()]
        place = np.concatenate(
            [(np.arange(len(r)) + 0.5) / n for r, n in zip(rows, full, strict=True)]
        )
        joined: np.ndarray = np.concatenate(rows)
        return joined[np.argsort(place, kind="stable")]

    def _allowed(self, row: np.ndarray) -> np.ndarray:
        """Leave out of a row the last units of each group, which must stay."""
        seen = np.zeros(len(self.groups), int)
        allowed = np.zeros(len(row), bool)
        most = self.sizes - np.minimum(self.floors, self.sizes)
        for owner in np.unique(row):
            at = np.flatnonzero(row == owner)
            allowed[at[: most[owner]]] = True
            seen[owner] = len(at)
        return row[allowed]

    def _rounded(self, counts: np.ndarray) -> np.ndarray:
        kept = -(-(self.sizes - counts) // self.round_to) * self.round_to
        return np.asarray(np.maximum(self.sizes - kept, 0))


def _merges(
    graph: ChannelGraph,
    groups: list[Group],
    rankings: list[Ranking],
    counts: np.ndarray,
) -> dict[str, tuple[tuple[int, int, float], ...]]:
    """List, in the order of removal, whose twin takes over with which scale."""
    found = {}
    for group, ranking, count in zip(groups, rankings, counts, strict=True):
        if not count or not graph.path_of(group).mergeable:
            continue
        maker = group.producers[0].positions
        if maker.shape[1] != 1:
            continue
        found[group.producers[0].path] = tuple(
            (int(maker[unit, 0]), int(maker[twin, 0]), float(scale))
            for unit, twin, scale in zip(
                ranking.order[:count],
                ranking.twins[:count],
                ranking.scales[:count],
                strict=True,
            )
            if twin >= 0 and scale > 0
        )
    return {path: pairs for path, pairs in found.items() if pairs}


def _units(graph: ChannelGraph, removed: np.ndarray) -> dict[str, tuple[int, int]]:
    """Count the units of each layer before and after."""
    gone = graph.indices(removed)
    return {
        path: (size, size - len(gone.get(path, ())))
        for path, size in graph.unit_counts().items()
    }


def _reasons(barriers: list[Barrier]) -> str:
    return "; ".join(sorted({f"{b.layer}: {b.reason}" for b in barriers})) or "none"


def _warn_nothing(budget: Budget, groups: list[Group], barriers: list[Barrier]) -> None:
    if groups:
        why = f"the model meets {budget.kind}={budget.value} as it is"
    else:
        why = f"no units may be pruned: {_reasons(barriers)}"
    warnings.warn(
        f"Nothing is pruned, because {why}.", NothingPrunedWarning, stacklevel=3
    )
