"""`PruningPlan`: the frozen decision, in coordinates of the original model."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tf_spline_prune._checks import Function, Having, OneOf, Options, Path, checked
from tf_spline_prune._files import PathLike, atomic_file, read_file
from tf_spline_prune.compat import activation_name, say
from tf_spline_prune.errors import PlanError
from tf_spline_prune.graph import Barrier, ChannelGraph, Cost
from tf_spline_prune.graph._cost import why_no_macs
from tf_spline_prune.pruning._remove_units import build_pruned, check_same
from tf_spline_prune.pruning.planning._budget import amount
from tf_spline_prune.pruning.planning._plan_schema import check_values

_FORMAT = 1


WEIGHTS: Options = [
    OneOf("inherit", "reinitialize"),
    Having("layers", "weights", what="a model to rewind to"),
]
"""What the checks of arguments want of weights for a small model."""


@dataclass(frozen=True)
class PruningPlan:
    """Which units to prune: a decision that can be read, stored and replayed.

    A plan holds no model, graph or tensor. Indices count the units of the
    original model.

    Attributes:
        model: Name of the model it was made for.
        fingerprint: For each layer with weights, its kind and weight shapes; a
            plan fits any model of the same fingerprint, of either flavour.
        criterion: Name of the criterion.
        criterion_config: Its arguments.
        scope: What was ranked together: the name of a scope, or the layers of
            each pool.
        budget: What was asked for.
        removed: For each layer's path, the indices of the pruned units.
        merges: For each layer's path, in the order of removal, triples of a pruned
            unit, its twin that is kept, and the scale that merging needs.
        barriers: The unprunable units, with reasons.
        approximate: Normalisations over pruned units, whose statistics change.
        units: For each layer's path, its number of units before and after.
        before: The model's cost.
        after: The cost once the plan is applied.
        achieved: What the budget counts, before and after: units, or the cost that the
            target bounds (latencies in microseconds); `None` in older plans.
            Defaults to `None`.
        input_shapes: The shapes of the inputs, without the batch axis, at which the
            model was read; `None` where it was read at any. Defaults to `None`.
        plain: The models and layers of users' classes that come out as plain layers, by
            path (`""` is the model), and why; `None` in older plans. Defaults to
            `None`.

    Example:

    ```python
    plan = tsp.plan(model, sparsity=0.5)
    plan.save("plan.json")
    small = tsp.PruningPlan.load("plan.json").apply(model)
    ```
    """

    model: str
    fingerprint: Mapping[str, Any] = field(repr=False)
    criterion: str
    criterion_config: Mapping[str, Any]
    scope: str | Mapping[str, list[str]]
    budget: Mapping[str, Any]
    removed: Mapping[str, list[int]] = field(repr=False)
    merges: Mapping[str, tuple[tuple[int, int, float], ...]] = field(repr=False)
    barriers: tuple[Barrier, ...] = field(repr=False)
    approximate: tuple[str, ...] = field(repr=False)
    units: Mapping[str, tuple[int, int]] = field(repr=False)
    before: Cost
    after: Cost
    achieved: tuple[float, float] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    plain: Mapping[str, str] | None = field(default=None, repr=False)

    @checked(weights=WEIGHTS)
    def apply(
        self, model: Any, weights: Literal["inherit", "reinitialize"] | Any = "inherit"
    ) -> Any:
        """Build the smaller model.

        Args:
            model: The model that the plan was made for, or one of the same
                structure. It is not changed.
            weights: `"inherit"` slices the model's weights, `"reinitialize"` draws new
                ones, and another model of the same structure gives its own (to rewind
                to). Defaults to `"inherit"`.

        Returns:
            A new, plain, uncompiled model of the same flavour, layer names kept.

        Raises:
            PlanError: If the plan was made for another structure.
            ValueError: If `weights` is none of the above.
        """
        graph = self.graph_of(model)
        source = None
        if not isinstance(weights, str):
            source = self.graph_of(weights).arrays
        elif weights == "inherit":
            source = graph.arrays
        return build_pruned(graph, graph.removal(dict(self.removed)), source)

    def graph_of(self, model: Any) -> ChannelGraph:
        """Return the channel graph of a model, if it is of the plan's structure.

        Args:
            model: A built model of either flavour.

        Returns:
            Its channel graph.

        Raises:
            PlanError: If the plan was made for another structure.
        """
        graph = ChannelGraph(
            model, approximate=bool(self.approximate), input_shapes=self.input_shapes
        )
        check_same(self.fingerprint, fingerprint(graph), graph.model.name)
        return graph

    @checked(print_fn=[Function("a function of a text"), None])
    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print what the plan does, layer by layer, as `Model.summary` prints.

        Args:
            print_fn: Function that takes the text. Defaults to `None`, which prints as
                Keras does.
        """
        (print_fn or say)(str(self))

    def __str__(self) -> str:
        return plan_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain numbers, strings, lists and dicts."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PruningPlan":
        """Make a plan from what `to_dict` gave.

        Raises:
            PlanError: If the values are not those of a plan.
        """
        check_values(values)
        fields = dataclasses.fields(cls)
        given: dict[str, Any] = {f.name: values.get(f.name) for f in fields}
        given["removed"] = {p: list(units) for p, units in values["removed"].items()}
        given["merges"] = {
            path: tuple((unit, twin, float(scale)) for unit, twin, scale in triples)
            for path, triples in values["merges"].items()
        }
        given["approximate"] = tuple(values["approximate"])
        given["barriers"] = tuple(Barrier(**b) for b in values["barriers"])
        given["units"] = {p: (old, new) for p, (old, new) in values["units"].items()}
        for name in ("before", "after"):
            costs: dict[str, Any] = dict(values[name])
            for key in costs.keys() - {"macs", "params", "bytes"}:
                costs[key] = tuple(costs[key])
            given[name] = Cost(**costs)
        if given["achieved"] is not None:
            given["achieved"] = tuple(given["achieved"])
        if given["input_shapes"] is not None:
            shapes = given["input_shapes"].items()
            given["input_shapes"] = {name: tuple(shape) for name, shape in shapes}
        return cls(**given)

    @checked(path=Path())
    def save(self, path: PathLike) -> None:
        """Write the plan as JSON; the file appears whole or not at all.

        Args:
            path: The file.

        Raises:
            OSError: If it cannot be written.
        """
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    @checked(path=Path())
    def load(cls, path: PathLike) -> "PruningPlan":
        """Read a plan from JSON.

        Args:
            path: The file.

        Returns:
            The plan.

        Raises:
            PlanError: If the file is broken or no plan.
            OSError: If it cannot be read.
        """
        content = read_file(path, "the file of a plan")
        try:
            values = json.loads(
                content.decode(), object_pairs_hook=_once, parse_constant=_refuse
            )
        except (ValueError, RecursionError) as error:  # no text, or no JSON
            raise PlanError(
                f"The plan file is broken: {error}. Write it again with `plan.save`. "
                f"Received: {str(path)!r}"
            ) from error
        try:
            return cls.from_dict(values)
        except PlanError as error:
            raise PlanError(f"{error}, in the file {str(path)!r}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"a key is there twice among {[key for key, _ in pairs]}")
    return values


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of a plan")


def fingerprint(graph: ChannelGraph) -> dict[str, Any]:
    """Describe a model's structure: its layers, their weights, and the wiring.

    Layers with weights are named; the others are known by their kind and place,
    so that automatic names, which differ from session to session, do not matter.
    """
    calls = graph.graph.calls
    number_of = {t: n for n, call in enumerate(calls) for t in call.outputs}
    number_of.update({t: -1 - n for n, t in enumerate(graph.graph.input_tensors)})
    found: dict[str, Any] = {}
    for number, call in enumerate(calls):
        shapes = graph.arrays.shapes(call.path)
        activation = getattr(call.layer, "activation", None)
        found[f"{number} {call.path if shapes else ''}".strip()] = [
            call.kind,
            activation_name(activation) if callable(activation) else "",
            {name: list(shape) for name, shape in shapes.items()},
            [number_of[tensor] for tensor in call.needs()],
        ]
    return found


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
        fraction = (old - new) / old
        lines.append(f"{path:<{width}}  {old:>7}  {new:>7}  {fraction:>8.1%}")
    lines.append("")
    for name in ("macs", "params", "bytes"):
        old, new = getattr(plan.before, name), getattr(plan.after, name)
        if old is None or new is None:
            lines.append(f"{name:<8}not known: {why_no_macs(plan.before)}")
            continue
        kept = f"  ({new / old:.1%})" if old else ""
        lines.append(f"{name:<8}{old:>15,}  ->{new:>15,}{kept}")
    if plan.input_shapes is not None:
        shapes = plan.input_shapes.items()
        read = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes)
        lines += ["", f"Read and counted for inputs of these shapes: {read}"]
    if plan.achieved is not None:
        lines += ["", against(plan.budget, *plan.achieved)]
    if plan.approximate:
        lines += ["", "Approximate, because their statistics change:"]
        lines += [f"  {name}" for name in plan.approximate]
    if plan.plain:
        lines += ["", "Comes out as plain layers:"]
        lines += [f"  {path or plan.model}: {why}" for path, why in plan.plain.items()]
    if plan.barriers:
        lines += ["", "Unprunable:"]
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
        fraction = f"{gone / before:.1%}" if before else "none"
        return f"asked: {asked} of {amount(before)} units pruned; achieved: {fraction}"
    wanted = f"{value:.1%}" if isinstance(value, float) else amount(value)
    fraction = f" ({after / before:.1%})" if before else ""
    return f"asked: at most {wanted} of {amount(before)} {name}; achieved: " + (
        f"{amount(after)}{fraction}"
    )
