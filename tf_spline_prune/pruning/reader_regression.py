"""`least_squares`: readers learn to do without the units that are gone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Passes,
    Program,
    ProgramStep,
    Progress,
    Slot,
    Values,
    numpy_of,
    read_weights,
    trace,
    with_weights,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.linear_view import LinearView, linear_view
from tf_spline_prune.pruning.pruning_plan import PruningPlan
from tf_spline_prune.pruning.regression import Regression

_IDENTITIES = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise")


def least_squares(
    model: Any,
    small: Any,
    plan: PruningPlan,
    data: Any,
    *,
    ridge: float = 1e-3,
    batch_size: int = 32,
    max_rows: int = 2**15,
    max_bytes: int = 2**29,
    seed: int = 0,
    which: str = "readers",
    residual: bool = True,
) -> Any:
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    mended = with_weights(small, {})
    data = Calibration.of(data, graph.graph.inputs)
    programs = [Program(graph.graph), Program(trace(mended))]
    solves = _solves(graph, removed, programs, which, residual)
    passes = Passes(programs, data, batch_size, max_bytes)
    progress = Progress(len(solves), "layer")
    for solve in solves:
        solve.run(passes, len(data), max_rows, ridge, seed)
        progress.step()
    return mended


@dataclass(eq=False)
class _Solve:
    """One layer to be solved again.

    Attributes:
        places: Indices of the steps that use it.
        layer: The layer of the small model.
        view: How it is read as a matrix product.
        target: The original's matrices, for the kept units only.
        intercept: Where an intercept goes: a layer of the small model, the name of a
            weight, and the sign; `None` where there is no room for one.
        rest: For each step, the other side of a sum that it runs into: the slot,
            which units are kept, and the scale between; `None` where there is none.
    """

    names: list[str]
    places: list[int]
    layer: Any
    view: LinearView
    target: np.ndarray
    intercept: tuple[Any, str, int] | None
    rest: "tuple[Slot, np.ndarray, np.ndarray] | None"

    def run(
        self, passes: Passes, count: int, max_rows: int, ridge: float, seed: int
    ) -> None:
        weights = dict(read_weights(self.layer))
        kernel = weights[self.view.kernel]
        first = self.view.matrix(kernel)
        rng = np.random.default_rng(seed)
        regressions: list[Regression] = []

        def visit(step: ProgramStep, values: list[Values], batch: int) -> None:
            if step.name not in self.names:
                return
            slot = step.inputs[0]
            old, new = (numpy_of(one, slot) for one in values)
            total = self.view.num_rows(old)
            share = min(1.0, max_rows / (total / len(old) * count * len(self.names)))
            wanted = max(1, round(share * total))
            chosen = np.sort(rng.choice(total, wanted, replace=False))
            if not regressions:
                expected = -(-wanted * count // len(old)) * len(self.names)
                for one in first:
                    regressions.append(
                        Regression(one, expected, self.intercept is not None)
                    )
            y = np.matmul(self.view.rows(old, chosen), self.target)
            if self.rest is not None and self.rest[0] in values[0]:
                slot, kept, scale = self.rest
                gap = self.view.outputs(numpy_of(values[0], slot), chosen)[:, kept]
                gap = gap - self.view.outputs(numpy_of(values[1], slot), chosen)
                gap = np.where(scale, gap / np.where(scale, scale, 1), 0)
                y = y + np.moveaxis(gap.reshape(len(gap), len(y), -1), 1, 0)
            x = self.view.rows(new, chosen)
            for one, regression in enumerate(regressions):
                regression.add(x[one], y[one].astype("float32"))

        passes.run(self.places[0], self.places[-1], visit)
        found = [regression.solve(ridge) for regression in regressions]
        matrix = np.stack([one for one, _ in found])
        weights[self.view.kernel] = self.view.of_matrix(matrix, kernel.shape)
        if self.intercept is not None:
            layer, name, sign = self.intercept
            shift = sign * np.concatenate([one for _, one in found])
            if layer is self.layer:
                weights[name] = weights[name] + shift
            else:
                others = dict(read_weights(layer))
                others[name] = others[name] + shift
                layer.set_weights(list(others.values()))
        self.layer.set_weights(list(weights.values()))


def _solves(
    graph: ChannelGraph,
    removed: np.ndarray,
    programs: list[Program],
    which: str,
    residual: bool,
) -> list[_Solve]:
    order = list(programs[0].steps)
    by_path: dict[str, list[str]] = {}
    for name, step in programs[0].steps.items():
        by_path.setdefault(step.call.path, []).append(name)
    users: dict[Slot, list[ProgramStep]] = {}
    for step in programs[1].steps.values():
        for slot in dict.fromkeys(step.inputs):
            users.setdefault(slot, []).append(step)
    found = []
    touched: set[Slot] = set()
    for name in order:
        step = programs[0].steps[name]
        fact = graph.weights.get((step.call.path, "kernel"))
        reads = False
        if fact is not None:
            for labels, role in zip(fact.axes, fact.roles, strict=True):
                if labels is not None and role == "in":
                    reads |= bool(removed[graph.units_of(labels)].any())
        if which == "downstream":
            reads |= any(slot in touched for slot in step.inputs)
        if reads or any(slot in touched for slot in step.inputs):
            touched.update(step.outputs)
        view = linear_view(step.call)
        names = by_path[step.call.path]
        if not reads or view is None or name != names[-1] or fact is None:
            continue
        kernel = graph.arrays[step.call.path]["kernel"]
        keep = np.ones(kernel.shape[-1], bool)
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if labels is not None and role != "in":
                mask = ~removed[graph.units_of(labels)]
                kernel = np.compress(mask, kernel, axis)
                if axis == len(fact.axes) - 1:
                    keep = mask
        new = programs[1].steps[name]
        intercept, rest = _behind(new, users, keep)
        if len(names) > 1 or not residual:
            rest = None
        found.append(
            _Solve(
                names,
                [order.index(n) for n in names],
                new.call.layer,
                view,
                view.matrix(kernel),
                intercept,
                rest,
            )
        )
    return found


def _behind(
    step: ProgramStep, users: dict[Slot, list[ProgramStep]], keep: np.ndarray
) -> Any:
    layer = step.call.layer
    bias = "bias" in read_weights(layer)
    intercept = (layer, "bias", 1) if bias else None
    activation = getattr(layer, "activation", None)
    rest = None
    if activation is not None and activation.__name__ != "linear":
        return intercept, rest
    slot, scale = step.outputs[0], np.ones(int(keep.sum()))
    for user in _chain(slot, users):
        if user.call.kind == "BatchNormalization":
            weights = read_weights(user.call.layer)
            factor = weights.get("gamma", 1.0) / np.sqrt(
                weights["moving_variance"] + user.call.layer.epsilon
            )
            scale = scale * factor
            if intercept is None:
                intercept = (user.call.layer, "moving_mean", -1)
        elif user.call.kind in ("Add", "op:add", "op:Add"):
            others = [s for s in user.inputs if s != slot]
            if len(others) == 1 and len(user.inputs) == 2:
                rest = (others[0], keep, scale)
            break
        elif user.call.kind not in _IDENTITIES:
            break
        slot = user.outputs[0]
    return intercept, rest


def _chain(slot: Slot, users: dict[Slot, list[ProgramStep]]) -> Iterator[ProgramStep]:
    while len(users.get(slot, ())) == 1:
        (user,) = users[slot]
        yield user
        slot = user.outputs[0]
