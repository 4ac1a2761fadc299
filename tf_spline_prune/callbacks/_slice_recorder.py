"""`SliceRecorder`: exact slices while training."""

from collections.abc import Iterable, Sequence
from typing import Any

from tf_spline_prune._checks import (
    COUNT,
    LAYERS,
    Array,
    Integer,
    Interval,
    ListOf,
    Options,
    checked,
)
from tf_spline_prune.compat import Callback, optimizer_steps
from tf_spline_prune.errors import ModelError, RegionLimitError, SliceWarning, warn
from tf_spline_prune.partition import Slice, slice2d
from tf_spline_prune.partition.slices._slice2d import CLASSES

# So many epochs or steps, again and again; or after these numbers of them.
Moments = int | Iterable[int]
MOMENTS: Options = [
    COUNT,
    ListOf(Integer(0), "integers of at least 0", 0),
]


class SliceRecorder(Callback):
    """Record exact slices of a network while it trains, always of the same plane.

    `visualize.plot_training_slices` and `visualize.animate_slices` draw them. A slice
    keeps a copy of the network as it was. One of too many regions, or of weights that
    are not finite, is left out with a warning, and training goes on.

    Args:
        anchors: The plane: array of shape `(3, *input shape)`, as for `slice2d`.
        extent: The least and the greatest u and v. Defaults to `(0.0, 1.0)`.
        epochs: When to take a slice: an integer n means before the first epoch and
            after every n-th; a sequence means after these numbers of epochs, 0 being
            before the first. Defaults to `1`.
        steps: Likewise after these numbers of optimizer steps. If batches run in groups
            (`steps_per_execution`), after the group in which the step falls. Defaults
            to `()`, none.
        layers: Names of the layers with knots to cut by. Defaults to `None`, which
            means all.
        classes: Two outputs whose tie is the boundary. Defaults to `None`, which takes
            the ties of the largest two.
        max_regions: The most regions of a slice. Defaults to `100000`.

    Attributes:
        slices: The slices, by the number of optimizer steps done.
        losses: The training loss by the number of optimizer steps done: of each epoch
            at its end and, where a slice was taken after a step, of the epoch so far.
        epochs_done: For each slice the number of epochs done, by that of steps.

    Raises:
        ValueError: If an argument is out of range; those that depend on the model are
            checked when training begins.

    Example:

    ```python
    recorder = tsp.SliceRecorder(anchors, (-2.0, 2.0), epochs=10)
    model.fit(train, epochs=100, callbacks=[recorder])
    tsp.visualize.plot_training_slices(recorder, "strip.png")
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning", TMLR
    2022, figure 4, where slices are contours on a coarse grid.
    """

    @checked(
        anchors=Array("three inputs, an array of finite numbers"),
        extent=Interval(),
        epochs=MOMENTS,
        steps=MOMENTS,
        layers=LAYERS,
        classes=CLASSES,
        max_regions=COUNT,
    )
    def __init__(
        self,
        anchors: Any,
        extent: tuple[float, float] = (0.0, 1.0),
        *,
        epochs: Moments = 1,
        steps: Moments = (),
        layers: Iterable[str] | None = None,
        classes: Sequence[int] | None = None,
        max_regions: int = 100_000,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.extent = extent
        self.epochs = _moments(epochs)
        self.steps = _moments(steps)
        if not self.epochs and not self.steps:
            raise ValueError(
                "There is no moment at which to take a slice. Give `epochs` or "
                f"`steps`. Received: epochs={epochs!r}, steps={steps!r}"
            )
        self.layers = layers
        self.classes = classes
        self.max_regions = max_regions
        self._reset()

    def _reset(self) -> None:
        self.slices: dict[int, Slice] = {}
        self.losses: dict[int, float] = {}
        self.epochs_done: dict[int, int] = {}
        self._started = False
        self._epoch = self._step = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew; refuse what cannot be sliced."""
        self._reset()
        if self.model.built:  # a subclassed model may wait for its first batch
            self._slice(1, partial=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the slice from before the first epoch."""
        self._epoch = epoch
        if not self._started:
            self._started = True
            self._step = optimizer_steps(self.model)
            begins = _due(self.steps, self._step - 1, self._step)
            if begins or _due(self.epochs, epoch - 1, epoch):
                self._take()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Take a slice if it is time, by the number of steps."""
        if self.steps:
            last, self._step = self._step, optimizer_steps(self.model)
            if _due(self.steps, last, self._step):
                self._note_loss(logs)
                self._take()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the loss, and take a slice if it is time."""
        self._epoch = epoch + 1
        self._step = optimizer_steps(self.model)
        self._note_loss(logs)
        if self._step in self.slices:
            self.epochs_done[self._step] = self._epoch
        elif _due(self.epochs, epoch, epoch + 1):
            self._take()

    def _note_loss(self, logs: dict[str, Any] | None) -> None:
        if logs and "loss" in logs:
            self.losses[self._step] = float(logs["loss"])

    def _take(self) -> None:
        try:
            taken = self._slice(self.max_regions)
        except (RegionLimitError, ModelError) as error:
            warn(
                f"The slice after {self._step} steps is left out. {error}", SliceWarning
            )
            return
        self.slices[self._step] = taken
        self.epochs_done[self._step] = self._epoch

    def _slice(self, max_regions: int, partial: bool = False) -> Slice:
        return slice2d(
            self.model,
            self.anchors,
            self.extent,
            layers=self.layers,
            classes=self.classes,
            max_regions=max_regions,
            partial=partial,
        )


def _moments(given: Moments) -> int | frozenset[int]:
    return given if isinstance(given, int) else frozenset(given)


def _due(wanted: int | frozenset[int], last: int, now: int) -> bool:
    """Return whether one of the wanted moments lies in (last, now]."""
    if isinstance(wanted, int):
        return now // wanted > last // wanted
    return any(last < moment <= now for moment in wanted)
