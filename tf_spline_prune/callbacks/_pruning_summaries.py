"""`PruningSummaries`: what masks do, for TensorBoard."""

import math
from typing import Any, Literal

import numpy as np

from tf_spline_prune._checks import COUNT, FOLDER, Flag, OneOf, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.compat import (
    Callback,
    MaskSlot,
    SummaryWriter,
    Workers,
    mask_slots,
    optimizer_steps,
)
from tf_spline_prune.masking._slots import kernel_axes_of

_WIDTH = 512


class PruningSummaries(Callback):
    """Write the sparsity and the masks of a model for TensorBoard.

    For each masked weight: its sparsity, its threshold (the smallest magnitude that
    stays) and the number of its outputs that are still alive, as scalars; the weights
    that stay, as a histogram; the mask, as an image (white stays; one row per input,
    one column an output). For the model: its sparsity over all these weights, and
    whatever distance a detector puts into the logs (`spline_distance`,
    `mask_distance`), if it comes before this callback.

    The package `tensorboard` is needed to look at the files, not to write them.

    Args:
        log_dir: The folder of the files.
        update_freq: `"epoch"`, or every so many batches; the step of what is written is
            the epoch, or the number of optimizer steps. Defaults to `"epoch"`.
        images: Whether masks are written as images. Defaults to `True`.

    Raises:
        ValueError: If `update_freq` is neither, or `log_dir` is empty.

    Example:

    ```python
    masked.fit(train, callbacks=[pruning, tsp.PruningSummaries("logs/pruning")])
    ```
    """

    @checked(log_dir=FOLDER, update_freq=[OneOf("epoch"), COUNT], images=Flag())
    def __init__(
        self,
        log_dir: PathLike,
        update_freq: Literal["epoch"] | int = "epoch",
        images: bool = True,
    ) -> None:
        super().__init__()
        self.log_dir = log_dir
        self.update_freq = update_freq
        self.images = images
        self._writer: SummaryWriter | None = None
        self._batches = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the file; of several workers the chief does."""
        chief = Workers(self.model).is_chief
        self._writer = SummaryWriter(self.log_dir) if chief else None
        self._batches = 0

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Write, if so many batches have passed."""
        self._batches += 1
        if self.update_freq != "epoch" and self._batches % self.update_freq == 0:
            self._write(optimizer_steps(self.model), {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write at the end of an epoch, the distances of detectors too."""
        each_epoch = self.update_freq == "epoch"
        step = epoch if each_epoch else optimizer_steps(self.model)
        self._write(step, logs or {}, masks=each_epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, step: int, logs: dict[str, Any], masks: bool = True) -> None:
        writer = self._writer
        if writer is None:
            return
        slots = mask_slots(self.model) if masks else []
        size = gone = 0
        for slot in slots:
            keep = slot.keep()
            size += keep.size
            gone += keep.size - int(np.count_nonzero(keep))
            self._write_slot(writer, slot, keep, step)
        if size:
            writer.scalar("sparsity", gone / size, step)
        for name, value in logs.items():
            if name.endswith("_distance") and not math.isnan(value):
                writer.scalar(name, value, step)
        writer.flush()

    def _write_slot(
        self, writer: SummaryWriter, slot: MaskSlot, keep: np.ndarray, step: int
    ) -> None:
        kept = slot.read()[keep]
        writer.scalar(f"sparsity/{slot.key}", 1 - kept.size / keep.size, step)
        threshold = float(np.abs(kept).min()) if kept.size else 0.0
        writer.scalar(f"threshold/{slot.key}", threshold, step)
        units = kernel_axes_of(slot).output_axis if keep.ndim > 1 else -1
        table = np.moveaxis(keep, units, -1).reshape(-1, keep.shape[units])
        writer.scalar(f"units/{slot.key}", int(table.any(axis=0).sum()), step)
        writer.histogram(f"weights/{slot.key}", kept, step)
        if self.images:
            # A big mask is shown by its corner, one pixel an entry.
            corner = table[:_WIDTH, :_WIDTH].astype("uint8") * 255
            writer.image(f"masks/{slot.key}", corner, step)
