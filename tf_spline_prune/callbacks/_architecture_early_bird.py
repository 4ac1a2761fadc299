"""`ArchitectureEarlyBird`: stop when the pruned architecture has settled."""

import math

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune._checks import BETWEEN, FRACTION, SEED, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.callbacks._early_bird import EarlyBird
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.criteria._get import CRITERION
from tf_spline_prune.errors import ModelError
from tf_spline_prune.pruning import plan


class ArchitectureEarlyBird(EarlyBird):
    """Stop training when pruning would give the same architecture every epoch.

    After each epoch a plan is made, and `n_l`, the number of units that would
    stay in layer `l`, is noted. The similarity of two epochs is
    `1 - mean_l |n_l - n'_l| / (n_l + n'_l)`. The early bird is found when the
    mean similarity to the last `lookback` epochs exceeds `threshold`. The mean is
    in the logs as `architecture_similarity`, NaN until it exists.

    Args:
        sparsity: Fraction of the units that the plans prune, in [0, 1). Defaults to
            `0.5`.
        criterion: Criterion of the plans: a name such as `"magnitude"`, an instance of
            `criteria.Criterion`, or a function `(graph, group) -> scores`. Defaults to
            `"magnitude"`.
        threshold: Bound on the mean similarity, in (0, 1). Defaults to `0.95`.
        lookback: Number of earlier epochs that are compared with. Defaults to `5`.
        stop: Whether training stops when the early bird is found. Defaults to `True`.
        filepath: File for the ticket: `*.keras` or `*.h5` for the model, `*.weights.h5`
            for its weights. Defaults to `None`, which writes none.
        keep_history: Whether all architectures are kept, for `distance_matrix`.
            Defaults to `False`.
        seed: Seed of the plans. Defaults to `0`.
        backup_dir: Folder for the detector's state, for runs that resume. Defaults to
            `None`.
        verbose: 1 prints a line when the early bird is found. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    bird = tsp.ArchitectureEarlyBird(sparsity=0.5, criterion="magnitude")
    model.fit(train, epochs=160, callbacks=[bird])
    ```

    Source: Shen et al., "When to Prune? A Policy towards Early Structural
    Pruning", CVPR 2022 (the early pruning indicator).
    """

    log_name = "architecture_similarity"

    @checked(sparsity=FRACTION, criterion=CRITERION, threshold=BETWEEN, seed=SEED)
    def __init__(
        self,
        sparsity: float = 0.5,
        criterion: str | Criterion = "magnitude",
        threshold: float = 0.95,
        lookback: int = 5,
        stop: bool = True,
        filepath: PathLike | None = None,
        keep_history: bool = False,
        *,
        seed: int = 0,
        backup_dir: PathLike | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(lookback, stop, filepath, keep_history, backup_dir, verbose)
        self.sparsity = sparsity
        self.criterion = criterion
        self.threshold = threshold
        self.seed = seed

    @property
    def distance_bound(self) -> float:
        """The bound on the mean distance, which is 1 minus the similarity."""
        return 1 - self.threshold

    def survivors(self) -> dict[str, int]:
        """Count, for each layer that may be pruned, the units that a plan keeps."""
        decision = plan(
            self.model, self.criterion, sparsity=self.sparsity, seed=self.seed
        )
        barred: dict[str, int] = {}
        for barrier in decision.barriers:
            barred[barrier.layer] = barred.get(barrier.layer, 0) + barrier.units
        return {
            path: kept
            for path, (size, kept) in decision.units.items()
            if barred.get(path, 0) < size
        }

    def _check_model(self) -> None:
        if self.model.built and not self.survivors():
            raise ModelError(
                "ArchitectureEarlyBird watches the units that a plan would keep, and "
                f"no unit of the model may be pruned. Received: {self.model.name!r}."
            )

    def _snapshot(self) -> np.ndarray:
        counts = np.array(list(self.survivors().values()), np.int64)
        return counts.view(np.uint8)

    def _distance(self, first: np.ndarray, second: np.ndarray) -> float:
        one, other = (
            np.frombuffer(s.tobytes(), np.int64).astype(float) for s in (first, second)
        )
        return float(np.mean(np.abs(one - other) / (one + other)))

    def _value(self, recent: list[list[float]]) -> float:
        newest = recent[-1] if recent else []
        if len(newest) < self.lookback:
            return math.nan
        return 1.0 - float(np.mean(newest))

    def _settled(self, value: float) -> bool:
        return value > self.threshold

    def _key(self) -> str:
        criterion: object = self.criterion
        if not isinstance(criterion, (str, Criterion)):
            # A function, by name: its address is another one in the next process.
            criterion = criteria.get(self.criterion).name
        return (
            f"{super()._key()} sparsity={self.sparsity} criterion={criterion} "
            f"seed={self.seed}"
        )
