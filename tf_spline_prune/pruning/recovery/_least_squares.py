"""`least_squares`: the consumers of a model learn to do without what is gone."""

import functools
import math
from dataclasses import dataclass, field
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
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._linear_views import LinearView, linear_views
from tf_spline_prune.pruning.recovery._output_tail import OutputTail, output_tail
from tf_spline_prune.pruning.recovery._regression import Sides, regress


@checked(
    plan=PLAN,
    ridge=Real(0),
    batch_size=COUNT,
    max_inputs=COUNT,
    max_rows=COUNT,
    max_bytes=Integer(1),
    relu_steps=Integer(0),
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
    max_rows: int = 2**13,
    max_bytes: int = 2**29,
    relu_steps: int = 10,
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
        relu_steps: How often a layer before a ReLU is solved again, so that what the
            ReLU holds back in the original and in the result counts as no error; 0
            fits what goes into the ReLU. Defaults to `10`.
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
        relu_steps=relu_steps,
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
    max_rows: int = 2**13,
    max_bytes: int = 2**29,
    relu_steps: int = 10,
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
        relu_steps: See there.
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
    products = _products(graph, removed, cut)
    if not products:
        return
    progress = Progress(1 + len(products), "layer")
    _look(
        products, Passes([graph.graph], data, batch_size, 0), len(data), max_rows, seed
    )
    progress.step()
    passes = Passes([cut], data, batch_size, max_bytes)
    for product in products:
        _solve(product, passes, ridge, relu_steps)
        progress.step()
    scarce = [product for product in products if product.is_scarce]
    if scarce:
        most = max(product.size for product in scarce)
        per_input = min(product.num_rows / len(data) for product in scarce)
        warn(
            f"{len(data)} inputs are fewer than some layers have weights to solve, so "
            "their solution stays near the present weights. "
            f"{math.ceil(most / max(per_input, 1))} would do. This concerns: "
            f"{', '.join(dict.fromkeys(p.call.path for p in scarce))}.",
            CalibrationWarning,
        )


@dataclass
class _Positions:
    """Some positions of one batch at one call, and what was there in the original.

    Attributes:
        chosen: Indices of rows.
        targets: Array of shape `(rows, outputs)`: the product in the original.
        addends: What is added to it behind, in the original; `None` if nothing is.
        states: The layer's states in the original that the small one has, too.
    """

    chosen: np.ndarray
    targets: np.ndarray
    addends: np.ndarray | None
    states: np.ndarray | None


@dataclass(eq=False)
class _Product:
    """A product of the small model that is to be solved.

    Attributes:
        old: How the original computes it.
        view: How the small model does.
        calls: The calls of the small model.
        target: The original's matrices: all inputs, the kept outputs.
        groups: Indices of the original's matrices that are kept.
        outputs: Array of shape `(all outputs,)`, bool: those that are kept.
        states: Indices of the original's states that are kept.
        tail: What lies behind it.
        seen: What was at the chosen positions, batch by batch and call by call.
    """

    old: LinearView
    view: LinearView
    calls: list[Call]
    target: np.ndarray
    groups: np.ndarray
    outputs: np.ndarray
    states: np.ndarray
    tail: OutputTail
    seen: list[_Positions] = field(default_factory=list)

    @property
    def call(self) -> Call:
        """The first of its calls."""
        return self.calls[0]

    @functools.cached_property
    def first(self) -> np.ndarray:
        """The small model's matrices before they are solved."""
        kernel = self.view.joined(read_weights(self.call.layer))
        return self.view.arrangement.matrix(kernel)

    @property
    def size(self) -> int:
        """The number of weights to solve per output."""
        return int(self.first.shape[1])

    @property
    def num_rows(self) -> int:
        """The number of positions that it is solved on."""
        return sum(len(positions.chosen) for positions in self.seen)

    @property
    def is_scarce(self) -> bool:
        """Whether there are fewer positions than weights to solve."""
        return self.num_rows < self.size


def _products(graph: ChannelGraph, removed: np.ndarray, cut: Graph) -> list[_Product]:
    """Find the products to solve, in the order in which they can be.

    These are those that lost inputs, and those that see what has changed by that.
    """
    order = graph.graph.branch_by_branch
    last = {graph.graph.call_of[key].path: key for key in order}
    changed: set[Tensor] = set()
    found = []
    for key in order:
        call, use = graph.graph.call_of[key], cut.call_of[key]
        touched = not changed.isdisjoint(call.inputs) or _lost(graph, removed, call)
        views = list(zip(linear_views(call), linear_views(use), strict=True))
        for old, view in views:
            product = _product(graph, removed, call, cut, old, view)
            if touched and product is not None and key == last[call.path]:
                found.append(product)
        if touched:
            changed.update(call.outputs)
    return found


def _product(
    graph: ChannelGraph,
    removed: np.ndarray,
    call: Call,
    cut: Graph,
    old: LinearView,
    view: LinearView,
) -> _Product | None:
    """Read one product; `None` where it is not known what its axes are."""
    arrays: dict[str, np.ndarray] = {}
    stays: dict[str, np.ndarray] = {}
    states = np.zeros(0, int)
    for name in old.kernels:
        fact = graph.weights.get((call.path, name))
        if fact is None:
            return None
        array = graph.arrays[call.path][name]
        kept: np.ndarray = np.ones(array.shape, bool)
        for axis, labels in enumerate(fact.axes):
            if labels is None:
                continue
            stay = ~removed[graph.units_of(labels)]
            if axis not in old.arrangement.summed_axes(array.ndim):
                array = np.compress(stay, array, axis)
                kept &= np.expand_dims(stay, [a for a in range(kept.ndim) if a != axis])
            elif old.states is not None and name == old.kernels[-1]:
                states = np.flatnonzero(stay)
        for rescale in graph.rescales:
            if (rescale.path, rescale.name) == (call.path, name):
                fraction = (~removed[graph.units_of(rescale.labels)]).mean()
                array = array * fraction**rescale.exponent
        arrays[name], stays[name] = array, kept
    target = view.arrangement.matrix(old.joined(arrays))
    made = np.any(old.arrangement.matrix(old.joined(stays)), axis=1)
    groups = np.flatnonzero(np.any(made, axis=1))
    outputs = made.ravel()
    use = cut.call_of[call.key]
    tail = output_tail(cut, use, view, int(outputs.sum()))
    uses = cut.uses[use.path]
    return _Product(old, view, uses, target, groups, outputs, states, tail)


def _lost(graph: ChannelGraph, removed: np.ndarray, call: Call) -> bool:
    """Return whether a call's layer has lost units that it consumes."""
    return any(
        role == "in" and labels is not None and removed[graph.units_of(labels)].any()
        for name in graph.arrays.get(call.path, ())
        if (fact := graph.weights.get((call.path, name))) is not None
        for labels, role in zip(fact.axes, fact.roles, strict=True)
    )


# So many numbers may stand in the rows of one product.
_MOST_NUMBERS = 2**26


def _wanted(product: _Product, max_rows: int) -> int:
    """Say how many positions a product is solved on, if there are so many.

    Eight per weight of an output come within some percent of what all would give.
    """
    size = product.size * len(product.first)
    fitting = max(2 * product.size, _MOST_NUMBERS // size)
    return min(max(max_rows, 8 * product.size), fitting)


def _look(
    products: list[_Product], passes: Passes, count: int, max_rows: int, seed: int
) -> None:
    """Keep what the products were in the original, at positions drawn at random."""
    by_path: dict[str, list[_Product]] = {}
    for product in products:
        by_path.setdefault(product.call.path, []).append(product)
    rng = np.random.default_rng(seed)

    def visit(call: Call, found: list[Values]) -> None:
        (values,) = found
        for product in by_path[call.path]:
            view, uses = product.old, len(product.calls)
            states = None if view.states is None else view.states(call, values)
            some = view.taken(call, values)
            total = view.arrangement.num_rows(some)
            whole = total // len(some) * count * uses
            wanted = _wanted(product, max_rows)
            number = min(total, max(1, round(wanted * total / whole)))
            chosen = np.sort(rng.choice(total, number, replace=False))
            if states is not None:
                states = view.arrangement.rows(states, chosen)[0]
            rows = view.rows(call, values, chosen, states)
            targets = (rows[product.groups] @ product.target).swapaxes(0, 1)
            addend = product.tail.addend
            added = None
            if addend is not None and addend in values:
                full = view.arrangement.outputs(numpy_of(values, addend), chosen)
                added = full[:, product.outputs]
            if states is not None:
                states = states[:, product.states]
            targets = targets.reshape(number, -1).astype(rows.dtype, copy=False)
            product.seen.append(_Positions(chosen, targets, added, states))

    passes.run([call for product in products for call in product.calls], visit)


def _solve(product: _Product, passes: Passes, ridge: float, relu_steps: int) -> None:
    """Solve a product on what the small model sees, and set its weights."""
    view, tail = product.view, product.tail
    seen = iter(product.seen)
    x, y, knots = [], [], []

    def visit(call: Call, found: list[Values]) -> None:
        (values,), there = found, next(seen)
        x.append(view.rows(call, values, there.chosen, there.states))
        targets, knot = (
            there.targets,
            np.broadcast_to(-tail.offset, there.targets.shape),
        )
        if there.addends is not None and tail.addend is not None:
            # What the other side of the sum has lost is this product's to make up for.
            left = numpy_of(values, tail.addend)
            beside = view.arrangement.outputs(left, there.chosen)
            targets = targets + (there.addends - beside) * tail.unscaled
            knot = knot - beside * tail.unscaled
        y.append(targets.astype(x[-1].dtype, copy=False))
        if tail.meets_relu:
            knots.append(knot.astype(x[-1].dtype))

    passes.run(product.calls, visit)
    sides = None
    if knots and relu_steps:
        sides = Sides(np.concatenate(knots), np.sign(tail.unscaled))
    matrix, intercept = regress(
        np.concatenate(x, axis=1),
        np.concatenate(y),
        product.first,
        ridge,
        tail.intercept is not None,
        sides,
        relu_steps,
    )
    layer = product.call.layer
    weights = dict(read_weights(layer))
    shape = view.joined(weights).shape
    weights.update(view.parted(view.arrangement.of_matrix(matrix, shape), weights))
    layer.set_weights(list(weights.values()))
    tail.shift(intercept)
    product.seen.clear()


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
