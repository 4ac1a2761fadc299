"""`compose`: two plans, one made after the other, as one."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_spline_prune._checks import checked
from tf_spline_prune.errors import PlanError
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan


@checked(first=PLAN, second=PLAN)
def compose(first: PruningPlan, second: PruningPlan) -> PruningPlan:
    """Compose two plans, the second made for the result of the first.

    Applying the result to the original model gives what applying the one and then
    the other gives. Only the plans are read; no model is needed.

    Args:
        first: A plan for the original model.
        second: A plan for `first.apply(model)`, trained on or not.

    Returns:
        One plan in the coordinates of the original model. Its barriers are those of
        the first plan. Its merges are those of both; a scale that was found on
        weights trained in between does not fit the original's weights. Its budget
        lists what the two asked for: a share of the first result's cost as an
        absolute number, two sparsities as one. What it achieved is known where the
        two count the same, and the second goes on where the first ended.

    Raises:
        PlanError: If the second plan was not made for the first one's result.

    Example:

    ```python
    first = tsp.plan(model, sparsity=0.2)
    second = tsp.plan(first.apply(model), sparsity=0.2)
    plan = tsp.compose(first, second)     # 0.2, and 0.2 of the rest
    ```
    """
    _check_chain(first, second)
    kept = {
        name: _kept(size, first.removed.get(name, ()))
        for name, (size, _) in first.units.items()
    }
    removed = {name: list(units) for name, units in first.removed.items()}
    for name, units in second.removed.items():
        mapped = [kept[name][unit] for unit in units]
        removed[name] = sorted([*removed.get(name, []), *mapped])
    merges = {path: tuple(triples) for path, triples in first.merges.items()}
    for path, triples in second.merges.items():
        at = kept[path]
        later = tuple((at[unit], at[twin], scale) for unit, twin, scale in triples)
        merges[path] = merges.get(path, ()) + later
    return PruningPlan(
        model=first.model,
        fingerprint=first.fingerprint,
        criterion=_both(first.criterion, second.criterion),
        criterion_config=_configs(first, second),
        scope=_both(first.scope, second.scope),
        budget=_budget(first, second),
        removed={name: removed[name] for name in first.units if name in removed},
        merges=merges,
        barriers=first.barriers,
        approximate=tuple(dict.fromkeys((*first.approximate, *second.approximate))),
        units={
            name: (size, second.units[name][1])
            for name, (size, _) in first.units.items()
        },
        before=first.before,
        after=second.after,
        achieved=_achieved(first, second),
    )


def _check_chain(first: PruningPlan, second: PruningPlan) -> None:
    made = {name: after for name, (_, after) in first.units.items()}
    taken = {name: before for name, (before, _) in second.units.items()}
    if made != taken or first.after.params != second.before.params:
        differing = [
            name for name in {**made, **taken} if made.get(name) != taken.get(name)
        ]
        raise PlanError(
            "The second plan must be made for the model that the first one gives. "
            f"Received: a first plan that leaves {first.after.params:,} parameters "
            f"and a second one for {second.before.params:,}; layers whose numbers of "
            f"units differ: {differing[:5]}"
        )


def _kept(size: int, removed: Sequence[int]) -> list[int]:
    gone = set(removed)
    return [unit for unit in range(size) if unit not in gone]


def _both(first: Any, second: Any) -> Any:
    return first if first == second else f"{first}, then {second}"


def _configs(first: PruningPlan, second: PruningPlan) -> Mapping[str, Any]:
    one, other = dict(first.criterion_config), dict(second.criterion_config)
    if (first.criterion, one) == (second.criterion, other):
        return one
    return {"first": one, "then": other}


def _budget(first: PruningPlan, second: PruningPlan) -> dict[str, float | int]:
    budget = dict(first.budget)
    for kind, value in second.budget.items():
        measure = kind.removeprefix("target_")
        full = getattr(second.before, measure, None)
        before = budget.get("sparsity")
        if (
            kind == "sparsity"
            and isinstance(before, float)
            and isinstance(value, float)
        ):
            value = 1 - (1 - before) * (1 - value)
        elif isinstance(value, float) and isinstance(full, int):
            value = int(value * full)
        if kind in budget:
            del budget[kind]
        budget[kind] = value
    return budget


def _achieved(first: PruningPlan, second: PruningPlan) -> tuple[float, float] | None:
    """Join what the budgets count, where the second goes on where the first ended."""
    one, other = first.achieved, second.achieved
    same = first.budget.keys() == second.budget.keys() and all(
        first.budget.get(name) == second.budget.get(name)
        for name in ("weight_dtype", "latency")
    )
    if one is None or other is None or not same or one[1] != other[0]:
        return None
    return one[0], other[1]
