"""`Cyclic`: a number of firings, each of which removes the same fraction."""

import math
from typing import Any

import tensorflow as tf

from tf_spline_prune._checks import COUNT, FRACTION, checked
from tf_spline_prune.schedules._schedule import (
    ANY_STEP,
    STEP,
    Schedule,
    check_range,
    constant,
)


class Cyclic(Schedule):
    """Prune a number of times, evenly spaced, each time the same fraction.

    After the k-th firing the fraction (1 - final)^(k / cycles) is kept. The first
    firing is at `begin_step`, the last at `end_step`, and those between are rounded
    down to whole steps. A single firing is at `begin_step`.

    Args:
        final_sparsity: Fraction of weights removed after the last firing, in [0, 1).
        begin_step: The step of the first firing.
        end_step: The step of the last firing.
        cycles: Number of firings. Defaults to `100`.

    Raises:
        ValueError: If an argument is out of range, or there are fewer steps than
            firings.

    Example:

    ```python
    schedule = tsp.schedules.Cyclic(0.75, begin_step=1, end_step=101, cycles=2)
    schedule.at(1), schedule.at(101)  # (True, 0.5), (True, 0.75)
    ```

    Source: Tanaka et al., "Pruning neural networks without any data by iteratively
    conserving synaptic flow", NeurIPS 2020, algorithm 1.
    """

    @checked(final_sparsity=FRACTION, begin_step=STEP, end_step=STEP, cycles=COUNT)
    def __init__(
        self, final_sparsity: float, begin_step: int, end_step: int, cycles: int = 100
    ) -> None:
        super().__init__()
        self.final_sparsity = float(final_sparsity)
        self.begin_step, self.end_step = check_range(begin_step, end_step)
        self.cycles = cycles
        if self.cycles > self.end_step - self.begin_step + 1:
            raise ValueError(
                "Each of the `cycles` firings needs a step of its own between "
                "`begin_step` and `end_step`. Take fewer, or more steps. Received: "
                f"begin_step={begin_step}, end_step={end_step}, cycles={cycles}"
            )

    def _fired(self, step: int) -> int:
        """Count the firings up to a step, that step included."""
        if step < self.begin_step:
            return 0
        if step >= self.end_step or self.cycles == 1:
            return self.cycles
        # The k-th firing is (k - 1) * span // gaps steps after the first.
        gaps, span = self.cycles - 1, self.end_step - self.begin_step
        return -(-(step - self.begin_step + 1) * gaps // span)

    @checked(step=ANY_STEP)
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity."""
        count = self._fired(step)
        fires = count > self._fired(step - 1)
        if count == self.cycles:
            return fires, self.final_sparsity
        return fires, -math.expm1(
            math.log1p(-self.final_sparsity) * count / self.cycles
        )

    def _fired_tensor(self, step: tf.Tensor) -> tf.Tensor:
        gaps = self.cycles - 1
        span = max(self.end_step - self.begin_step, 1)
        passed = tf.clip_by_value(step - self.begin_step + 1, 0, span)
        count = (passed * gaps + span - 1) // span
        done = step >= (self.end_step if gaps else self.begin_step)
        return tf.where(done, tf.constant(self.cycles, tf.int64), count)

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Do the same inside a graph; see `Schedule.__call__`."""
        step = tf.cast(step, tf.int64)
        count = self._fired_tensor(step)
        fires = count > self._fired_tensor(step - 1)
        fraction = tf.cast(count, tf.float32) / self.cycles
        between = -tf.math.expm1(math.log1p(-self.final_sparsity) * fraction)
        return fires, tf.where(fraction >= 1, constant(self.final_sparsity), between)

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool:
        """Return whether a range of steps holds a firing step."""
        return first <= last and self._fired(last) > self._fired(first - 1)
