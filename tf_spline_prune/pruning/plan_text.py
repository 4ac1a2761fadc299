"""What a plan prints."""

from typing import Any

from tf_spline_prune.graph.costing import why_no_macs
from tf_spline_prune.pruning.budget import amount

_UNITS = {
    "sparsity": "units",
    "target_macs": "macs",
    "target_params": "params",
    "target_bytes": "bytes",
    "target_latency": "microseconds",
}


def plan_text(plan: Any) -> str:
    """Write a plan out: layer by layer, then costs, then what must stay.

    Args:
        plan: A `PruningPlan`.

    Returns:
        The text.
    """
    width = max([len("layer"), *map(len, plan.units)])
    lines = [
        f"Pruning plan for {plan.model!r}: {plan.criterion}, "
        f"scope {_scope(plan.scope)}, "
        + ", ".join(f"{k}={v}" for k, v in plan.budget.items()),
        "",
        f"{'layer':<{width}}  {'units':>7}  {'kept':>7}  {'removed':>8}",
    ]
    for path, (old, new) in plan.units.items():
        share = (old - new) / old
        lines.append(f"{path:<{width}}  {old:>7}  {new:>7}  {share:>8.1%}")
    lines.append("")
    for name in ("macs", "params", "bytes"):
        old, new = getattr(plan.before, name), getattr(plan.after, name)
        if old is None or new is None:
            lines.append(f"{name:<8}not known: {why_no_macs(plan.before)}")
            continue
        kept = f"  ({new / old:.1%})" if old else ""
        lines.append(f"{name:<8}{old:>15,}  ->{new:>15,}{kept}")
    if plan.achieved is not None:
        lines += ["", against(plan.budget, *plan.achieved)]
    if plan.approximate:
        lines += ["", "Approximate, because their statistics change:"]
        lines += [f"  {name}" for name in plan.approximate]
    if plan.barriers:
        lines += ["", "Must stay:"]
        lines += [f"  {barrier}" for barrier in plan.barriers]
    return "\n".join(lines)


def _scope(scope: Any) -> str:
    if isinstance(scope, str):
        return scope
    return "; ".join(f"{pool}: {', '.join(names)}" for pool, names in scope.items())


def against(budget: Any, before: float, after: float) -> str:
    """Set what was achieved against what was asked.

    Args:
        budget: The plan's budget.
        before: What the budget counts, before.
        after: The same, once the plan is applied.

    Returns:
        One line.
    """
    kind, value = next(iter(budget.items()))
    name = _UNITS.get(kind, kind)
    if kind == "target_bytes" and "weight_dtype" in budget:
        name = f"bytes in {budget['weight_dtype']}"
    if kind == "target_latency":
        name += f" ({budget.get('latency', 'LiteRT')})"
    if kind == "sparsity":
        asked = "by layer" if isinstance(value, dict) else f"{value:.1%}"
        gone = before - after
        share = f"{gone / before:.1%}" if before else "none"
        return f"asked: {asked} of {amount(before)} units gone; achieved: {share}"
    wanted = f"{value:.1%}" if isinstance(value, float) else amount(value)
    share = f" ({after / before:.1%})" if before else ""
    return f"asked: at most {wanted} of {amount(before)} {name}; achieved: " + (
        f"{amount(after)}{share}"
    )
