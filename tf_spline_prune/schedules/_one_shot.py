"""`OneShot`: prune once."""

from typing import Any

import tensorflow as tf

from tf_spline_prune._checks import FRACTION, checked
from tf_spline_prune.schedules._schedule import ANY_STEP, STEP, Schedule, constant


class OneShot(Schedule):
    """Prune once, at one step, to the target.

    Args:
        target_sparsity: Fraction of weights removed, in [0, 1).
        step: The optimizer step at which it fires. Training counts from 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    schedule = tsp.schedules.OneShot(0.8, step=1000)
    schedule.at(1000)  # (True, 0.8)
    ```

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural
    Networks", NeurIPS 2015, in its form of one round.
    """

    @checked(target_sparsity=FRACTION, step=STEP)
    def __init__(self, target_sparsity: float, step: int) -> None:
        super().__init__()
        self.target_sparsity = float(target_sparsity)
        self.step = step

    @checked(step=ANY_STEP)
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity."""
        return step == self.step, self.target_sparsity

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Do the same inside a graph; see `Schedule.__call__`."""
        fires = tf.equal(tf.cast(step, tf.int64), self.step)
        return fires, constant(self.target_sparsity)

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool:
        """Return whether the one step lies in a range."""
        return first <= self.step <= last
