"""`MaskEarlyBird`: stop when the pruning mask of BatchNormalization scales settles."""

import math
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import BETWEEN, FRACTION, Integer, OneOf, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.callbacks._early_bird import EarlyBird
from tf_spline_prune.compat import Call, read_weights, trace
from tf_spline_prune.errors import ModelError

Reference = Literal["newest", "consecutive"]


class MaskEarlyBird(EarlyBird):
    """Stop training when the mask of BatchNormalization scales has settled.

    A mask has an entry for each channel of every BatchNormalization: whether its
    absolute scale is above the threshold that `sparsity` sets over all layers.
    Masks are taken before the first epoch and after each one. With five masks at
    hand the early bird is found when all four distances (fractions of entries that
    differ) are at most `threshold`:

    - `"newest"`: the newest mask against each of the earlier four, as in the
      released code;
    - `"consecutive"`: each mask against the one before it, as in the text.

    The largest of the four is in the logs as `mask_distance`, NaN until it exists.
    The released code counts the epoch that is about to begin; `ticket_epoch`
    counts the one that has ended, one less.

    Args:
        sparsity: Fraction of the channels that the mask prunes, in [0, 1). Defaults to
            `0.5`.
        threshold: Bound on the distances, in (0, 1). Defaults to `0.1`.
        num_masks: Number of masks in the window. Defaults to `5`.
        reference: `"newest"` or `"consecutive"`. Defaults to `"newest"`.
        stop: Whether training stops when the early bird is found. Defaults to `True`.
        filepath: File for the ticket: `*.keras` or `*.h5` for the model, `*.weights.h5`
            for its weights. Defaults to `None`, which writes none.
        keep_history: Whether all masks are kept, for `distance_matrix`. Defaults to
            `False`.
        backup_dir: Folder for the detector's state, for runs that resume. Defaults to
            `None`.
        verbose: 1 prints a line when the early bird is found. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range.
        ModelError: When training begins, if no BatchNormalization has a scale.

    Example:

    ```python
    bird = tsp.MaskEarlyBird(sparsity=0.5)
    model.fit(train, epochs=160, callbacks=[bird])
    ```

    Source: You et al., "Drawing Early-Bird Tickets", ICLR 2020, algorithm 1 and
    the class `EarlyBird` of the released code.
    """

    log_name = "mask_distance"
    _from_start = True

    @checked(
        sparsity=FRACTION,
        threshold=BETWEEN,
        num_masks=Integer(2, 2**31 - 1),
        reference=OneOf(*get_args(Reference)),
    )
    def __init__(
        self,
        sparsity: float = 0.5,
        threshold: float = 0.1,
        num_masks: int = 5,
        reference: Reference = "newest",
        stop: bool = True,
        filepath: PathLike | None = None,
        keep_history: bool = False,
        *,
        backup_dir: PathLike | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            num_masks - 1, stop, filepath, keep_history, backup_dir, verbose
        )
        self.sparsity = sparsity
        self.threshold = threshold
        self.reference = reference
        self._norms: list[Any] = []
        self._count = 0

    @property
    def distance_bound(self) -> float:
        """The bound on distances."""
        return self.threshold

    def _check_model(self) -> None:
        self._norms = []
        if self.model.built:
            self._norms = self._find_norms()

    def _find_norms(self) -> list[Any]:
        calls: dict[str, Call] = {c.path: c for c in trace(self.model).calls}
        norms = [
            call.layer
            for call in calls.values()
            if call.kind == "BatchNormalization" and call.layer.scale
        ]
        if not norms:
            raise ModelError(
                "MaskEarlyBird watches the scales of BatchNormalization layers, and "
                "the model has none. Use SplineEarlyBird instead. Received: model "
                f"{self.model.name!r}."
            )
        return norms

    def mask(self) -> np.ndarray:
        """Return the mask of the model as it is.

        Returns:
            Array of shape `(channels,)`, bool, over all BatchNormalizations in
            the order of computation: true where the scale is kept. Ties with the
            threshold are removed.
        """
        self._norms = self._norms or self._find_norms()
        scales = np.concatenate(
            [np.abs(read_weights(norm)["gamma"]) for norm in self._norms]
        )
        bound = np.sort(scales)[int(len(scales) * self.sparsity)]
        return np.asarray(scales > bound)

    def _snapshot(self) -> np.ndarray:
        mask = self.mask()
        self._count = len(mask)
        return np.packbits(mask)

    def _distance(self, first: np.ndarray, second: np.ndarray) -> float:
        return int(np.bitwise_count(first ^ second).sum()) / self._count

    def _value(self, recent: list[list[float]]) -> float:
        if self.reference == "newest":
            window = recent[-1] if recent else []
        else:
            window = [distances[0] for distances in recent[-self.lookback :]]
        return max(window) if len(window) == self.lookback else math.nan

    def _settled(self, value: float) -> bool:
        return value <= self.threshold

    def _key(self) -> str:
        return (
            f"{super()._key()} sparsity={self.sparsity} threshold={self.threshold} "
            f"reference={self.reference}"
        )
