"""`LayerByLayer`: each layer on what its pruned predecessors hand on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    MaskSlot,
    Passes,
    Progress,
    Values,
    numpy_of,
    read_weights,
    zeroed,
)
from tf_spline_prune.errors import CalibrationWarning, warn
from tf_spline_prune.masking._slots import kernel_axes_of
from tf_spline_prune.masking.one_shot._layer_masks import MaskRule, allocation_scores
from tf_spline_prune.masking.one_shot._layer_problem import Moments
from tf_spline_prune.masking.one_shot._solve_on_mask import solve_on_mask
from tf_spline_prune.pruning.recovery._linear_views import (
    LinearView,
    linear_views,
    one_per_kernel,
    same_ranks,
)
from tf_spline_prune.pruning.recovery._output_tail import OutputTail, output_tail


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A masked weight that is read as a matrix product.

    Attributes:
        calls: The calls of its layer in the masked model.
        view: How it is read; all there is to know of the kind of layer.
        slot: The weight and its mask.
        target: The weight of the original, a stack of shape `(groups, n, m)`.
        tail: What lies behind it.
    """

    calls: list[Call]
    view: LinearView
    slot: MaskSlot
    target: np.ndarray
    tail: OutputTail

    @property
    def run(self) -> int:
        """How many consecutive inputs there are at one place of a window."""
        axis = kernel_axes_of(self.slot).input_axis
        length = int(self.slot.weight.shape[axis])
        return self.target.shape[1] if self.target.shape[1] % length else length

    def gone(self) -> np.ndarray:
        """Return what the mask removes: a stack, bool."""
        return ~self.view.arrangement.matrix(self.slot.keep())

    def write(self, keep: np.ndarray, weights: np.ndarray, shift: np.ndarray) -> None:
        """Set the mask and the weights, and add to the intercept.

        Args:
            keep: A stack, bool.
            weights: A stack.
            shift: Array of shape `(groups * m,)`.
        """
        shape = tuple(self.slot.weight.shape)
        stay = self.view.arrangement.of_matrix(keep, shape)
        array = self.view.arrangement.of_matrix(weights, shape).astype(
            self.slot.read().dtype
        )
        self.slot.write(stay, zeroed(array, stay))
        if shift.any():
            self.tail.shift(shift)


def linear_layers(
    original: Graph, masked: Graph, slots: Sequence[MaskSlot]
) -> list[LinearLayer]:
    """Find the masked weights that can be read so, in the order of computation.

    Args:
        original: The model.
        masked: Its masked copy.
        slots: Masked weights of the copy.
    """
    wanted = {(slot.path, slot.name): slot for slot in slots}
    order = original.branch_by_branch
    last = {masked.call_of[key].path: key for key in order}
    found = []
    for key in order:
        call = masked.call_of[key]
        if key != last[call.path] or not same_ranks(masked.uses[call.path]):
            continue
        for whole in linear_views(call):
            for view in one_per_kernel(whole):
                (name,) = view.kernels
                if (call.path, name) not in wanted:
                    continue
                kernel = read_weights(original.call_of[key].layer)[name]
                target = view.arrangement.matrix(kernel)
                tail = output_tail(masked, call, view, len(target) * target.shape[-1])
                slot, uses = wanted[call.path, name], masked.uses[call.path]
                found.append(LinearLayer(uses, view, slot, target, tail))
    return found


_ROWS = 8  # per unknown of an output


class LayerByLayer:
    """Goes through the masked weights of a model in the order of computation.

    Args:
        original: The model.
        masked: Its masked copy, which changes.
        slots: Masked weights of the copy.
        data: Inputs.
        refit: Whether the weights that are kept are solved again.
        ridge: How strongly the present weights are held to, as a fraction of the mean
            square of the layer's inputs.
        batch_size: How many inputs run at a time.
        max_rows: How many rows of a layer are read, about; eight per input if more.
        max_bytes: How much memory intermediate results may take.
        seed: Seed of the draw of rows.

    Attributes:
        layers: The weights that are read as matrix products.
    """

    def __init__(
        self,
        original: Graph,
        masked: Graph,
        slots: Sequence[MaskSlot],
        data: Calibration,
        *,
        refit: bool,
        ridge: float,
        batch_size: int,
        max_rows: int,
        max_bytes: int,
        seed: int,
    ) -> None:
        self.layers = linear_layers(original, masked, slots)
        self.graphs = [original, masked]
        self.data = data
        self.refit = refit
        self.ridge = ridge
        self.batch_size = batch_size
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.seed = seed

    def allocated(self, rule: MaskRule, fractions: Sequence[float]) -> list[float]:
        """Share out what is to go among the layers, as the original model says.

        Args:
            rule: What chooses the masks.
            fractions: The fraction that each layer is asked for, all the same.

        Returns:
            The fraction of each layer.
        """
        if not fractions:
            return []
        passes = self._passes(self.graphs[:1])
        scores = [
            allocation_scores(self._measured(layer, passes).problem(self.ridge))
            for layer in self.layers
        ]
        return rule.allocated(
            scores, [layer.run for layer in self.layers], max(fractions)
        )

    def run(self, rule: MaskRule | None, fractions: Sequence[float]) -> None:
        """Mask and solve.

        Args:
            rule: What chooses the masks; `None` where they are set.
            fractions: The fraction of each layer that is to go.
        """
        passes = self._passes(self.graphs)
        progress = Progress(len(self.layers), "layer")
        scarce: dict[str, int] = {}
        solves = self.refit or (rule is not None and rule.method != "wanda")
        for layer, fraction in zip(self.layers, fractions, strict=True):
            moments = self._measured(layer, passes)
            problem = moments.problem(self.ridge)
            size, rows = problem.gram.shape[1], moments.num_rows
            if solves and rows < size:
                wanted = _ROWS * size * len(self.data) / rows
                scarce[layer.slot.key] = math.ceil(wanted)
            keep, weights = ~layer.gone(), problem.first
            if rule is not None:
                keep, weights = rule(problem, layer.run, fraction, ~keep)
            if self.refit:
                weights = solve_on_mask(problem, keep)
            layer.write(keep, weights, moments.intercept(weights))
            progress.step()
        if scarce:
            warn(
                f"{len(self.data)} inputs are fewer than some layers have weights to "
                "solve, so their solution stays near the present weights. About "
                f"{max(scarce.values()):,} inputs would do. This concerns: "
                f"{', '.join(scarce)}.",
                CalibrationWarning,
            )

    def _passes(self, graphs: Sequence[Graph]) -> Passes:
        return Passes(graphs, self.data, self.batch_size, self.max_bytes)

    def _measured(self, layer: LinearLayer, passes: Passes) -> Moments:
        """Sum up what a layer reads in the last model, and answers in the first."""
        view, tail, uses = layer.view, layer.tail, len(layer.calls)
        how = view.arrangement
        most = max(self.max_rows, _ROWS * layer.target.shape[1])
        rng = np.random.default_rng(self.seed)
        centred = self.refit and tail.intercept is not None
        moments = Moments(how.matrix(layer.slot.read()), centred)

        def visit(call: Call, values: list[Values]) -> None:
            both = list(
                zip(
                    [graph.call_of[call.key] for graph in passes.graphs],
                    values,
                    strict=True,
                )
            )
            taken = view.taken(*both[0])
            total = how.num_rows(taken)
            whole = total // len(taken) * len(self.data) * uses
            wanted = min(total, max(1, round(most * total / whole)))
            chosen = np.sort(rng.choice(total, wanted, replace=False))
            states = None
            if view.states is not None:  # those of the original, which it shall have
                states = how.rows(view.states(*both[0]), chosen)[0]
            y = view.rows(*both[0], chosen, states) @ layer.target
            x = view.rows(*both[-1], chosen, states)
            other = tail.addend
            if self.refit and other is not None and all(other in v for v in values):
                # What the other side of the sum has lost is made up for here.
                full, left = (
                    how.outputs(numpy_of(v, other), chosen)
                    for v in (values[0], values[-1])
                )
                gap = (full - left) * tail.unscaled
                y = y + np.moveaxis(gap.reshape(len(gap), len(y), -1), 1, 0)
            moments.add(x, y.astype("float32", copy=False))

        passes.run(layer.calls, visit)
        return moments
