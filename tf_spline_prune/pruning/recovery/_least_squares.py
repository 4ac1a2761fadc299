"""`least_squares`: the consumers of a model learn to do without what is gone."""

import functools
import math
from collections.abc import Sequence
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
    with_weights,
)
from tf_spline_prune.errors import CalibrationWarning, PlanError, warn
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._linear_views import LinearView, linear_views
from tf_spline_prune.pruning.recovery._output_tail import OutputTail, output_tail
from tf_spline_prune.pruning.recovery._recording import Recorded, Recording
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
    max_rows: int = 2**12,
    max_bytes: int = 2**29,
    relu_steps: int = 2,
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

    What is refitted: Dense and EinsumDense layers; convolutions, also grouped,
    transposed, depthwise and separable ones; the projections of attention, that out of
    the heads too; the kernels of SimpleRNN, LSTM and GRU, on their inputs and on the
    states that the original has; the scale of a LayerNormalization or an
    RMSNormalization; each of these also inside TimeDistributed and Bidirectional. For a
    layer without bias, the mean of the BatchNormalization behind it is adjusted. Behind
    the first layer that lost inputs, layers that lost none are refitted too, where the
    data are enough. Layers of other kinds keep their weights. Constraints of weights
    are not looked at.

    Where a layer runs into a ReLU, the error is measured behind it: what the ReLU holds
    back in the original and in the result is none.

    Args:
        model: The model that the plan was made for. It is not changed.
        small: What `plan.apply(model)` gave, before any training.
        plan: The plan.
        data: Inputs: an array of shape `(n, *input shape)`, a list of arrays or a dict
            for several inputs, or batches such as a `tf.data.Dataset`. Labels are
            ignored; of sample weights, `(inputs, labels, weights)`, of shape `(n,
            positions)` the positions of weight 0, such as padding, are left out. A few
            hundred are enough.
        ridge: How strongly the present weights are held to, as a fraction of the mean
            square of the layer's inputs; 0 for not at all. Defaults to `1e-3`.
        batch_size: How many inputs run at a time. Defaults to `32`.
        max_inputs: Use this many inputs at most, drawn at random. Defaults to `2048`.
        max_rows: Use about this many output positions of a layer, drawn at random, but
            at least four per weight of an output if there are so many. Defaults to
            `2**12`.
        max_bytes: How much memory intermediate results may take; where they need more,
            they are computed again. Defaults to `2**29`.
        relu_steps: How often a layer before a ReLU is solved again, so that what the
            ReLU holds back in the original and in the result counts as no error; 0
            fits what goes into the ReLU. Defaults to `2`.
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
    Networks", ICCV 2017, section 3; the error behind the ReLU as in Zhang, Zou, He and
    Sun, "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", TPAMI 2016, solved here by majorisation.
    """
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    check_small(graph, removed, small)
    mended = with_weights(small, {})
    given = Calibration.of(data, graph.graph)
    recording = Recording(graph, given, batch_size, max_inputs, max_rows, seed)
    refit(
        graph,
        graph.traced(mended),
        removed,
        recording,
        ridge=ridge,
        max_bytes=max_bytes,
        relu_steps=relu_steps,
    )
    return mended


def refit(
    graph: ChannelGraph,
    cut: Graph,
    removed: np.ndarray,
    recording: Recording,
    *,
    ridge: float = 1e-3,
    max_bytes: int = 2**29,
    relu_steps: int = 2,
) -> None:
    """Do what `least_squares` does, in place.

    Args:
        graph: The original model's channel graph.
        cut: The smaller model, traced; its weights change.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        recording: What the original's products are; recorded now if they are not yet.
        ridge: As in `least_squares`.
        max_bytes: See there.
        relu_steps: See there.
    """
    graphs = [graph.graph, cut]
    wirings = [[(call.key, *call.needs()) for call in one.calls] for one in graphs]
    if wirings[0] != wirings[1]:
        raise PlanError(
            "`small` is not wired as the model is; give what `plan.apply(model)` "
            f"returned. Received: model {cut.model.name!r}"
        )
    recording.run()
    products = _products(graph, cut, removed, recording)
    solve_in_order(products, cut, recording, ridge, relu_steps, max_bytes)


def solve_in_order(
    products: Sequence["Product"],
    cut: Graph,
    recording: Recording,
    ridge: float,
    relu_steps: int,
    max_bytes: int = 2**29,
) -> list["Product"]:
    """Solve products of the small model one after the other, in place.

    Args:
        products: The products, in the order of computation.
        cut: The smaller model, traced; its weights change.
        recording: What the original's products are.
        ridge: As in `least_squares`.
        relu_steps: See there.
        max_bytes: See there. Defaults to `2**29`.

    Returns:
        Those that were solved.
    """
    # What lost nothing need not be solved on too little.
    chosen = [p for p in products if p.lost or p.old.num_rows >= p.sizes[1]]
    warn_if_scarce(chosen, len(recording.data))
    passes = Passes([cut], recording.data, recording.batch_size, max_bytes)
    progress = Progress(len(chosen), "layer")
    for product in chosen:
        solve(product, passes, recording.enough(*product.sizes), ridge, relu_steps)
        progress.step()
    return chosen


@dataclass(eq=False)
class Product:
    """A product of the small model that is to be solved.

    Attributes:
        old: What it is in the original.
        view: How the small model computes it.
        calls: The calls of the small model.
        outputs: Array of shape `(all outputs,)`, bool: those that are kept.
        states: Indices of the original's states that are kept.
        factor: What the layer multiplies the product by since units are gone.
        tail: What lies behind it.
        lost: Whether its layer lost units that it consumes.
    """

    old: Recorded
    view: LinearView
    calls: list[Call]
    outputs: np.ndarray
    states: np.ndarray
    factor: float
    tail: OutputTail
    lost: bool

    @property
    def first(self) -> np.ndarray:
        """The small model's matrices before they are solved."""
        kernel = self.view.joined(read_weights(self.calls[0].layer))
        return self.view.arrangement.matrix(kernel)

    @functools.cached_property
    def sizes(self) -> tuple[int, int, int]:
        """The number of matrices, of weights to solve per output, and of outputs."""
        groups, size, outputs = self.first.shape
        return groups, size, outputs


def _products(
    graph: ChannelGraph, cut: Graph, removed: np.ndarray, recording: Recording
) -> list[Product]:
    """Find the products to solve, in the order in which they can be.

    These are those that lost inputs, and those that see what has changed by that.
    """
    changed: set[Tensor] = set()
    found = []
    for key in graph.graph.branch_by_branch:
        call, use = graph.graph.call_of[key], cut.call_of[key]
        lost = _lost(graph, removed, call)
        if not lost and changed.isdisjoint(call.inputs):
            continue
        changed.update(call.outputs)
        if key == recording.last[call.path]:
            views = linear_views(use)
            for old, view in zip(recording.of[call.path], views, strict=True):
                if old is not None:
                    found.append(_product(graph, removed, old, cut, use, view, lost))
    return found


def _lost(graph: ChannelGraph, removed: np.ndarray, call: Call) -> bool:
    """Return whether a call's layer has lost units that it consumes."""
    return any(
        role == "in" and labels is not None and removed[graph.units_of(labels)].any()
        for name in graph.arrays.get(call.path, ())
        if (fact := graph.weights.get((call.path, name))) is not None
        for labels, role in zip(fact.axes, fact.roles, strict=True)
    )


def _product(
    graph: ChannelGraph,
    removed: np.ndarray,
    old: Recorded,
    cut: Graph,
    use: Call,
    view: LinearView,
    lost: bool,
) -> Product:
    """Find what is kept of a product."""
    stays: dict[str, np.ndarray] = {}
    states = np.zeros(0, int)
    factor = 1.0
    for name in view.kernels:
        fact = graph.weights[use.path, name]
        kept: np.ndarray = np.ones(fact.shape, bool)
        for axis, labels in enumerate(fact.axes):
            if labels is None:
                continue
            stay = ~removed[graph.units_of(labels)]
            if axis not in view.arrangement.summed_axes(kept.ndim):
                kept &= np.expand_dims(stay, [a for a in range(kept.ndim) if a != axis])
            elif view.states is not None and name == view.kernels[-1]:
                states = np.flatnonzero(stay)
        stays[name] = kept
        for rescale in graph.rescales:
            if (rescale.path, rescale.name) == (use.path, name):
                fraction = (~removed[graph.units_of(rescale.labels)]).mean()
                factor *= float(fraction**rescale.exponent)
    made = np.any(old.view.arrangement.matrix(old.view.joined(stays)), axis=1)
    tail = output_tail(cut, use, view, int(made.sum()))
    uses, outputs = cut.uses[use.path], made.ravel()
    return Product(old, view, uses, outputs, states, factor, tail, lost)


def warn_if_scarce(products: list[Product], count: int) -> None:
    """Warn where a layer has more weights to solve than there are positions."""
    scarce = [p for p in products if p.old.num_rows < p.sizes[1]]
    if not scarce:
        return
    enough = max(math.ceil(p.sizes[1] / p.old.num_rows * count) for p in scarce)
    warn(
        f"{count} inputs are fewer than some layers have weights to solve, so their "
        f"solution stays near the present weights; {enough} would do. This concerns: "
        f"{', '.join(dict.fromkeys(product.calls[0].path for product in scarce))}.",
        CalibrationWarning,
    )


def solve(
    product: Product, passes: Passes, enough: int, ridge: float, relu_steps: int
) -> None:
    """Solve a product on what the small model sees, and set its weights."""
    view, tail, kept = product.view, product.tail, product.outputs
    # It has fewer weights than the original; fewer positions are enough, too.
    part = min(1.0, enough / product.old.num_rows)
    seen = [positions.thinned(part) for positions in product.old.seen]
    ends = np.cumsum([len(positions.chosen) for positions in seen])
    # Where the other side of a sum is not known yet, nor are the knots.
    known = tail.addend is None or all(there.addends is not None for there in seen)
    bent = bool(tail.meets_relu and known and relu_steps)
    x, y, knots = (np.zeros(0, "float32") for _ in range(3))
    batch = iter(zip(seen, ends, strict=True))

    def visit(call: Call, found: list[Values]) -> None:
        nonlocal x, y, knots
        (values,), (there, end) = found, next(batch)
        states = None if there.states is None else there.states[:, product.states]
        rows = view.rows(call, values, there.chosen, states)
        if not x.size:  # all at once, for it may be the most that is held
            x = np.empty((len(rows), ends[-1], rows.shape[2]), rows.dtype)
            y = np.empty((ends[-1], kept.sum()), rows.dtype)
            knots = np.empty_like(y) if bent else knots
        at = slice(end - len(there.chosen), end)
        x[:, at] = rows
        y[at] = there.targets[:, kept] * product.factor
        beside = 0.0
        if there.addends is not None and tail.addend is not None:
            # What the other side of the sum has lost is this product's to make up for.
            left = view.arrangement.outputs(numpy_of(values, tail.addend), there.chosen)
            y[at] += (there.addends[:, kept] - left) * tail.unscaled
            beside = left * tail.unscaled
        if bent:
            knots[at] = -tail.offset - beside

    passes.run(product.calls, visit, len(seen) // len(product.calls))
    product.old.seen.clear()
    matrix, intercept = regress(
        x,
        y,
        product.first,
        ridge,
        tail.intercept is not None,
        Sides(knots, np.sign(tail.unscaled)) if bent else None,
        relu_steps,
    )
    layer = product.calls[0].layer
    weights = dict(read_weights(layer))
    shape = view.joined(weights).shape
    weights.update(view.parted(view.arrangement.of_matrix(matrix, shape), weights))
    layer.set_weights(list(weights.values()))
    tail.shift(intercept)


def check_small(graph: ChannelGraph, removed: np.ndarray, small: Any) -> None:
    """Refuse a model that is not what a plan makes.

    Args:
        graph: The original model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        small: What should be what the plan makes.

    Raises:
        PlanError: If it is not.
    """
    expected = graph.kept_counts(removed)
    layers = graph.traced(small).layers
    for (path, name), shape in expected.items():
        held = read_weights(layers[path]) if path in layers else {}
        found = list(held[name].shape) if name in held else None
        if found != shape:
            raise PlanError(
                "`small` is not what the plan makes of the model; give what "
                f"`plan.apply(model)` returned. Expected: shape {shape} for "
                f"{path}/{name}. Received: {found}"
            )
