"""What residual blocks are worth on data: measured by leaving them out."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Ends,
    Graph,
    Progress,
    Values,
    Watcher,
    as_numbers,
    changed_at_inference,
    fitting_batch,
    loss_of_outputs,
    numpy_of,
    states_kept,
    values_kept,
    watch,
)
from tf_spline_prune.pruning.depth._branches import Branch, skipping

# Blocks that go together, in the order of computation.
Run = Sequence[Branch]
# Labels, and one tensor per output.
Loss = Callable[[Any, list[Any]], float]
_BATCH = 32


def costs_without(graph: Graph, runs: Sequence[Run], data: Calibration) -> list[float]:
    """Measure what the model answers without some blocks, for each of several choices.

    Each goes on from where the whole model is, so that nothing before its first block
    is computed again.

    Args:
        graph: The model, traced.
        runs: The choices.
        data: The data.

    Returns:
        For each choice by how much the loss rises; without labels, or a loss that the
        model is compiled with, the mean squared change of what enters the last softmax
        (or is given out), relative to its variance.
    """
    loss = None if data.labels is None else loss_of_outputs(graph.model)
    tally = _Changes(len(runs)) if loss is None else _Losses(len(runs), loss)
    ends = Ends(graph)
    size = fitting_batch(graph, _BATCH)
    progress = Progress(math.ceil(len(data) / (data.at_once or size)), "batch")
    spent = graph.spent([call.key for call in graph.calls])
    states = changed_at_inference(graph.model)

    def answer(values: Values) -> list[Any]:
        if loss is None:
            return ends.of(values)
        return [tensor.among(values) for tensor in graph.output_tensors]

    with states_kept(graph.model):
        for inputs, labels in data.batches(size):
            tensors = [keras.ops.convert_to_tensor(x) for x in inputs]
            values: Values = dict(zip(graph.input_tensors, tensors, strict=True))
            without: dict[int, list[Any]] = {}
            for place, call in enumerate(graph.calls):
                for number, run in enumerate(runs):
                    if call is run[0].add:
                        some = dict(values)
                        # What it changes behind is not there yet for the others.
                        with values_kept(states):
                            for one in skipping(graph, run, place, some):
                                ends.run(one, some)
                            without[number] = answer(some)
                ends.run(call, values)
                for tensor in spent[place]:
                    values.pop(tensor, None)
            tally.add(answer(values), without, labels)
            progress.step()
    return tally.result()


class _Losses:
    """Adds up by how much the loss rises.

    Args:
        count: How many choices there are.
        loss: The loss.
    """

    def __init__(self, count: int, loss: Loss) -> None:
        self._loss = loss
        self._total, self._inputs = np.zeros(count), 0

    def add(self, whole: list[Any], without: dict[int, list[Any]], labels: Any) -> None:
        """Take in what a batch gives, with all blocks and without some."""
        size, base = len(whole[0]), self._loss(labels, whole)
        for number, outputs in without.items():
            self._total[number] += size * (self._loss(labels, outputs) - base)
        self._inputs += size

    def result(self) -> list[float]:
        """Return the mean of each choice."""
        return [float(one) for one in self._total / self._inputs]


class _Changes:
    """Adds up squared changes of outputs, and their variance over the inputs.

    Args:
        count: How many choices there are.
    """

    def __init__(self, count: int) -> None:
        self._changes: Any = np.zeros((count, 1))
        self._inputs = 0
        self._sums: list[Any] = []
        self._squares: list[Any] = []

    def add(self, whole: list[Any], without: dict[int, list[Any]], labels: Any) -> None:
        """Take in what a batch gives, with all blocks and without some."""
        base = [as_numbers(one).astype("float64") for one in whole]
        if not self._inputs:
            self._sums = [0.0] * len(base)
            self._squares = [0.0] * len(base)
            self._changes = np.zeros((len(self._changes), len(base)))
        self._inputs += len(base[0])
        for place, one in enumerate(base):
            self._sums[place] = self._sums[place] + one.sum(axis=0)
            self._squares[place] += float(np.square(one).sum())
            for number, outputs in without.items():
                change = np.square(as_numbers(outputs[place]) - one).sum()
                self._changes[number, place] += change

    def result(self) -> list[float]:
        """Return the mean over the outputs of each choice."""
        spreads = [
            max(squares - float(np.square(sums).sum()) / self._inputs, 0.0)
            for sums, squares in zip(self._sums, self._squares, strict=True)
        ]
        # An output that is the same for all inputs has its size for a spread.
        spreads = [
            spread if spread > 1e-9 * squares else squares or 1.0
            for spread, squares in zip(spreads, self._squares, strict=True)
        ]
        return [float(one) for one in (self._changes / spreads).mean(axis=1)]


def turns(graph: Graph, runs: Sequence[Run], data: Calibration) -> list[float]:
    """Measure by how much blocks turn the stream, for each of several choices.

    Args:
        graph: The model, traced.
        runs: The choices.
        data: The data.

    Returns:
        One minus the cosine of the stream before and behind, the mean over all
        positions.
    """
    total, count = np.zeros(len(runs)), np.zeros(len(runs))
    before: dict[int, np.ndarray] = {}

    def visit(call: Call, values: Values) -> None:
        for number, run in enumerate(runs):
            if call is run[0].add:
                before[number] = numpy_of(values, run[0].stream)
            if call is run[-1].add:
                behind = sum(numpy_of(values, tensor) for tensor in call.inputs)
                cosines = _cosines(before[number], np.asarray(behind), _channels(run))
                total[number] += (1 - cosines).sum()
                count[number] += cosines.size

    keys = {run[place].add.key for run in runs for place in (0, -1)}
    watch(graph, data, _BATCH, [Watcher(keys, visit)])
    return [float(one) for one in total / count]


def _channels(run: Run) -> int:
    """Return the axis of the stream's channels."""
    layers = [layer for branch in run for layer in branch.layers.values()]
    first = any(getattr(x, "data_format", None) == "channels_first" for x in layers)
    return 1 if first else -1


def _cosines(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    """Return the cosine at each position; of nothing with nothing it is one."""
    one, other = one.astype("float64"), other.astype("float64")
    product = (one * other).sum(axis)
    sizes = np.linalg.norm(one, axis=axis) * np.linalg.norm(other, axis=axis)
    equal = (one == other).all(axis)
    cosines = np.where(equal, 1.0, product / np.where(sizes, sizes, 1.0))
    return np.asarray(np.clip(cosines, -1.0, 1.0))
