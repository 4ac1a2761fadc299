"""`least_squares`: the consumers of a model learn to do without what is gone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, SEED, Integer, Real, checked
from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    Passes,
    Progress,
    Tensor,
    Values,
    numpy_of,
    read_weights,
    trace,
    with_weights,
)
from tf_spline_prune.errors import CalibrationWarning, PlanError, warn
from tf_spline_prune.graph import ChannelGraph, channel_axis, norm_axis
from tf_spline_prune.graph._unit_path import batchnorm_factor, is_linear
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._linear_view import LinearView, linear_view

_IDENTITIES = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise")


@dataclass(frozen=True, eq=False)
class OutputTail:
    """Where a layer's intercept goes, and what its output is added to.

    Attributes:
        intercept: A layer, the name of its weight, and the sign with which an
            intercept enters; `None` where there is no room for one.
        addend: The tensor that the output is added to, behind normalisations;
            `None` where it is used in another way.
        unscaled: Array of shape `(outputs,)`: what a change behind the
            normalisations is before them; 0 where nothing gets through.
    """

    intercept: tuple[Any, str, int] | None
    addend: Tensor | None
    unscaled: np.ndarray

    def shift(self, by: np.ndarray) -> None:
        """Add an intercept to the output.

        Args:
            by: Array of shape `(outputs,)`.
        """
        if self.intercept is None:
            return
        layer, name, sign = self.intercept
        weights = dict(read_weights(layer))
        shape = weights[name].shape
        weights[name] = weights[name] + sign * by.reshape(shape)
        layer.set_weights(list(weights.values()))


def output_tail(graph: Graph, call: Call, alone: bool) -> OutputTail:
    """Follow a layer's output through normalisations to a sum.

    Args:
        graph: The model.
        call: A call of the layer.
        alone: Whether the layer is used only there; else it is not followed.

    Returns:
        The tail.
    """
    size = call.output_shapes[0]
    channels = channel_axis(call, len(size))
    intercept = (call.layer, "bias", 1) if "bias" in read_weights(call.layer) else None
    unscaled = np.ones(size[channels] or 1)
    tensor = call.outputs[0]
    for behind in graph.chain(tensor) if alone and is_linear(call) else ():
        if behind.kind == "BatchNormalization":
            if norm_axis(behind, len(size)) != channels:
                break
            scale = batchnorm_factor(behind.layer, read_weights(behind.layer))
            unscaled = unscaled * np.where(scale, 1 / np.where(scale, scale, 1), 0)
            if intercept is None and len(graph.uses[behind.path]) == 1:
                intercept = (behind.layer, "moving_mean", -1)
        elif behind.kind in ("Add", "op:add"):
            others = [other for other in behind.inputs if other != tensor]
            whole = all(shape == size for shape in behind.input_shapes)
            if len(others) == 1 and len(behind.inputs) == 2 and whole:
                return OutputTail(intercept, others[0], unscaled)
            break
        elif behind.kind not in _IDENTITIES:
            break
        tensor = behind.outputs[0]
    return OutputTail(intercept, None, unscaled)


# The rounding of float32, in products; and the ridge beside which it is nothing.
_ROUNDING = float(np.finfo("float32").eps) ** 2
_FORGIVING = 1e-6


class Regression:
    """Finds the weights that map rows `x` to rows `y`, from first ones.

    Minimises `|X W + b - Y|^2 + ridge * s * |W - W0|^2`, where `s` is the mean square
    of the centred columns of `X`, so that `ridge` has no unit. Memory is bounded by
    the smaller of the number of rows and of columns: with more rows only their
    products are kept, with fewer the rows themselves.

    Args:
        first: The weights to start from, array of shape `(d, m)`.
        num_rows: How many rows will come, at most.
        ridge: How strongly the first weights are held to.
        centred: Whether there is an intercept `b` to find.
    """

    def __init__(
        self, first: np.ndarray, num_rows: int, ridge: float, centred: bool = True
    ) -> None:
        self.first = first.astype("float32")
        self.ridge = ridge
        self.centred = centred
        self.num_rows = 0
        self._products = num_rows > len(first)
        size = len(first) + first.shape[1]
        self._sums = np.zeros(size)
        self._shift = np.zeros(0)
        self._rows: list[np.ndarray] = []
        if self._products:
            self._gram = np.zeros((len(first), len(first)))
            self._cross = np.zeros(first.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in rows.

        Args:
            x: Array of shape `(n, d)`.
            y: Array of shape `(n, m)`.
        """
        rest = np.concatenate([x, y - x @ self.first], axis=1)
        if not self.num_rows:
            # Products of numbers near their mean lose nothing to rounding.
            mean = rest.mean(axis=0) if self.centred else np.zeros(rest.shape[1])
            self._shift = mean.astype(rest.dtype)
        rest -= self._shift
        self.num_rows += len(rest)
        self._sums += rest.sum(axis=0, dtype="float64")
        if self._products:
            if self.ridge < _FORGIVING:
                rest = rest.astype("float64")
            x, left = np.split(rest, [len(self.first)], axis=1)
            self._gram += x.T @ x
            self._cross += x.T @ left
        else:
            self._rows.append(rest)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Solve.

        Returns:
            The weights, shape `(d, m)`, and the intercept, shape `(m,)`.
        """
        size = len(self.first)
        mean = self._sums / self.num_rows if self.centred else 0 * self._sums
        inner, outer = mean[:size], mean[size:]
        if self._products:
            gram = self._gram - self.num_rows * np.outer(inner, inner)
            cross = self._cross - self.num_rows * np.outer(inner, outer)
            change = _solved(gram, cross, self.ridge * np.trace(gram) / size)
        else:
            rows = np.concatenate(self._rows).astype("float64") - mean
            x, left = rows[:, :size], rows[:, size:]
            small = x @ x.T
            change = x.T @ _solved(small, left, self.ridge * np.trace(small) / size)
        middle = mean + self._shift
        intercept = middle[size:] - middle[:size] @ change
        if not self.centred:
            intercept = np.zeros(len(outer))
        return self.first + change, intercept


def _solved(matrix: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solve a symmetric system; the shortest solution where there are many."""
    if ridge > 0:
        matrix[np.diag_indices(len(matrix))] += ridge
        try:
            return np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # all is zero
            pass
    rounding = _ROUNDING * len(matrix)
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=rounding)[0])


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
    """Refit every layer that lost inputs by least squares on calibration data.

    A layer that consumed pruned units lacks their contribution. Its weights for the
    kept units, and its bias, are refitted so that its output is, in the least-squares
    sense, what it was in the original. Layers are refitted in the order of computation,
    each on the outputs of the layers refitted before it, so that their errors are made
    up for too. Where a layer's output is added to another tensor, as in a residual
    block, it also makes up for what that tensor has lost. No labels and no training are
    needed.

    Dense layers and convolutions are refitted, grouped ones too. For a layer without
    bias, the mean of the BatchNormalization behind it is adjusted. Layers of other
    kinds keep their weights.

    Args:
        model: The model that the plan was made for. It is not changed.
        small: What `plan.apply(model)` gave, before any training.
        plan: The plan.
        data: Inputs: an array of shape `(n, *input shape)`, a list of arrays or a dict
            for several inputs, or batches such as a `tf.data.Dataset`. Labels are
            ignored. A few hundred are enough.
        ridge: How strongly the present weights are held to, as a fraction of the mean
            square of the layer's inputs; 0 for not at all. Defaults to `1e-3`.
        batch_size: How many inputs run at a time. Defaults to `32`.
        max_inputs: Use this many inputs at most, drawn at random. Defaults to `2048`.
        max_rows: Use about this many output positions of a layer, drawn at random, but
            at least eight per input of the layer if there are so many. Defaults to
            `2**15`.
        max_bytes: How much memory intermediate results may take; where they need more,
            they are computed again. Defaults to `2**29`.
        seed: Seed of the draw. Defaults to `0`.

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
    graphs = [graph.graph, cut]
    wirings = [[(call.key, *call.needs()) for call in one.calls] for one in graphs]
    if wirings[0] != wirings[1]:
        raise PlanError(
            "`small` is not wired as the model is; give what `plan.apply(model)` "
            f"returned. Received: model {cut.model.name!r}"
        )
    passes = Passes(graphs, data, batch_size, max_bytes)
    consumers = _consumers(graph, removed, cut)
    progress = Progress(len(consumers), "layer")
    scarce = []
    for consumer in consumers:
        rows = _solve(consumer, passes, len(data), max_rows, ridge, seed)
        if rows < consumer.first.shape[1]:
            scarce.append(consumer.calls[0].path)
        progress.step()
    if scarce:
        warn(
            f"{len(data)} inputs are fewer than some layers have weights to solve, so "
            "their solution stays near the present weights. More data would help. "
            f"This concerns: {', '.join(scarce)}.",
            CalibrationWarning,
        )


@dataclass(eq=False)
class _Consumer:
    """A layer that lost inputs.

    Attributes:
        calls: Its calls in the small model.
        view: How it is read as a matrix product.
        target: The original's matrices, all inputs and the kept outputs.
        first: The small model's matrices.
        kept: Array of shape `(outputs,)`, bool: the outputs that are kept.
        tail: What lies behind it.
    """

    calls: list[Call]
    view: LinearView
    target: np.ndarray
    first: np.ndarray
    kept: np.ndarray
    tail: OutputTail


def _consumers(graph: ChannelGraph, removed: np.ndarray, cut: Graph) -> list[_Consumer]:
    """Find the layers to solve, in the order in which they can be."""
    order = graph.graph.branch_by_branch
    last = {graph.graph.call_of[key].path: key for key in order}
    found = []
    for key in order:
        call = graph.graph.call_of[key]
        view = linear_view(call)
        if view is None or key != last[call.path]:
            continue
        fact = graph.weights.get((call.path, view.kernel))
        if fact is None:
            continue
        kernel = graph.arrays[call.path][view.kernel]
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
            use = cut.call_of[key]
            uses = cut.uses[use.path]
            found.append(
                _Consumer(
                    uses,
                    view,
                    view.matrix(kernel),
                    view.matrix(read_weights(use.layer)[view.kernel]),
                    kept,
                    output_tail(cut, use, len(uses) == 1),
                )
            )
    return found


def _solve(
    consumer: _Consumer,
    passes: Passes,
    count: int,
    max_rows: int,
    ridge: float,
    seed: int,
) -> int:
    """Solve a layer and set its weights; returns how many rows it was solved on."""
    view, tail, uses = consumer.view, consumer.tail, len(consumer.calls)
    most = max(max_rows, 8 * consumer.first.shape[1])
    rng = np.random.default_rng(seed)
    regressions: list[Regression] = []

    def visit(call: Call, values: list[Values]) -> None:
        old, new = (numpy_of(one, call.inputs[0]) for one in values)
        total = view.num_rows(old)
        whole = total // len(old) * count * uses
        wanted = min(total, max(1, round(most * total / whole)))
        chosen = np.sort(rng.choice(total, wanted, replace=False))
        x, y = view.rows(new, chosen), view.rows(old, chosen) @ consumer.target
        other = tail.addend
        if other is not None and all(other in one for one in values):
            # What the other side of the sum has lost is this layer's to make up for.
            full, left = (view.outputs(numpy_of(v, other), chosen) for v in values)
            gap = (full[:, consumer.kept] - left) * tail.unscaled
            y = y + np.moveaxis(gap.reshape(len(gap), len(y), -1), 1, 0)
        if not regressions:
            rows = min(whole, -(-wanted * count * uses // len(old)))
            centred = tail.intercept is not None
            regressions.extend(
                Regression(first, rows, ridge, centred) for first in consumer.first
            )
        for regression, inputs, outputs in zip(regressions, x, y, strict=True):
            regression.add(inputs, outputs.astype("float32", copy=False))

    passes.run(consumer.calls, visit)
    found = [regression.solve() for regression in regressions]
    layer = consumer.calls[0].layer
    weights = dict(read_weights(layer))
    shape = weights[view.kernel].shape
    matrix = np.stack([one for one, _ in found])
    weights[view.kernel] = view.of_matrix(matrix, shape)
    layer.set_weights(list(weights.values()))
    tail.shift(np.concatenate([shift for _, shift in found]))
    return regressions[0].num_rows


def _check_small(graph: ChannelGraph, removed: np.ndarray, small: Any) -> None:
    """Refuse a model that is not what the plan makes."""
    expected = graph.kept_counts(removed)
    layers = trace(small).layers
    for (path, name), shape in expected.items():
        held = read_weights(layers[path]) if path in layers else {}
        found = list(held[name].shape) if name in held else None
        if found != shape:
            raise PlanError(
                "`small` is not what the plan makes of the model; give what "
                f"`plan.apply(model)` returned. Expected: shape {shape} for "
                f"{path}/{name}. Received: {found}"
            )
