"""`SplineEarlyBird`: stop the first training when the partition has settled."""

import math
import zlib
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import (
    BETWEEN,
    COUNT,
    LAYERS,
    SEED,
    Array,
    Data,
    Integer,
    OneOf,
    checked,
)
from tf_spline_prune._files import PathLike
from tf_spline_prune.callbacks._early_bird import EarlyBird
from tf_spline_prune.compat import trace
from tf_spline_prune.partition import PartitionCoder, partition_distance
from tf_spline_prune.partition.codes._partition_codes import CodeLayout
from tf_spline_prune.partition.probes import arrays_of, check_probe

Mode = Literal["max_below", "plateau"]


class SplineEarlyBird(EarlyBird):
    """Stop training when the codes of a probe settle: the spline early bird.

    After each epoch the codes of the probe are compared with those of the last
    `lookback` epochs; the distance is the mean over layers of the fraction of bits
    that differ. The ticket is then drawn from the model as it is.

    - `"max_below"` (the published detector): the largest of the `lookback`
      distances is below `threshold`.
    - `"plateau"`: the distance between neighbouring epochs has stopped changing:
      over `lookback` epochs its values differ by at most `tolerance` of the
      largest.

    The distance is in the logs as `spline_distance`, from the first epoch on (NaN
    until it exists; of a second such detector in one `fit` as `spline_distance_2`, and
    so on), so History, TensorBoard and CSVLogger see it if they come
    after this callback. What settles is the speed at which the partition moves
    at this learning rate, not the partition itself: it still moves, and a drop of
    the rate makes any distance fall, which gives a warning.

    Args:
        probe: Inputs on which codes are taken, shape `(n, *input shape)`, or a list
            or dict of such arrays; about 1,024 suffice. See `tsp.probes`.
        threshold: Bound of `"max_below"`, in (0, 1). Defaults to `0.16`.
        lookback: Number of earlier epochs that are compared with. Defaults to `3`.
        mode: `"max_below"` or `"plateau"`. Defaults to `"max_below"`.
        stop: Whether training stops when the early bird is found. Defaults to `True`.
        filepath: File for the ticket: `*.keras` or `*.h5` for the model, `*.weights.h5`
            for its weights. Defaults to `None`, which writes none.
        keep_history: Whether the codes of all epochs are kept, on disk, for
            `distance_matrix`. Defaults to `False`.
        tolerance: Bound of `"plateau"`, in (0, 1). Defaults to `0.1`.
        layers: Names of the layers to code. Defaults to `None`, which means all that
            have knots.
        max_units_per_layer: A layer with more activations (positions times units) is
            coded on a fixed random subset of this size; `None` codes all. Defaults to
            `4096`.
        max_bytes: Bound on the bytes of all codes held together; the coded subsets are
            made smaller until they fit. Defaults to `64 * 2**20`.
        seed: Seed of the subsets. Defaults to `0`.
        batch_size: Number of probe inputs that are run at a time. Defaults to `128`.
        backup_dir: Folder for the detector's state, for runs that resume. Defaults to
            `None`.
        verbose: 1 prints a line when the early bird is found. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range.
        ProbeError: When training begins, if the probe is empty, misshapen or
            not finite.
        ModelError: When training begins, if the model has no knots.

    Example:

    ```python
    bird = tsp.SplineEarlyBird(probe=x_train[:1024])
    model.fit(train, epochs=160, callbacks=[bird])
    bird.ticket_epoch        # the epoch it stopped after, counted from 0
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning",
    TMLR 2022, section 4; threshold and window are those of its released code.
    """

    log_name = "spline_distance"

    @checked(
        probe=Data("inputs: an array, or several in a list or dictionary"),
        threshold=BETWEEN,
        mode=OneOf(*get_args(Mode)),
        tolerance=BETWEEN,
        layers=LAYERS,
        max_units_per_layer=[COUNT, None],
        max_bytes=Integer(1),
        seed=SEED,
        batch_size=COUNT,
    )
    def __init__(
        self,
        probe: Any,
        threshold: float = 0.16,
        lookback: int = 3,
        mode: Mode = "max_below",
        stop: bool = True,
        filepath: PathLike | None = None,
        keep_history: bool = False,
        *,
        tolerance: float = 0.1,
        layers: list[str] | None = None,
        max_units_per_layer: int | None = 4096,
        max_bytes: int = 64 * 2**20,
        seed: int = 0,
        batch_size: int = 128,
        backup_dir: PathLike | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(lookback, stop, filepath, keep_history, backup_dir, verbose)
        if mode == "plateau" and lookback < 2:
            raise ValueError(
                'mode="plateau" compares distances of several epochs, so `lookback` '
                f"must be at least 2. Received: {lookback}"
            )
        self.probe = probe
        self.threshold = threshold
        self.mode = mode
        self.tolerance = tolerance
        self.layers = layers
        self.max_units_per_layer = max_units_per_layer
        self.max_bytes = max_bytes
        self.seed = seed
        self.batch_size = batch_size
        self.coder: PartitionCoder | None = None
        self._layout: CodeLayout | None = None

    @property
    def distance_bound(self) -> float | None:
        """The bound on distances; `None` for a plateau, which has none."""
        return self.threshold if self.mode == "max_below" else None

    @checked(distances=Array("a square array of distances", finite=False, empty=True))
    def replay(self, distances: Any) -> int | None:
        """Return the epoch at which these settings would have found the early bird.

        Args:
            distances: The distances between the snapshots of its epochs, of shape
                `(epochs, epochs)`: what `distance_matrix` gave.

        Returns:
            The epoch, counted from 0; `None` if it would not have been found.

        Raises:
            ValueError: If the array is not square, or not of distances.

        Example:

        ```python
        past = bird.distance_matrix()  # bird = SplineEarlyBird(..., keep_history=True)
        tsp.SplineEarlyBird(bird.probe, threshold=0.1, lookback=5).replay(past)
        ```
        """
        matrix = np.asarray(distances, float)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(
                "Expected a square array of distances between epochs. Received: shape "
                f"{matrix.shape}"
            )
        if not ((matrix >= 0) & (matrix <= 1)).all():
            raise ValueError("Distances must lie in [0, 1], and some do not.")
        records: list[list[float]] = []
        for epoch in range(1, len(matrix)):
            window = range(epoch - 1, max(epoch - self.lookback, 0) - 1, -1)
            records.append(matrix[epoch, window].tolist())
            if self._decide(records)[1]:
                return epoch
        return None

    def _check_model(self) -> None:
        self._layout = None
        if self.model.built:
            check_probe(self.probe, trace(self.model).inputs)
            self.coder = self._make_coder()
            self._snapshot()  # what cannot be coded is known before training
        else:  # a subclassed model, which its first batch builds
            self.coder = None

    def _make_coder(self) -> PartitionCoder:
        # The window, the newest snapshot, and the one a resumed run may need.
        snapshots = self._held() + 1
        return PartitionCoder(
            self.model,
            self.layers,
            self.max_units_per_layer,
            self.seed,
            batch_size=self.batch_size,
            max_bytes=self.max_bytes // snapshots,
        )

    def _snapshot(self) -> np.ndarray:
        if self.coder is None:
            self.coder = self._make_coder()
        codes = self.coder(self.probe)
        self._layout = codes.layout
        return codes.to_bytes()

    def _distance(self, first: np.ndarray, second: np.ndarray) -> float:
        layout = self._layout
        if layout is None:  # a resumed run knows the layout from its first snapshot
            raise RuntimeError("No snapshot has been taken yet.")
        return partition_distance(layout.codes(first), layout.codes(second))

    def _value(self, recent: list[list[float]]) -> float:
        newest = recent[-1] if recent else []
        if self.mode == "plateau":
            return newest[0] if newest else math.nan
        return max(newest) if len(newest) == self.lookback else math.nan

    def _settled(self, value: float) -> bool:
        return value < self.threshold

    def _decide(self, recent: list[list[float]]) -> tuple[float, bool]:
        if self.mode == "max_below":
            return super()._decide(recent)
        steps = [distances[0] for distances in recent[-self.lookback :]]
        level = len(steps) == self.lookback and (
            max(steps) - min(steps) <= self.tolerance * max(steps)
        )
        return self._value(recent), level

    def _key(self) -> str:
        arrays = map(np.ascontiguousarray, arrays_of(self.probe))
        probe = [zlib.crc32(array.tobytes()) for array in arrays]
        return (
            f"{super()._key()} probe={probe} layers={self.layers} seed={self.seed} "
            f"mode={self.mode} threshold={self.threshold} tolerance={self.tolerance} "
            f"units={self.max_units_per_layer} bytes={self.max_bytes}"
        )
