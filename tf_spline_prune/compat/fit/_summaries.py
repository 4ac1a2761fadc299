"""Writing TensorBoard's event files, without TensorBoard."""

from typing import Any

import numpy as np

from tf_spline_prune._files import PathLike

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
