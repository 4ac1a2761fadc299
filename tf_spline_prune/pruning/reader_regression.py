"""`least_squares`: the readers of a model learn to do without what is gone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, SEED, Integer, Real, checked
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    Passes,
    Program,
    ProgramStep,
    Progress,
    Values,
    numpy_of,
    read_weights,
    trace,
    with_weights,
)
from tf_spline_prune.errors import CalibrationWarning, PlanError, warn
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.execution import PLAN
from tf_spline_prune.pruning.linear_view import LinearView, linear_view
from tf_spline_prune.pruning.output_tail import OutputTail, output_tail
from tf_spline_prune.pruning.pruning_plan import PruningPlan
from tf_spline_prune.pruning.regression import Regression


@checked(
    plan=PLAN,
    ridge=Real(0),
    batch_size=COUNT,
    max_inputs=COUNT,
    max_rows=COUNT,
    max_bytes=Integer(1),
    seed=SEED,
)
def least_squares(
    model: Any,
    small: Any,
    plan: PruningPlan,
    data: Any,
    *,
    ridge: float = 1e-3,
    batch_size: int = 32,
    max_inputs: int = 2048,
    max_rows: int = 2**15,
    max_bytes: int = 2**29,
    seed: int = 0,
) -> Any:
    """Solve the weights of every layer that lost inputs again, on calibration data.

    A layer that reads removed units is missing their part. Its weights for the units
    that are left, and its bias, are chosen anew so that it gives, in the least-squares
    sense, what it gave in the original. Layers are solved in the order of computation,
    and each sees what comes out of the layers solved before it, so that their errors
    are made up for too. Where a layer's output is added to another tensor, as in a
    residual block, it also makes up for what that tensor has lost. No labels and no
    training are needed.

    Solved are Dense layers and convolutions, grouped ones too. A layer without
    bias moves the mean of the BatchNormalization behind it. Layers of other kinds that
    read removed units keep their weights.

    Args:
        model: The model that the plan was made for. It is not changed.
        small: What `plan.apply(model)` gave, before any training.
        plan: The plan.
        data: Inputs: an array of shape `(n, *input shape)`, a list of arrays or a dict
            for several inputs, or batches such as a `tf.data.Dataset`. Labels are
            left aside. A few hundred are enough.
        ridge: How strongly the present weights are held to, as a share of the mean
            square of the layer's inputs; 0 for none.
        batch_size: How many inputs run at a time.
        max_inputs: Use so many inputs at most, drawn at random.
        max_rows: Use about so many output positions of a layer, drawn at random. At
            least eight for each of its inputs are used where there are so many.
        max_bytes: How much memory intermediate results may take; where they need
            more, they are computed again.
        seed: Seed of the draw.

    Returns:
        A copy of `small` with new weights, uncompiled.

    Raises:
        PlanError: If the plan was made for another structure, or `small` is not what
            it makes.
        CalibrationError: If the data are empty, misshapen or not finite.
        ValueError: If an argument is out of range.

    Example:

    ```python
    small = plan.apply(model)
    small = tsp.least_squares(model, small, plan, x_train[:512])
    ```

    Source: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural
    Networks", ICCV 2017, section 3.
    """
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    _check_small(graph, removed, small)
    mended = with_weights(small, {})
    refit(
        graph,
        trace(mended),
        removed,
        Calibration.of(data, graph.graph),
        ridge=ridge,
        batch_size=batch_size,
        max_inputs=max_inputs,
        max_rows=max_rows,
        max_bytes=max_bytes,
        seed=seed,
    )
    return mended


def refit(
    graph: ChannelGraph,
    cut: Graph,
    removed: np.ndarray,
    data: Calibration,
    *,
    ridge: float = 1e-3,
    batch_size: int = 32,
    max_inputs: int = 2048,
    max_rows: int = 2**15,
    max_bytes: int = 2**29,
    seed: int = 0,
) -> None:
    """Do what `least_squares` does, in place.

    Args:
        graph: The original model's channel graph.
        cut: The smaller model, traced; its weights change.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        data: As in `least_squares`, and so the rest.
        ridge: See there.
        batch_size: See there.
        max_inputs: See there.
        max_rows: See there.
        max_bytes: See there.
        seed: See there.
    """
    data = data.drawn(max_inputs, seed)
    programs = [Program(graph.graph), Program(cut)]
    if programs[0].wiring() != programs[1].wiring():
        raise PlanError(
            "`small` is not wired as the model is; give what `plan.apply(model)` gave. "
            f"Received: model {cut.model.name!r}"
        )
    passes = Passes(programs, data, batch_size, max_bytes)
    readers = _readers(graph, removed, programs)
    progress = Progress(len(readers), "layer")
    scarce = []
    for reader in readers:
        rows = _solve(reader, passes, len(data), max_rows, ridge, seed)
        if rows < reader.first.shape[1]:
            scarce.append(reader.path)
        progress.step()
    if scarce:
        warn(
            f"{len(data)} inputs are fewer than some layers have weights to solve, so "
            "their solution stays near the present weights. More data would help. "
            f"This concerns: {', '.join(scarce)}.",
            CalibrationWarning,
        )


@dataclass(eq=False)
class _Reader:
    """A layer that lost inputs.

    Attributes:
        path: Its path.
        steps: Names of the steps that use it.
        layer: The layer of the small model.
        view: How it is read as a matrix product.
        target: The original's matrices, all inputs and the kept outputs.
        first: The small model's matrices.
        kept: Array of shape `(outputs,)`, bool: the outputs that are kept.
        tail: What lies behind it.
    """

    path: str
    steps: list[str]
    layer: Any
    view: LinearView
    target: np.ndarray
    first: np.ndarray
    kept: np.ndarray
    tail: OutputTail


def _readers(
    graph: ChannelGraph, removed: np.ndarray, programs: list[Program]
) -> list[_Reader]:
    """Find the layers to solve, in the order in which they can be."""
    uses: dict[str, list[str]] = {}
    for name, step in programs[1].steps.items():
        uses.setdefault(step.call.path, []).append(name)
    found = []
    for name, step in programs[0].steps.items():
        path = step.call.path
        names = uses.get(path, [])
        view = linear_view(step.call)
        if view is None or name != names[-1]:
            continue
        fact = graph.weights.get((path, view.kernel))
        if fact is None:
            continue
        kernel = graph.arrays[path][view.kernel]
        kept = np.ones(kernel.shape[-1], bool)
        lost = False
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if labels is None:
                continue
            stay = ~removed[graph.units_of(labels)]
            if role == "in":
                lost |= not stay.all()
            elif not stay.all():
                kernel, kept = np.compress(stay, kernel, axis), stay
        if lost:
            use = programs[1].steps[name]
            layer = use.call.layer
            found.append(
                _Reader(
                    path,
                    names,
                    layer,
                    view,
                    view.matrix(kernel),
                    view.matrix(read_weights(layer)[view.kernel]),
                    kept,
                    output_tail(use, programs[1], len(names) == 1),
                )
            )
    return found


def _solve(
    reader: _Reader,
    passes: Passes,
    count: int,
    max_rows: int,
    ridge: float,
    seed: int,
) -> int:
    """Solve a layer and set its weights; gives the number of rows it was solved on."""
    view, tail = reader.view, reader.tail
    most = max(max_rows, 8 * reader.first.shape[1])
    rng = np.random.default_rng(seed)
    regressions: list[Regression] = []

    def visit(step: ProgramStep, values: list[Values]) -> None:
        if step.name not in reader.steps:
            return
        old, new = (numpy_of(one, step.inputs[0]) for one in values)
        total = view.num_rows(old)
        whole = total // len(old) * count * len(reader.steps)
        wanted = min(total, max(1, round(most * total / whole)))
        chosen = np.sort(rng.choice(total, wanted, replace=False))
        x, y = view.rows(new, chosen), view.rows(old, chosen) @ reader.target
        other = tail.addend
        if other is not None and all(other in one for one in values):
            # What the other side of the sum has lost is this layer's to make up for.
            full, left = (view.outputs(numpy_of(v, other), chosen) for v in values)
            gap = (full[:, reader.kept] - left) * tail.unscaled
            y = y + np.moveaxis(gap.reshape(len(gap), len(y), -1), 1, 0)
        if not regressions:
            rows = min(whole, -(-wanted * count * len(reader.steps) // len(old)))
            centred = tail.intercept is not None
            regressions.extend(
                Regression(first, rows, ridge, centred) for first in reader.first
            )
        for regression, inputs, outputs in zip(regressions, x, y, strict=True):
            regression.add(inputs, outputs.astype("float32", copy=False))

    places = [passes.order.index(name) for name in reader.steps]
    passes.run(min(places), max(places), visit)
    found = [regression.solve() for regression in regressions]
    weights = dict(read_weights(reader.layer))
    shape = weights[view.kernel].shape
    matrix = np.stack([one for one, _ in found])
    weights[view.kernel] = view.of_matrix(matrix, shape)
    reader.layer.set_weights(list(weights.values()))
    tail.shift(np.concatenate([shift for _, shift in found]))
    return regressions[0].num_rows


def _check_small(graph: ChannelGraph, removed: np.ndarray, small: Any) -> None:
    """Refuse a model that is not what the plan makes."""
    expected = graph.kept_counts(removed)
    layers = {call.path: call.layer for call in trace(small).leaves()}
    for (path, name), shape in expected.items():
        held = read_weights(layers[path]) if path in layers else {}
        found = list(held[name].shape) if name in held else None
        if found != shape:
            raise PlanError(
                "`small` is not what the plan makes of the model; give what "
                f"`plan.apply(model)` gave. Expected: shape {shape} for "
                f"{path}/{name}. Received: {found}"
            )
