"""`plan`: which units go, so that a budget is met."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune._checks import (
    COUNT,
    FRACTION,
    SEED,
    SELECTOR,
    Flag,
    Wanted,
    checked,
)
from tf_spline_prune.compat import Calibration, require_flavour
from tf_spline_prune.criteria import AnyCriterion
from tf_spline_prune.criteria._get import CRITERION
from tf_spline_prune.errors import (
    BudgetError,
    NothingPrunedWarning,
    SplinePruneWarning,
    warn,
)
from tf_spline_prune.graph import Barrier, ChannelGraph, Cost, Group
from tf_spline_prune.graph._cost import WeightDtype, cost_after, require_macs
from tf_spline_prune.graph._input_shapes import INPUT_SHAPES, InputShapes
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.graph._stacks import Stack
from tf_spline_prune.pruning._classes import Classes
from tf_spline_prune.pruning.planning._allocation import (
    Allocation,
    RegionAllocation,
    solve,
)
from tf_spline_prune.pruning.planning._budget import Budget, Sparsity, Target
from tf_spline_prune.pruning.planning._joint import (
    JointAllocation,
    as_barriers,
    stacks_of,
    stays_of_its_class,
)
from tf_spline_prune.pruning.planning._latency import Latency
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan, fingerprint
from tf_spline_prune.pruning.planning._ranking import (
    Ranking,
    candidates,
    rankings_of,
    reasons,
    weighed,
)
from tf_spline_prune.pruning.planning._scopes import (
    SCOPE,
    Scope,
    fractions_of_groups,
    fractions_of_layers,
    pools_of,
    recorded,
    scope_for,
)

# What the arguments of `plan` must be; budgets are read by `Budget.of`.
SETTINGS: dict[str, Wanted] = {
    "criterion": CRITERION,
    "scope": SCOPE,
    "layers": SELECTOR,
    "round_to": COUNT,
    "min_units": COUNT,
    "max_sparsity": [FRACTION, None],
    "approximate": Flag(),
    "input_shapes": INPUT_SHAPES,
    "seed": SEED,
}


@dataclass(frozen=True)
class Origin:
    """What there was before the first of several decisions.

    Attributes:
        units: The number of units by the name of each group that may be pruned.
        left: How many of them one decision for the whole budget leaves.
        pools: The pools by the name of the group.
        scope: The scope, as a plan records it.
    """

    units: Mapping[str, int]
    left: Mapping[str, int]
    pools: Mapping[str, Hashable]
    scope: Any


@checked(**SETTINGS)
def plan(
    model: Any,
    criterion: AnyCriterion = "auto",
    *,
    sparsity: Sparsity | None = None,
    target_macs: Target | None = None,
    target_params: Target | None = None,
    target_bytes: Target | None = None,
    weight_dtype: WeightDtype | None = None,
    target_latency: Target | None = None,
    latency: Latency | None = None,
    scope: Scope = "auto",
    layers: Selector = None,
    data: Any = None,
    round_to: int = 1,
    min_units: int = 1,
    max_sparsity: float | None = None,
    approximate: bool = False,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
) -> PruningPlan:
    """Decide which units of a model to prune; the model is not changed.

    Give exactly one budget. Units are ranked by the criterion, together or layer by
    layer as `scope` says, and pruned from the bottom until the budget is met: with
    `sparsity` exactly that many units; with a target the fewest that bring the cost to
    it. Unprunable units are listed with the reason.

    Args:
        model: A built model of either flavour.
        criterion: How units are ranked: `"reconstruction"`, `"spline"`, `"magnitude"`,
            `"batchnorm_scale"`, `"fpgm"`, `"lamp"`, `"taylor"`, `"fisher"`,
            `"activation"`, `"random"`; an instance of `criteria.Criterion`; or a
            function `(graph, group) -> array of shape (units,)`, higher means keep.
            Defaults to `"auto"`: `"reconstruction"` with `data`, `"spline"` without.
        sparsity: Fraction of the prunable units to prune, in [0, 1); or a dictionary
            from layer names or regular expressions to fractions, or a function from a
            layer to its fraction or `None`: then each group loses its own fraction, and
            those of layers without one are kept. One layer of a group speaks for all
            layers coupled with it. Defaults to `None`.
        target_macs: Multiply-accumulates to keep at most: a fraction of the model's
            (float, at most 1.0), a number (int), or a text as in the shell: `"50%"`. So
            are the other targets, and `sparsity`. Defaults to `None`.
        target_params: Parameters to keep at most, likewise. Defaults to `None`.
        target_bytes: Bytes of the weights to keep at most, likewise. Defaults to
            `None`.
        weight_dtype: Dtype in which `target_bytes` counts the weights: `"float32"`,
            `"float16"`, or `"int8"` (1 byte per entry of a kernel, 4 per entry of a
            bias or other vector). Defaults to `None`, as the model holds them.
        target_latency: Latency to keep at most: a fraction of the model's (float, at
            most 1.0) or microseconds (int). Defaults to `None`.
        latency: Where latencies come from. A function `latency(model)` returns
            microseconds. A table gives for each layer a sequence of microseconds by the
            number of units kept, from 0 to all; the latency is the sum over its layers.
            Defaults to `None`, which exports through LiteRT and measures up to 12
            candidates on this machine, each in turns with the model (medians).
        scope: What is ranked together: `"global"` means everything, `"layer"` each
            group by itself (every group loses the same fraction), `"isomorphic"` groups
            of the same structure. With `"uniform"` every block of a stack loses the
            same number of units, so that a class whose config has one size for all of
            them is kept: a KerasHub backbone, or the task around it; what that config
            cannot say stays. A dictionary from names to lists of layers or regular
            expressions, or a function from a layer to something hashable or `None`,
            makes pools of your own; groups in none are ranked by themselves. With
            `"regions"` the criterion ranks within groups, and how many units each loses
            is chosen so that an upper bound on the number of linear regions stays
            large: see `RegionBound`; channels count as units there. Latencies are
            weighed by multiply-accumulates. Defaults to `"auto"`: `"uniform"` for a
            model of such a class, as far as that suffices; else `"layer"` for
            `"reconstruction"`, `"global"` for others.
        layers: Which layers may be pruned: a name, a regular expression, a list of
            these, or a function of the layer. A group is pruned only if all layers that
            produce its units may be. Defaults to `None`, which means all.
        data: Inputs for criteria that need any, shape `(n, *input shape)`; with labels,
            `(inputs, labels)`, for criteria that differentiate the loss; with sample
            weights of shape `(n, positions)` behind, positions of weight 0, such as
            padding, are left out. Defaults to `None`.
        round_to: Keep a multiple of this many units of each group. Defaults to `1`.
        min_units: Keep at least this many units of each group; one that has no more is
            kept whole, and listed. Defaults to `1`.
        max_sparsity: Prune at most this fraction of a group, in [0, 1), so that no
            scope empties a layer. Defaults to `None`: 0.9, or more if `sparsity` asks
            for more.
        approximate: Whether units under a LayerNormalization or its like may be pruned;
            its statistics change then, and the plan says so. Defaults to `False`.
        input_shapes: For names of inputs the shapes, without the batch axis, at which a
            model of open sizes is read and counted: `{"token_ids": (128,)}`. Defaults
            to `None`: those of `data`; without data any, and where a layer can only be
            read at a known size, 16. The plan says which.
        seed: Seed of everything random. Defaults to `0`.

    Returns:
        The plan.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights, or if
            multiply-accumulates decide and those of a layer cannot be counted.
        BudgetError: If the target is above what is there or out of reach, there is
            nothing of it to save, or `sparsity` names an unprunable layer.
        ExportError: If LiteRT, which measures, cannot take the model.
        ValueError: If an argument is out of range, a name means nothing, or layers with
            coupled units are given different fractions or pools.

    Example:

    ```python
    plan = tsp.plan(model, "spline", target_macs=0.5)
    plan.summary()
    small = plan.apply(model)
    ```
    """
    require_flavour(model)
    asked = Settings.of(
        criterion=criterion,
        sparsity=sparsity,
        target_macs=target_macs,
        target_params=target_params,
        target_bytes=target_bytes,
        weight_dtype=weight_dtype,
        target_latency=target_latency,
        latency=latency,
        scope=scope,
        layers=layers,
        data=data,
        round_to=round_to,
        min_units=min_units,
        max_sparsity=max_sparsity,
        approximate=approximate,
        seed=seed,
    )
    graph, data = read_with_data(model, data, approximate, input_shapes)
    return decide(graph, replace(asked, data=data))[0]


def read_with_data(
    model: Any,
    data: Any,
    approximate: bool = False,
    input_shapes: InputShapes | None = None,
) -> tuple[ChannelGraph, Any]:
    """Read a model, at the sizes of the data if it has none of its own.

    Args:
        model: As in `plan`.
        data: As in `plan`.
        approximate: As in `plan`.
        input_shapes: As in `plan`.

    Returns:
        The model's channel graph, and the data in memory, a `Calibration`; `None` if
        there are none.
    """
    graph = ChannelGraph(model, approximate=approximate, input_shapes=input_shapes)
    if data is None:
        return graph, None
    inputs = graph.source.inputs
    if input_shapes is None and any(None in entry.shape[1:] for entry in inputs):
        data = Calibration.of(data, graph.source)
        shapes = {
            entry.name: array.shape[1:]
            for entry, array in zip(inputs, data.inputs, strict=True)
        }
        if graph.input_shapes not in (None, shapes):
            graph = ChannelGraph(model, approximate=approximate, input_shapes=shapes)
    return graph, Calibration.of(data, graph.graph)


@dataclass(frozen=True)
class Settings:
    """What `plan` is asked about a model; the attributes are those of `plan`."""

    criterion: AnyCriterion
    budget: Budget
    scope: Scope = "auto"
    layers: Selector = None
    data: Any = None
    round_to: int = 1
    min_units: int = 1
    max_sparsity: float | None = None
    approximate: bool = False
    seed: int = 0

    @classmethod
    def of(cls, **asked: Any) -> "Settings":
        """Take in the arguments of `plan`, all but the model.

        Raises:
            ValueError: If there is not one budget, or it is out of range.
        """
        names = {field.name for field in fields(cls)} & set(asked)
        others = {name: asked.pop(name) for name in names}
        budget = Budget.of(**asked)
        settings = cls(budget=budget, **others)
        if budget.by_layer and settings.scope not in ("auto", "global", "layer"):
            raise ValueError(
                "With one `sparsity` per layer, `scope` has nothing to decide. Leave "
                f"it out, or give one number. Received: scope={settings.scope!r}"
            )
        return settings


def decide(
    graph: ChannelGraph,
    asked: Settings,
    origin: Origin | None = None,
    gone: np.ndarray | None = None,
) -> tuple[PruningPlan, Origin]:
    """Decide as `plan` does, perhaps after earlier decisions; give what there was too.

    Args:
        graph: The model's channel graph, as approximate as asked.
        asked: What the user asks for.
        origin: What there was before the first of several decisions: `sparsity`,
            `max_sparsity` and the pools of `scope` are of that. Only the first says
            it where nothing goes.
        gone: Array of shape `(labels,)`, bool, indexed by unit: those that masks have
            removed already, which rank below all others.

    Returns:
        The plan, and what there was before the first decision.
    """
    if (
        asked.scope == "auto"
        and not asked.budget.by_layer
        and stays_of_its_class(graph)
    ):
        try:
            return decide(graph, replace(asked, scope="uniform"), origin, gone)
        except BudgetError as error:
            kind = type(graph.model).__name__
            warn(
                f"The result will be a plain model and no {kind}, for the sizes that "
                "the config of this class says do not suffice. With "
                f'`scope="uniform"` that is an error: {error}',
                SplinePruneWarning,
            )
    criterion = criteria.get(asked.criterion, asked.data is not None)
    asked = replace(asked, scope=scope_for(criterion, asked.scope))
    by_layer = None
    if asked.budget.by_layer:
        by_layer = fractions_of_layers(graph, asked.budget.value)
    before = cost_after(graph, graph.nothing_removed())
    _require_counted(before, graph, asked, criterion)
    _look_at(graph, asked, criterion)
    field, barriers = _candidates(graph, asked, criterion, origin)
    fractions = None
    if by_layer is not None:
        sparsity = asked.budget.value
        fractions = fractions_of_groups(
            graph, field.groups, barriers, by_layer, sparsity
        )
    rankings = rankings_of(criterion, field.groups, gone)
    allocation = _allocation(graph, asked, criterion, field, rankings, by_layer, origin)
    counts, achieved = solve(asked.budget, allocation, graph, barriers, fractions)
    budget = asked.budget
    value = recorded(by_layer, budget.value) if by_layer else budget.value
    if gone is None:
        allocation.rankings = _exchanged(criterion, allocation, counts)
    removed = allocation.removed(graph, counts)
    if not removed.any() and origin is None:
        _warn_nothing(budget, value, field.groups, barriers, asked.round_to)
    decision = PruningPlan(
        model=graph.model.name,
        fingerprint=fingerprint(graph),
        criterion=criterion.name,
        criterion_config=criterion.get_config(),
        scope=field.scope,
        budget={budget.kind: value, **budget.details},
        removed=graph.indices(removed),
        merges=_merges(graph, field.groups, allocation.rankings, counts),
        barriers=tuple(barriers),
        approximate=_approximate(field.groups, counts),
        units=_units(graph, removed),
        before=before,
        after=cost_after(graph, removed),
        achieved=achieved,
        input_shapes=graph.input_shapes,
        plain=Classes(graph, removed).reasons,
    )
    return decision, origin or field.origin(counts)


def _exchanged(
    criterion: criteria.Criterion, allocation: Allocation, counts: np.ndarray
) -> list[Ranking]:
    """Put the units that go together with the least loss first, group by group."""
    found = []
    for group, ranking, count in zip(
        allocation.groups, allocation.rankings, counts, strict=True
    ):
        first = ranking.order[:count]
        gone = criterion.exchanged(group, first)
        if gone is not first:
            rest = np.setdiff1d(ranking.order, gone)
            ranking = replace(ranking, order=np.concatenate([gone, rest]))
        found.append(ranking)
    return found


@dataclass(frozen=True)
class _Field:
    """What takes part in a decision: one item per group in each list.

    Attributes:
        groups: The groups that may be pruned.
        sizes: How many units they had before the first decision.
        pools: What they are ranked together with.
        scope: The scope, as a plan records it.
        stacks: Which of them lose their units together.
    """

    groups: list[Group]
    sizes: list[int]
    pools: list[Hashable]
    scope: Any
    stacks: list[Stack]

    @property
    def names(self) -> list[str]:
        return [group.name for group in self.groups]

    def origin(self, counts: np.ndarray) -> Origin:
        """Record what there was, where so many units of each group go."""
        left = [n - int(count) for n, count in zip(self.sizes, counts, strict=True)]
        return Origin(
            dict(zip(self.names, self.sizes, strict=True)),
            dict(zip(self.names, left, strict=True)),
            dict(zip(self.names, self.pools, strict=True)),
            self.scope,
        )


def _require_counted(
    before: Cost, graph: ChannelGraph, asked: Settings, criterion: criteria.Criterion
) -> None:
    """Raise where multiply-accumulates decide and some are not counted."""
    kind = asked.budget.kind
    weighs = asked.scope == "regions" or criterion.per_saving
    if kind == "target_macs" or (kind == "target_latency" and weighs):
        require_macs(before, graph.model.name)


def _look_at(
    graph: ChannelGraph, asked: Settings, criterion: criteria.Criterion
) -> None:
    """Let the criterion look at the model, and at the data if there are any."""
    data = asked.data
    if data is not None:
        data = Calibration.of(data, graph.graph)
    criterion.prepare(graph, data=data, seed=asked.seed)


def _candidates(
    graph: ChannelGraph,
    asked: Settings,
    criterion: criteria.Criterion,
    origin: Origin | None,
) -> tuple[_Field, list[Barrier]]:
    """Find the groups that may be pruned, and why others may not."""
    # A group that earlier rounds have brought to its smallest size still counts.
    least = asked.min_units if origin is None else 0
    groups, barriers = candidates(graph, criterion, asked.layers, least)
    if origin is not None:
        groups = [group for group in groups if group.name in origin.units]
    stacks, unsaid = stacks_of(graph, groups, asked.scope == "uniform")
    barriers += as_barriers(groups, unsaid)
    groups = [group for group in groups if group.name not in unsaid]
    if origin is None:
        sizes = [group.num_units for group in groups]
        pools, scope = pools_of(graph, groups, asked.scope)
    else:
        sizes = [origin.units[group.name] for group in groups]
        pools, scope = [origin.pools[group.name] for group in groups], origin.scope
    return _Field(groups, sizes, pools, scope, stacks), barriers


def _allocation(
    graph: ChannelGraph,
    asked: Settings,
    criterion: criteria.Criterion,
    field: _Field,
    rankings: list[Ranking],
    by_layer: Mapping[str, float] | None,
    origin: Origin | None,
) -> Allocation:
    """Weigh the units, and say how few may stay of each group."""
    budget, groups = asked.budget, field.groups
    if criterion.per_saving and budget.measure:
        rankings = weighed(graph, groups, rankings, budget)
    most = asked.max_sparsity
    if most is None:
        wanted = [*(by_layer or {}).values(), budget.fraction]
        most = max(0.9, (1 + max(wanted)) / 2)
    floors = [
        max(asked.min_units, math.ceil(size * (1 - most) - 1e-9))
        for size in field.sizes
    ]
    alone = origin is not None and len({*origin.pools.values()}) == len(origin.pools)
    if origin is not None and alone and budget.measure:
        # Each layer for itself: none goes on beyond where one decision ends.
        names = zip(floors, field.names, strict=True)
        floors = [max(floor, origin.left[name]) for floor, name in names]
    if asked.scope == "regions":
        return RegionAllocation(
            graph, groups, rankings, floors, asked.round_to, field.sizes
        )
    if all(len(stack.groups) == 1 for stack in field.stacks):
        if sum(stack.levels for stack in field.stacks) == sum(
            g.num_units for g in groups
        ):
            return Allocation(
                groups, rankings, field.pools, floors, asked.round_to, field.sizes
            )
    return JointAllocation(
        groups, rankings, field.stacks, field.pools, floors, asked.round_to, field.sizes
    )


def _merges(
    graph: ChannelGraph,
    groups: list[Group],
    rankings: Sequence[Ranking],
    counts: np.ndarray,
) -> dict[str, tuple[tuple[int, int, float], ...]]:
    """List, in the order of removal, whose twin takes over with which scale."""
    found: dict[str, tuple[tuple[int, int, float], ...]] = {}
    for group, ranking, count in zip(groups, rankings, counts, strict=True):
        if not count or not graph.path_of(group).mergeable:
            continue
        producer = group.producers[0].positions
        if producer.shape[1] != 1:
            continue
        path = group.producers[0].path  # several groups may be of one layer
        found[path] = found.get(path, ()) + tuple(
            (int(producer[unit, 0]), int(producer[twin, 0]), float(scale))
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
    """Return the names of the normalisations whose statistics change."""
    touched = [g.approximate for g, count in zip(groups, counts, strict=True) if count]
    return tuple(dict.fromkeys(name for names in touched for name in names))


def _units(graph: ChannelGraph, removed: np.ndarray) -> dict[str, tuple[int, int]]:
    """Count the units of each layer before and after."""
    gone = graph.indices(removed)
    return {
        path: (size, size - len(gone.get(path, ())))
        for path, size in graph.unit_counts().items()
    }


def _warn_nothing(
    budget: Budget,
    asked: Any,
    groups: list[Group],
    barriers: list[Barrier],
    round_to: int,
) -> None:
    if not groups:
        why = f"no units may be pruned: {reasons(barriers)}"
    elif budget.measure is None and budget.value:
        why = (
            f"sparsity={asked} of groups of {[g.num_units for g in groups]} "
            f"units, kept in multiples of round_to={round_to}, is not one unit"
        )
    else:
        why = f"the model meets {budget.kind}={asked} as it is"
    warn(f"Nothing is pruned, because {why}.", NothingPrunedWarning)
