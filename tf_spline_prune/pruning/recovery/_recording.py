"""`Recording`: what the products of a model are on calibration data."""

import math
from dataclasses import dataclass, field

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Tensor,
    Values,
    Watcher,
    counted,
    numpy_of,
    watch,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.recovery._linear_views import (
    LinearView,
    linear_views,
    same_ranks,
)
from tf_spline_prune.pruning.recovery._output_tail import output_tail

# So many positions are recorded per weight of an output, if there are so many: more
# would hardly change a solution.
_PER_WEIGHT = 4
# So many numbers may stand in the rows of one product, and so many in what it makes
# of them, unless it takes more for the number of its weights.
_MOST_NUMBERS = 2**26
_MOST_OUTPUTS = 2**21
# Positions of one input resemble each other: these come of so many inputs at least, if
# there are so many, and of each no more than this part of its positions.
_LEAST_INPUTS = 128
_PART = 0.25


@dataclass
class Positions:
    """Some positions of one batch at one call, and what is there.

    Attributes:
        chosen: Indices of rows.
        targets: Array of shape `(rows, outputs)`: the product.
        addends: Array of this shape, what is added to it behind; `None` if nothing is.
        states: Array of shape `(rows, states)`, the layer's own; `None` if it has none.
    """

    chosen: np.ndarray
    targets: np.ndarray
    addends: np.ndarray | None
    states: np.ndarray | None

    def thinned(self, part: float) -> "Positions":
        """Take a part of the positions, evenly over the batch."""
        count = len(self.chosen)
        some = np.linspace(0, count, math.ceil(part * count), False).astype(int)
        if len(some) == count:
            return self
        return Positions(
            self.chosen[some],
            self.targets[some],
            None if self.addends is None else self.addends[some],
            None if self.states is None else self.states[some],
        )


@dataclass(eq=False)
class Recorded:
    """A product, and what it is at positions drawn at random.

    Attributes:
        view: How the model computes it.
        matrix: Its matrices, until it is recorded.
        addend: The tensor that it is added to; `None` if there is none.
        rng: Draws the positions.
        seen: Batch by batch, call by call; of the first batches only, if these have
            positions enough.
        num_inputs: Of how many inputs that is.
        first_batch: Of how many inputs the first batch was.
        looks: Whether the batch at hand is recorded.
    """

    view: LinearView
    matrix: np.ndarray
    addend: Tensor | None
    rng: np.random.Generator
    seen: list[Positions] = field(default_factory=list)
    num_inputs: int = 0
    first_batch: int = 0
    looks: bool = True

    @property
    def num_rows(self) -> int:
        """The number of positions."""
        return sum(len(positions.chosen) for positions in self.seen)


class Recording:
    """What the products of a model are on calibration data, before it is pruned.

    Args:
        graph: The model's channel graph.
        data: The data.
        batch_size: How many inputs run at a time.
        max_inputs: Of how many inputs, drawn at random.
        max_rows: How many positions of each product are recorded, about, unless it
            takes more for the number of its weights.
        seed: Seed of the draw, for each product anew.

    Attributes:
        data: The inputs that are drawn, in random order.
        batch_size: How many run at a time, or ran; who runs them again must take as
            many.
        of: For each layer's path its products; `None` for one that is not known.
        first: For each layer's path the key of its first call.
        last: The same of its last call.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        data: Calibration,
        batch_size: int = 32,
        max_inputs: int = 2048,
        max_rows: int = 2**12,
        seed: int = 0,
    ) -> None:
        self.data = data.drawn(max_inputs, seed)
        self.batch_size = batch_size
        self.max_rows = max_rows
        self.graph = graph
        self.seed = seed
        order = graph.graph.branch_by_branch
        self.last = {graph.graph.call_of[key].path: key for key in order}
        self.first = {graph.graph.call_of[key].path: key for key in reversed(order)}
        self.of = {
            path: self._products(graph.graph.call_of[key])
            for path, key in self.last.items()
        }
        # Whoever runs the same draw through the model lets this look on.
        keys = [call.key for call in graph.graph.calls if any(self.of[call.path])]
        self.data.company.append(Watcher(keys, self._visit))

    def _products(self, call: Call) -> list[Recorded | None]:
        """List the products of a layer."""
        found: list[Recorded | None] = []
        for view in linear_views(call):
            known = all((call.path, n) in self.graph.weights for n in view.kernels)
            if known and same_ranks(self.graph.graph.uses[call.path]):
                arrays = self.graph.arrays[call.path]
                matrix = view.arrangement.matrix(view.joined(arrays))
                outputs = len(matrix) * matrix.shape[-1]
                tail = output_tail(self.graph.graph, call, view, outputs)
                rng = np.random.default_rng(self.seed)
                found.append(Recorded(view, matrix, tail.addend, rng))
            else:
                found.append(None)
        return found

    def run(self) -> None:
        """Record, unless it is done; the matrices are not needed any more then."""
        products = [one for found in self.of.values() for one in found if one]
        if not any(product.seen for product in products):
            watch(self.graph.graph, self.data, self.batch_size, [])
        self.data.company.clear()
        first = [len(product.seen) and product.first_batch for product in products]
        self.batch_size = max([1, *first])
        for product in products:
            product.matrix = product.matrix[:, :0].copy()

    def _visit(self, call: Call, values: Values) -> None:
        for product in self.of[call.path]:
            if product is not None:
                self._look(product, call, values)

    def _look(self, product: Recorded, call: Call, values: Values) -> None:
        """Record some positions of a batch, unless there are enough."""
        view, arrangement = product.view, product.view.arrangement
        taken = view.taken(call, values)
        total = arrangement.num_rows(taken)
        # Windows, or other positions, may stand on the batch axis.
        size = max(1, len(taken) // (self.graph.times.get(call.key) or 1))
        each = total / size
        wanted = self.enough(*product.matrix.shape)
        inputs = max(_LEAST_INPUTS, math.ceil(wanted / max(1.0, _PART * each)))
        inputs = min(len(self.data), inputs)
        if call.key == self.first[call.path]:  # and so it is for the further uses
            product.looks = product.num_inputs < inputs
            product.num_inputs += size
            product.first_batch = product.first_batch or size
        if not product.looks:
            return
        uses = len(self.graph.graph.uses[call.path])
        count = counted(values, taken, total)
        free = np.arange(total) if count is None else np.flatnonzero(count)
        number = min(len(free), max(1, round(wanted * size / inputs / uses)))
        chosen = np.sort(product.rng.choice(free, number, replace=False))
        states = None
        if view.states is not None:
            states = arrangement.rows(view.states(call, values), chosen)[0]
        rows = view.rows(call, values, chosen, states, taken)
        matrix = product.matrix.astype(rows.dtype, copy=False)
        targets = (rows @ matrix).swapaxes(0, 1).reshape(number, -1)
        addends = None
        if product.addend is not None and product.addend in values:
            addends = arrangement.outputs(numpy_of(values, product.addend), chosen)
        product.seen.append(Positions(chosen, targets, addends, states))

    def enough(self, groups: int, size: int, outputs: int) -> int:
        """Return how many positions are enough, for matrices of this shape."""
        usual = min(self.max_rows, _MOST_OUTPUTS // (groups * outputs))
        fitting = max(2 * size, _MOST_NUMBERS // (groups * size))
        return min(max(usual, _PER_WEIGHT * size), fitting)
