"""`plan`: which units go, so that a budget is met."""

import functools
import math
import warnings
from typing import Any, get_args

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune.compat import Calibration, Progress, require_flavour
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.errors import NothingPrunedWarning
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph.cost_of_counts import CostOfCounts
from tf_spline_prune.graph.costing import cost_after, require_macs
from tf_spline_prune.pruning.allocation import Allocation, Scope
from tf_spline_prune.pruning.budget import Budget
from tf_spline_prune.pruning.pruning_plan import PruningPlan, fingerprint
from tf_spline_prune.pruning.ranking import Ranking, rank
from tf_spline_prune.pruning.selection import Selector, selected


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
    approximate: bool = False,
    seed: int = 0,
) -> PruningPlan:
    """Decide which units of a model to remove; the model is not changed.

    Give exactly one budget. Units are ranked by the criterion, together or layer
    by layer as `scope` says, and removed from the bottom until the budget is met:
    with `sparsity` exactly that many units go; with a target the fewest that
    bring the cost to it. Units that must stay are listed with the reason.

    Args:
        model: A built model of either flavour.
        criterion: A name: `"spline"`, `"magnitude"`, `"batchnorm_scale"`, `"fpgm"`,
            `"lamp"`, `"taylor"`, `"fisher"`, `"activation"` or `"random"`; an
            instance of `criteria.Criterion`; or a function `(graph, group) -> array
            of shape (units,)`, higher means keep.
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
        data: Inputs for criteria that read any, shape `(n, *input shape)`; with
            labels, `(inputs, labels)`, for criteria that differentiate the loss.
        round_to: Keep a multiple of this many units of each group.
        min_units: Keep at least this many units of each group.
        max_sparsity: Remove at most this share of a group, in [0, 1). Defaults
            to 0.9, or more where `sparsity` asks for more.
        approximate: Whether units may go although a LayerNormalization or its
            like runs over them; its statistics change then, and the plan says so.
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
    require_flavour(model)
    budget = Budget.of(
        sparsity=sparsity, target_macs=target_macs, target_params=target_params
    )
    criterion = criteria.get(criterion)
    if max_sparsity is None:
        max_sparsity = max(0.9, (1 + (sparsity or 0)) / 2)
    _check_bounds(scope, round_to, min_units, max_sparsity)
    graph = ChannelGraph(model, approximate=approximate)
    before = cost_after(graph, graph.nothing_removed())
    if budget.measure == "macs":
        require_macs(before, model.name)
    limit = budget.limit(before) if budget.measure else 0
    if data is not None:
        data = Calibration.of(data, graph.graph.inputs)
    criterion.prepare(graph, data=data, seed=seed)
    groups, barriers = _candidates(graph, criterion, layers)
    allocation = Allocation(
        groups,
        _rankings(criterion, groups),
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
        cost_of = functools.partial(CostOfCounts(graph, groups), budget.measure)
        counts = allocation.by_cost(cost_of, limit, budget, _reasons(barriers))
    removed = allocation.removed(graph, counts)
    if not removed.any():
        _warn_nothing(budget, groups, barriers, round_to)
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
        approximate=_approximate(groups, counts),
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
    for name, value in (("round_to", round_to), ("min_units", min_units)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"`{name}` must be an integer and at least 1. Received: {value!r}"
            )
    if not isinstance(max_sparsity, (int, float)) or not 0 <= max_sparsity < 1:
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
        makers = group.makers
        reason = criterion.reason_against(group)
        frozen = [name for name in makers if not graph.layer(name).trainable]
        if frozen and layers is None:
            reason = f"{frozen[0]} is frozen; name it in `layers` to prune it"
        if not chosen.issuperset(makers):
            reason = "`layers` leaves them out"
        if reason is None:
            groups.append(group)
        else:
            barriers += [Barrier(name, group.num_units, reason) for name in makers]
    return groups, barriers


def _rankings(criterion: Criterion, groups: list[Group]) -> list[Ranking]:
    progress = Progress(len(groups), "group")
    rankings = []
    for group in groups:
        rankings.append(rank(criterion, group))
        progress.step()
    return rankings


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


def _approximate(groups: list[Group], counts: np.ndarray) -> tuple[str, ...]:
    """Name the normalisations whose statistics change."""
    touched = [g.approximate for g, count in zip(groups, counts, strict=True) if count]
    return tuple(dict.fromkeys(name for names in touched for name in names))


def _units(graph: ChannelGraph, removed: np.ndarray) -> dict[str, tuple[int, int]]:
    """Count the units of each layer before and after."""
    gone = graph.indices(removed)
    return {
        path: (size, size - len(gone.get(path, ())))
        for path, size in graph.unit_counts().items()
    }


def _reasons(barriers: list[Barrier]) -> str:
    return "; ".join(sorted({f"{b.layer}: {b.reason}" for b in barriers})) or "none"


def _warn_nothing(
    budget: Budget, groups: list[Group], barriers: list[Barrier], round_to: int
) -> None:
    if not groups:
        why = f"no units may be pruned: {_reasons(barriers)}"
    elif budget.measure is None and budget.value:
        why = (
            f"sparsity={budget.value} of groups of {[g.num_units for g in groups]} "
            f"units, kept in multiples of round_to={round_to}, is not one unit"
        )
    else:
        why = f"the model meets {budget.kind}={budget.value} as it is"
    warnings.warn(
        f"Nothing is pruned, because {why}.", NothingPrunedWarning, stacklevel=3
    )
