"""`Calibration`: inputs, and labels where there are any, checked and in memory."""

import contextlib
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.compat.data._data_range import warn_of_misfit
from tf_spline_prune.compat.graph._blueprint import Input
from tf_spline_prune.compat.graph._graph import Call, Graph, Tensor, Values, fixed_size
from tf_spline_prune.compat.run._execution import to_numpy
from tf_spline_prune.errors import CalibrationError, CalibrationWarning, warn

# What stands for the positions that count, among the tensors of a batch.
_COUNTED = Tensor("positions that count")


@dataclass(frozen=True, eq=False)
class Watcher:
    """Who wants to see what goes into some calls.

    Attributes:
        keys: The keys of the calls.
        visit: Called as `visit(call, values)` before one of them runs, batch by batch,
            with the tensors that there are.
    """

    keys: Collection[str]
    visit: Callable[[Call, Values], None]


@dataclass(frozen=True, eq=False)
class Calibration:
    """A few hundred inputs of a model, on which it is looked at.

    Attributes:
        inputs: One array per input of the model, of shape `(n, *input shape)`.
        labels: What the model should answer, as the model's loss takes it; `None`
            where there are no labels.
        counts: Array of shape `(n, positions)`, bool: which positions of a sequence
            count; `None` if all do.
        at_once: How many inputs the model takes at a time, if it fixes that; there
            is a multiple of it.
        company: Who looks on when just these inputs run through the model.
        draws: What has been drawn of them.
    """

    inputs: list[np.ndarray]
    labels: Any = None
    counts: np.ndarray | None = None
    at_once: int | None = None
    company: list[Watcher] = field(default_factory=list)
    draws: dict[tuple[int, int], "Calibration"] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batches(self, size: int) -> Iterator[tuple[list[np.ndarray], Any]]:
        """Yield the inputs and labels, `size` at a time, always in one order.

        A model that fixes the size of its batches gets batches of that size.
        """
        for part in self.parts(size):
            yield part.inputs, part.labels

    def parts(self, size: int) -> Iterator["Calibration"]:
        """Yield the data, `size` inputs at a time, as `batches` does."""
        size = self.at_once or size
        for start in range(0, len(self), size):
            yield self._at(slice(start, start + size))

    def note_positions(self, values: Values) -> None:
        """Write down which positions of these inputs count, for `counted`."""
        if self.counts is not None:
            values[_COUNTED] = self.counts

    def drawn(self, most: int, seed: int) -> "Calibration":
        """Draw at most so many inputs, with their labels, in random order.

        Who draws the same has the same object, and the same company.
        """
        most = min(most, len(self))
        most = max(most - most % (self.at_once or 1), self.at_once or 1)
        if (most, seed) not in self.draws:
            order = np.random.default_rng(seed).permutation(len(self))
            self.draws[most, seed] = self._at(order[:most])
        return self.draws[most, seed]

    def _at(self, chosen: Any) -> "Calibration":
        labels = self.labels
        if labels is not None:  # which would be a leaf
            labels = keras.tree.map_structure(lambda y: y[chosen], labels)
        inputs = [x[chosen] for x in self.inputs]
        counts = None if self.counts is None else self.counts[chosen]
        return Calibration(inputs, labels, counts, self.at_once)

    @classmethod
    def of(cls, data: Any, graph: Graph, trained: bool = True) -> "Calibration":
        """Take in what a user calls data, and warn if they are not the model's.

        Args:
            data: Inputs (an array; a list of arrays or a dict by input name for a
                model with several), a tuple of inputs and labels and perhaps sample
                weights, or an iterable of batches of these: a `tf.data.Dataset`, a
                `keras.utils.Sequence`. Of sample weights of shape `(n, positions)` it
                is looked at which are zero: these positions, of padding, do not count.
            graph: The traced model.
            trained: Whether a model that has been trained should know the labels.

        Returns:
            The data, in memory.

        Raises:
            CalibrationError: If it is empty, endless, misshapen or not finite.
        """
        if isinstance(data, cls):
            return data
        if hasattr(data, "__array__") or isinstance(data, (list, tuple, Mapping)):
            given, labels, weights = _split(data)
        else:
            given, labels, weights = _gathered(data)
        inputs = graph.inputs
        arrays = check_inputs(given, inputs, "calibration data", CalibrationError)
        if labels is not None:
            received_labels = received(labels)
            labels = keras.tree.map_structure(to_numpy, labels)
            if any(y.ndim == 0 for y in keras.tree.flatten(labels)):
                raise CalibrationError(
                    "Labels are arrays, one label per input. Received: "
                    f"labels={received_labels}"
                )
            counts = {len(y) for y in keras.tree.flatten(labels)}
            if counts != {len(arrays[0])}:
                raise CalibrationError(
                    f"Expected one label per input, that is {len(arrays[0])}. "
                    f"Received: {sorted(counts)} labels"
                )
        ordered = arranged(given, inputs, "calibration data", CalibrationError)
        known = labels if trained else None
        warn_of_misfit(graph, [to_numpy(x) for x in ordered], known)
        positions = _counted_positions(weights, len(arrays[0]))
        return _whole_batches(cls(arrays, labels, positions, fixed_size(inputs)))


def counted(values: Values, array: np.ndarray, rows: int) -> np.ndarray | None:
    """Find which rows of a tensor are positions that count.

    Args:
        values: The tensors of a batch.
        array: The tensor, batch axis first.
        rows: How many rows it has, those of one position one after the other.

    Returns:
        Array of shape `(rows,)`, bool; `None` if all count, or if the tensor has no
        axis of these positions.
    """
    counts = values.get(_COUNTED)
    if counts is None or array.ndim <= 2 or array.shape[:2] != counts.shape:
        return None
    each, rest = divmod(rows, counts.size)
    return None if rest else np.repeat(counts.ravel(), each)


def _counted_positions(weights: Any, count: int) -> np.ndarray | None:
    """Find in sample weights which positions count, if they have one for each."""
    if not hasattr(weights, "__array__"):  # none, or one for each of several outputs
        return None
    array = to_numpy(weights)
    if array.ndim != 2:
        return None
    if len(array) != count or not array.any():
        raise CalibrationError(
            "Sample weights have one entry for each position of each input, 0 for "
            f"those that do not count, and not only zeros. Expected: shape ({count}, "
            f"positions). Received: {received(weights)}"
        )
    return array != 0


def _whole_batches(data: Calibration) -> Calibration:
    """Leave out what does not fill a batch of a model that fixes its size."""
    size, count = data.at_once, len(data)
    if not size or not count % size:
        return data
    if count < size:
        raise CalibrationError(
            f"The model takes {size} inputs at a time, so at least as many are needed. "
            f"Received: {count}"
        )
    used = count - count % size
    warn(
        f"The model takes {size} inputs at a time, so the first {used} of the data are "
        f"used. Received: {count}",
        CalibrationWarning,
    )
    return data._at(slice(used))


def _split(batch: Any) -> tuple[Any, Any, Any]:
    """Part inputs, labels and sample weights; as in Keras, a tuple holds all."""
    if not isinstance(batch, tuple):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise CalibrationError(
            "A tuple holds inputs, labels, and perhaps sample weights. Received: "
            f"{len(batch)} items; put the inputs of a model with several into a list"
        )
    return (*batch, None, None)[:3]


def _gathered(data: Any) -> tuple[Any, Any, Any]:
    """Put the batches of a data set together."""
    endless = getattr(data, "cardinality", None)
    if callable(endless) and int(endless()) == -1:
        raise CalibrationError(
            "The data set never ends. Take a part of it: `dataset.take(8)`. Received: "
            f"{received(data)}"
        )
    readable = isinstance(data, Iterable) or hasattr(data, "__getitem__")
    if not readable or isinstance(data, (str, bytes)):
        raise CalibrationError(
            "Calibration data are inputs, a tuple of inputs and labels, or batches of "
            f"these. Received: an object of type {type(data).__name__}"
        )
    # A `keras.utils.Sequence` is read by index; iterating it might not end.
    indexed = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    batches = (data[i] for i in range(len(data))) if indexed else data
    parts = list(map(_split, batches))
    if not parts:
        raise CalibrationError(
            f"The data set is empty: it gave no batch. Received: {received(data)}"
        )
    inputs, *others = zip(*parts, strict=True)
    labels, weights = (None if one[0] is None else _joined(one) for one in others)
    return _joined(inputs), labels, weights


def _joined(parts: Sequence[Any]) -> Any:
    try:
        return keras.tree.map_structure(
            lambda *arrays: np.concatenate([to_numpy(array) for array in arrays]),
            *parts,
        )
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            "The batches of the data set do not go together. What is wrong: "
            f"{error}. Received: {len(parts)} batches, the first {received(parts[0])}"
        ) from error


def arranged(
    given: Any, inputs: Sequence[Input], what: str, error: type[ValueError]
) -> list[Any]:
    """Bring what a user gives for the inputs of a model into their order.

    Args:
        given: An array; a list of arrays, one per input; or a dict, by the names of
            the inputs or as the model itself is called.
        inputs: The inputs of the traced model.
        what: What the arrays are, for messages.
        error: The class of error to raise.

    Returns:
        What was given, one thing an input, if there are as many.
    """
    if not isinstance(given, Mapping):
        return list(given) if isinstance(given, (list, tuple)) else [given]
    if all(entry.place for entry in inputs):  # as the model itself is called
        with contextlib.suppress(KeyError, TypeError, IndexError):
            return [functools.reduce(operator.getitem, i.place, given) for i in inputs]
    missing = [entry.name for entry in inputs if entry.name not in given]
    if missing:
        raise error(
            f"The {what} lack the model's inputs {missing}. Received: {sorted(given)}"
        )
    return [given[entry.name] for entry in inputs]


def check_inputs(
    given: Any,
    inputs: Sequence[Input],
    what: str,
    error: type[ValueError],
) -> list[np.ndarray]:
    """Check arrays against the inputs of a model.

    Args:
        given: An array; a list of arrays, one per input; or a dict, by the names of
            the inputs or as the model itself is called.
        inputs: The inputs of the traced model.
        what: What the arrays are, for messages.
        error: The class of error to raise.

    Returns:
        The arrays, of the inputs' dtypes.

    Raises:
        ValueError: Of class `error`, if they are empty, misshapen or not finite.
    """
    arrays = arranged(given, inputs, what, error)
    if len(arrays) != len(inputs):
        raise error(
            f"Expected one array per input of the model, that is {len(inputs)}. "
            f"Received: {len(arrays)}"
        )
    checked: list[np.ndarray] = []
    for one, expected in zip(arrays, inputs, strict=True):
        if not hasattr(one, "__array__"):
            raise error(
                f"The {what} must be arrays. Received: an object of type "
                f"{type(one).__name__} for the input {expected.name!r}"
            )
        array = to_numpy(one)
        fits = array.ndim == len(expected.shape) and all(
            want in (None, have)
            for want, have in zip(expected.shape[1:], array.shape[1:], strict=True)
        )
        if not fits:
            single = array.ndim == len(expected.shape) - 1
            raise error(
                f"The shape of the {what} does not fit the model's input "
                f"{expected.name!r}. Expected: shape {('n', *expected.shape[1:])}. "
                + "The batch axis is missing: give batches, or `x[None]` for one. "
                * single
                + f"Received: {array.shape}"
            )
        if not len(array) or len(array) != len(to_numpy(arrays[0])):
            raise error(
                f"In the {what} there must be at least one input, and the same number "
                f"for every input of the model. Received: shape {array.shape}"
            )
        if array.dtype.kind in "cOSUmM" and expected.dtype != "string":
            raise error(
                f"The {what} must be real numbers. Received: dtype {array.dtype} for "
                f"the input {expected.name!r}"
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise error(
                f"The {what} holds NaN or infinite values, from which nothing can be "
                f"learnt. Received: {np.count_nonzero(~np.isfinite(array))} of "
                f"{array.size} values for the input {expected.name!r}."
            )
        text = expected.dtype == "string"
        checked.append(array if text else array.astype(expected.dtype, copy=False))
    return checked
