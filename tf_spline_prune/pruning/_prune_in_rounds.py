"""`prune_in_rounds`: towards a budget step by step, with training in between."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tf_spline_prune._checks import (
    Flag,
    Function,
    Integer,
    ListOf,
    OneOf,
    Real,
    check,
    checked,
)
from tf_spline_prune.compat import Calibration, require_flavour, trace
from tf_spline_prune.criteria import AnyCriterion
from tf_spline_prune.criteria._get import CRITERION
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._cost import cost_after, require_macs
from tf_spline_prune.pruning._prune import (
    carried_out,
    recover_weights,
    recovery_steps,
)
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.checks._measuring import TRAIN, Train
from tf_spline_prune.pruning.planning._budget import Budget
from tf_spline_prune.pruning.planning._compose import compose
from tf_spline_prune.pruning.planning._plan import SETTINGS, Origin, Settings, decide
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._data_free import check_statistics

Schedule = Literal["linear"] | Callable[[float], float] | Sequence[float]

_KINDS = ("sparsity", "target_macs", "target_params", "target_bytes")
# What goes on to `plan` as it is; data and criterion are arguments of their own.
_PASSED = {*SETTINGS, "weight_dtype", "latency"} - {"criterion"}


@checked(
    criterion=CRITERION,
    rounds=Integer(1, 10_000),
    schedule=[
        OneOf("linear"),
        ListOf(Real(0, 1, closed="right"), "fractions of the way, rising to 1"),
        Function("a function of the fraction of rounds that are done"),
    ],
    train=[TRAIN, None],
    verify=Flag(),
)
def prune_in_rounds(
    model: Any,
    criterion: AnyCriterion = "auto",
    *,
    rounds: int = 3,
    schedule: Schedule = "linear",
    train: Train | None = None,
    recover: None | str | Sequence[str] = "auto",
    data: Any = None,
    verify: bool = True,
    **settings: Any,
) -> tuple[Any, PruningPlan]:
    """Prune a model in rounds, with training in between.

    Each round ranks anew on the model as it is by then, towards a target that the
    schedule sets between the original and the budget. All targets are fractions of the
    original model, not of the last round's, so that the rounds end where one would:
    what the scope fixes, such as the number of units of each layer, is the same.

    Args:
        model: A built model of either flavour. It is not changed.
        criterion: How units are ranked: a name such as `"spline"` or `"magnitude"`, an
            instance of `criteria.Criterion`, or a function `(graph, group) -> array of
            shape (units,)`, higher means keep. Defaults to `"auto"`: `"reconstruction"`
            with `data`, `"spline"` without.
        rounds: Number of rounds. Defaults to `3`.
        schedule: How far each round goes, as fractions of the whole way that rise to 1:
            `"linear"` makes equal steps; a function of the fraction of rounds that are
            done; or one number per round, such as `(0.5, 0.8, 1.0)`. Defaults to
            `"linear"`.
        train: Takes the small, uncompiled model after each round but the last and
            trains it in place; it compiles it itself. Training the result is left to
            you. Defaults to `None`.
        recover: How each round recovers: `"merge"`, `"data_free"`, `"least_squares"`,
            `"batchnorm"`, a list of these, or `None`. Without `train`, refitting goes
            back to what the original model computes; with it, to what the model
            trained last computes. Defaults to `"auto"`, which merges, and refits if
            there are data.
        data: Inputs for recovery and for criteria that need any: an array of shape `(n,
            *input shape)`, a list or dict of arrays, a tuple of inputs and labels, or
            batches of these. Defaults to `None`.
        verify: Whether each round's result is compared with the round's model in which
            every consumer's weights for the pruned units are zero. Defaults to `True`.
        **settings: As in `plan`: the budget, one of `sparsity` (one number),
            `target_macs`, `target_params` and `target_bytes`, and the rest, such as
            `layers` and `scope`. All of it holds for the rounds together: as many
            units of each pool go as in one round.

    Returns:
        The small model, and one plan for the original model whose removals are those
        of all rounds: `plan.apply(model)` gives the same architecture with the
        original's weights. It keeps the merges only if nothing was trained in
        between, for their scales belong to the weights of their round.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights, be it
            after a round of training.
        BudgetError: If the target is above what is there or out of reach.
        VerificationError: If a round's result does not compute what it should.
        TypeError: If `train` is no function, or `plan` has no such setting.
        ValueError: If an argument is out of range.

    Example:

    ```python
    def train(small):
        small.compile("adam", loss)
        small.fit(x_train, y_train, epochs=10)

    small, plan = tsp.prune_in_rounds(model, target_macs=0.3, rounds=3, train=train)
    rewound = plan.apply(model, weights=early)
    ```

    Source: Han et al., "Learning both weights and connections for efficient neural
    networks", NeurIPS 2015, section 3 (iterative pruning).
    """
    require_flavour(model)
    steps = recovery_steps(recover, "inherit", data is not None)
    fractions = _fractions(schedule, rounds)
    budget = _budget(settings)
    settings = _checked(settings)
    approximate = bool(settings.get("approximate", False))
    original = ChannelGraph(model, approximate=approximate)
    if "data_free" in steps:
        check_statistics(original.graph)
    if data is not None:
        data = Calibration.of(data, original.graph)
    way = _Way(original, budget)
    seed = settings.get("seed", 0)
    origin: Origin | None = None

    def decided(
        graph: ChannelGraph, target: float | int | None, number: int
    ) -> tuple[PruningPlan, Origin]:
        asked = Settings.of(
            criterion=criterion, data=data, **{**settings, budget.kind: target}
        )
        try:
            return decide(graph, asked, origin)
        except BudgetError as error:  # which knows of the round alone
            raise BudgetError(
                f"{str(error).rpartition(' Received: ')[0]} Received: {budget.kind}="
                f"{budget.value}, of which round {number} of {rounds} asks for "
                f"{budget.kind}={target}"
            ) from error

    if rounds > 1:  # where one round would end, and whether it can get there
        _, origin = decided(original, way.target(1.0, None), rounds)

    def one_round(
        graph: ChannelGraph, target: float | int | None, number: int
    ) -> tuple[Any, PruningPlan]:
        decision, _ = decided(graph, target, number)
        proven = verify and bool(decision.removed)
        kept = [step for step in steps if step == "merge"]
        found, _ = carried_out(graph, decision, None, kept, verify=proven)
        return found, decision

    def recovered(graph: ChannelGraph, found: Any, decision: PruningPlan) -> Any:
        removed = graph.removal(dict(decision.removed))
        if {"least_squares", "data_free"} & set(steps) and graph is original:
            found = build_pruned(graph, removed, {})  # what several rounds have left
        recover_weights(graph, trace(found), removed, data, steps, seed)
        return found

    small, total = one_round(original, way.target(fractions[0], None), 1)
    small = recovered(original, small, total)
    for number, fraction in enumerate(fractions[1:], 2):
        if train is not None:
            train(small)
        target = way.target(fraction, total)
        if target is not None:  # an earlier round may have come so far already
            base = ChannelGraph(small, approximate=approximate)
            found, decision = one_round(base, target, number)
            if not decision.removed:
                continue
            total = compose(total, decision)
            if train is None:
                small = recovered(original, found, total)
            else:
                small = recovered(base, found, decision)
    keeps_merges = train is None and "merge" in steps
    return small, dataclasses.replace(
        total,
        budget={budget.kind: budget.value, **budget.details},
        merges=total.merges if keeps_merges else {},
    )


class _Way:
    """The way from the original model to the budget."""

    def __init__(self, graph: ChannelGraph, budget: Budget) -> None:
        self.graph, self.budget = graph, budget
        if budget.measure is None:
            return
        if budget.measure == "macs":
            nothing = self.graph.nothing_removed()
            require_macs(cost_after(graph, nothing), graph.model.name)
        self.full = self._cost({})
        self.last = int(budget.limit(self.full))

    def _cost(self, removed: Mapping[str, list[int]]) -> int:
        """Return what is left of the budgeted cost."""
        mask = self.graph.removal(dict(removed))
        cost = cost_after(self.graph, mask, self.budget.weight_dtype)
        return int(getattr(cost, str(self.budget.measure)))

    def target(self, fraction: float, so_far: PruningPlan | None) -> float | int | None:
        """Return what a round asks of `plan`; `None` if there is nothing to do."""
        if self.budget.measure is None:
            return fraction * float(self.budget.value)
        limit = self.full - int(fraction * (self.full - self.last))
        done = so_far is not None and self._cost(so_far.removed) <= limit
        return None if done else limit


def _budget(settings: dict[str, Any]) -> Budget:
    """Take the budget out of the settings."""
    unknown = [
        kind for kind in settings if kind.startswith("target_") and kind not in _KINDS
    ]
    if unknown:
        raise ValueError(
            f"Rounds need a budget that can be approached step by step: one of "
            f"{_KINDS}. Received: {unknown}"
        )
    asked = {kind: settings.pop(kind, None) for kind in _KINDS}
    budget = Budget.of(weight_dtype=settings.get("weight_dtype"), **asked)
    if budget.by_layer:
        raise ValueError(
            "Rounds go towards one number; `sparsity` by layer is for `plan` and "
            f"`prune`. Received: sparsity={budget.value!r}"
        )
    return budget


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Check the settings that go on to `plan` as `plan` itself does."""
    if unknown := sorted(settings.keys() - _PASSED):
        raise TypeError(
            f"`prune_in_rounds` takes the arguments of `plan`: {sorted(_PASSED)}. "
            f"Received: {unknown}"
        )
    return {
        name: check(name, value, SETTINGS[name]) if name in SETTINGS else value
        for name, value in settings.items()
    }


def _fractions(schedule: Schedule, rounds: int) -> list[float]:
    """Return the fraction of the way that each round comes to."""
    done = [(number + 1) / rounds for number in range(rounds)]
    if isinstance(schedule, str):
        return done
    given = schedule
    try:
        given = list(map(schedule, done) if callable(schedule) else schedule)
        found = list(map(float, given))
    except (TypeError, ValueError):
        found = []
    rising = all(a < b for a, b in itertools.pairwise([0.0, *found]))
    if len(found) != rounds or not rising or abs(found[-1] - 1) > 1e-9:
        raise ValueError(
            "`schedule` must give one fraction of the way per round, rising from above "
            f"0 to 1. Expected: {rounds} numbers. Received: {given!r}"
        )
    return [*found[:-1], 1.0]
