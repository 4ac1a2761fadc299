"""Running models on calibration data, while others look on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._progress import Progress
from tf_spline_prune.compat.data._calibration import Calibration, Watcher
from tf_spline_prune.compat.graph._graph import Call, Graph, Tensor, Values, run_calls
from tf_spline_prune.compat.run._execution import call_layer, on_host
from tf_spline_prune.compat.run._states import changed_at_inference, values_kept

Visit = Callable[[Call, list[Values]], None]

# So many numbers may stand in the largest tensor of a batch.
_AT_ONCE = 2**25


def watch(
    graph: Graph, data: Calibration, batch_size: int, watchers: Sequence[Watcher]
) -> None:
    """Run all data through a model once, while others look on.

    Args:
        graph: The model, traced.
        data: The data.
        batch_size: How many inputs run at a time, at most: fewer if they are large.
        watchers: Who looks on, and where; the company of the data does so, too.
    """
    watchers = [*watchers, *data.company]
    keys = {key for watcher in watchers for key in watcher.keys}
    order = graph.branch_by_branch
    last = max((place for place, key in enumerate(order) if key in keys), default=-1)
    spent = graph.spent(order)
    size = fitting_batch(graph, batch_size)
    states = changed_at_inference(graph.model)
    progress = Progress(math.ceil(len(data) / (data.at_once or size)), "batch")
    for part in data.parts(size) if keys else ():
        with values_kept(states):
            tensors = [keras.ops.convert_to_tensor(x) for x in part.inputs]
            values: Values = dict(zip(graph.input_tensors, tensors, strict=True))
            part.note_positions(values)
            for place, key in enumerate(order[: last + 1]):
                call = graph.call_of[key]
                for watcher in watchers:
                    if key in watcher.keys:
                        watcher.visit(call, values)
                if place < last:
                    run_calls([call], values, call_layer)
                for tensor in spent[place]:
                    values.pop(tensor, None)
        progress.step()


def fitting_batch(graph: Graph, batch_size: int) -> int:
    """Return how many inputs can run at a time, so that no tensor is too large."""
    sizes = [
        math.prod(size or 1 for size in shape[1:])
        for call in graph.calls
        for shape in call.output_shapes
    ]
    return max(1, min(batch_size, _AT_ONCE // max([1, *sizes])))


class Passes:
    """Runs models of the same wiring side by side, again and again.

    Whoever changes the weights of a layer needs what goes into the next one, after
    the change. The tensors at which a pass stopped are kept where they fit into
    memory, so that the next pass goes on from there and not from the inputs.

    Args:
        graphs: The models, of equal keys; the first gives the order.
        data: The calibration data.
        batch_size: How many inputs run at a time.
        max_bytes: How much memory the kept tensors may take.

    Attributes:
        order: The keys of the calls, in the order of running.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        data: Calibration,
        batch_size: int = 32,
        max_bytes: int = 2**29,
    ) -> None:
        self.graphs = graphs
        self.order = graphs[0].branch_by_branch
        self.max_bytes = max_bytes
        self._states = changed_at_inference(*(graph.model for graph in graphs))
        self._spent = [graph.spent(self.order) for graph in graphs]
        self._start: list[list[Values]] = [
            [dict(zip(graph.input_tensors, x, strict=True)) for graph in graphs]
            for x, _ in data.batches(batch_size)
        ]
        # Of each batch, the place that it has come to and what is live there.
        self._kept = [(0, values) for values in self._start]

    def run(
        self, calls: Sequence[Call], visit: Visit, batches: int | None = None
    ) -> None:
        """Run the data up to the last of some calls, which itself is not run.

        The next pass goes on from the first of them, or from the inputs if it is to
        start before.

        Args:
            calls: The calls of interest, of any of the models.
            visit: Called as `visit(call, values)` for each batch, before each of the
                calls would run, with the first model's call and the tensors of each
                model.
            batches: How many of the batches run. Defaults to `None`, which means all.
        """
        places = [self.order.index(call.key) for call in calls]
        first, last = min(places), max(places)
        keep = True
        live = [graph.live(self.order, first) for graph in self.graphs]
        count = len(self._kept) if batches is None else batches
        for number in range(count):
            at, kept = self._kept[number]
            if first < at:
                at, kept = 0, self._start[number]
            # Every batch begins from the states that the models have.
            with values_kept(self._states):
                values = [
                    {name: keras.ops.convert_to_tensor(x) for name, x in one.items()}
                    for one in kept
                ]
                self._forward(at, first, values)
                if keep:
                    fresh = [
                        {name: on_host(one[name]) for name in wanted}
                        for one, wanted in zip(values, live, strict=True)
                    ]
                    size = sum(x.nbytes for one in fresh for x in one.values())
                    keep = size * count <= self.max_bytes
                    if keep:
                        at, kept = first, fresh
                self._kept[number] = at, kept
                for place in range(first, last + 1):
                    if place in places:
                        visit(self.graphs[0].call_of[self.order[place]], values)
                    if place < last:
                        self._forward(place, place + 1, values)

    def _forward(self, first: int, last: int, values: list[Values]) -> None:
        """Run the calls from `first` to before `last`, and drop what is spent."""
        for place in range(first, last):
            for graph, one, spent in zip(self.graphs, values, self._spent, strict=True):
                run_calls([graph.call_of[self.order[place]]], one, call_layer)
                for tensor in spent[place]:
                    one.pop(tensor, None)


def numpy_of(values: Values, tensor: Tensor) -> np.ndarray:
    """Bring a tensor to the host, as float32 where it is a number."""
    return as_numbers(values[tensor])


def as_numbers(value: Any) -> np.ndarray:
    """Bring a value to the host, as float32 unless it is float64."""
    array = on_host(value)
    return array if array.dtype == np.float64 else array.astype("float32", copy=False)
