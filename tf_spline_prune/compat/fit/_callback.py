"""Callbacks that the `fit` of either flavour accepts, and what they write."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from tf_spline_prune._files import PathLike, atomic_file
from tf_spline_prune.compat._weights import values_of
from tf_spline_prune.compat.fit._distribution import Workers
from tf_spline_prune.compat.tfmot._mask_slots import MaskSlot, zeroed

# Where the callbacks of one `fit` find each other, for they share their `params`.
_TOGETHER = "_callbacks_by_entry_of_the_logs"


class Callback(keras.callbacks.Callback):
    """A Keras 3 callback that tf_keras' `fit` takes as one of its own.

    tf_keras asks its callbacks which batch hooks they implement, so as not to
    fetch logs for nothing; Keras 3 does not ask.
    """

    _supports_tf_logs = False
    _chief_worker_only = None

    def _implements_train_batch_hooks(self) -> bool:
        return any(
            getattr(type(self), hook) is not getattr(keras.callbacks.Callback, hook)
            for hook in (
                "on_batch_begin",
                "on_batch_end",
                "on_train_batch_begin",
                "on_train_batch_end",
            )
        )

    def _named_in_fit(self, name: str) -> str:
        """Return the name of an entry of the logs, of which others may log one too.

        Args:
            name: The name of the entry.

        Returns:
            The name; for the second callback of one `fit` that asks for it with a
            `_2` behind it, and so on.
        """
        shared = self.params if isinstance(self.params, dict) else {}
        alike = shared.setdefault(_TOGETHER, {}).setdefault(name, [])
        if not any(one is self for one in alike):
            alike.append(self)
        number = 1 + next(i for i, one in enumerate(alike) if one is self)
        return name if number == 1 else f"{name}_{number}"

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


def learning_rate(model: Any) -> float:
    """Read the learning rate that the next step of a compiled model will use.

    Returns:
        The rate, or NaN for a model without an optimizer.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return float("nan")
    rate = optimizer.learning_rate
    if callable(rate) and not hasattr(rate, "numpy"):
        rate = rate(optimizer.iterations)
    return float(_number(rate))


def optimizer_steps(model: Any) -> int:
    """Count the steps that a compiled model's optimizer has made.

    Batches whose gradients are only accumulated are no steps: Keras 3 divides its
    `iterations` by `gradient_accumulation_steps` itself.

    Returns:
        The number, or 0 for a model without an optimizer.
    """
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(_number(optimizer.iterations))


def batches_a_step(model: Any) -> int:
    """Return over how many batches a compiled model's optimizer gathers gradients."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1


@contextlib.contextmanager
def _thrown_away(path: PathLike) -> Iterator[pathlib.Path]:
    """Yield a path that ends as `path` does, and is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder) / pathlib.Path(path).name


def _number(value: Any) -> Any:
    """Read a variable, also one that has a copy on each replica, or a number."""
    return values_of(value)


def save_model(model: Any, path: PathLike) -> None:
    """Save a model, or its weights, so that the file appears whole or not at all.

    Of several workers all must call this, because some weights are averaged when
    they are read; only the chief's file stays.

    Args:
        model: A model of either flavour.
        path: `*.weights.h5` saves the weights; `*.keras` and `*.h5` the model.
    """
    place = atomic_file if Workers(model).is_chief else _thrown_away
    with place(path) as temporary:
        if str(pathlib.Path(path)).endswith(".weights.h5"):
            model.save_weights(str(temporary))
        else:
            model.save(str(temporary))


def mask_averages(model: Any, slots: Iterable[MaskSlot]) -> None:
    """Set the averages of entries that masks remove to zero.

    The optimizer averages its own update, before any constraint, and may write the
    averages into the weights.

    Args:
        model: A compiled model of either flavour.
        slots: Its masked weights.
    """
    optimizer: Any = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not averages or not getattr(optimizer, "use_ema", False):
        return
    if hasattr(optimizer, "_index_dict"):  # tf_keras
        index = optimizer._index_dict
        places = {
            slot.key: index.get(optimizer._var_key(slot.weight)) for slot in slots
        }
    else:
        order = {id(v): i for i, v in enumerate(optimizer._trainable_variables)}
        places = {slot.key: order.get(id(slot.weight)) for slot in slots}
    for slot in slots:
        place = places[slot.key]
        if place is not None:
            average = averages[place]
            average.assign(zeroed(values_of(average), slot.keep()))


_BINS = 30


class SummaryWriter:
    """Writes scalars, histograms and images that TensorBoard shows.

    TensorFlow writes the files; the package `tensorboard`, which it no longer brings
    along, is needed only to look at them.

    Args:
        log_dir: The folder of the files.
    """

    def __init__(self, log_dir: PathLike) -> None:
        import tensorflow as tf

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number."""
        self._write(tag, np.float32(value), step, "scalars", 1)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Write how values are distributed; nothing if there are none."""
        if values.size:
            counts, edges = np.histogram(values.astype("float64"), _BINS)
            bins = np.stack([edges[:-1], edges[1:], counts], axis=1)
            self._write(tag, bins, step, "histograms", 2)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Write a picture: an array of shape `(height, width)`, uint8."""
        png = self._tf.io.encode_png(pixels[:, :, None])
        height, width = pixels.shape
        parts = self._tf.stack([str(width), str(height), png])
        self._write(tag, parts, step, "images", 3, b"\x08\x01")

    def _write(
        self,
        tag: str,
        tensor: Any,
        step: int,
        plugin: str,
        kind: int,
        content: bytes = b"",
    ) -> None:
        """Write a tensor with the mark of the plugin that shows it."""
        metadata = self._tf.compat.v1.SummaryMetadata(data_class=kind)
        metadata.plugin_data.plugin_name = plugin
        metadata.plugin_data.content = content
        with self._writer.as_default():
            self._tf.summary.write(tag, tensor, step, metadata)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
