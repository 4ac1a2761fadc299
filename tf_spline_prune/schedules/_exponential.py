"""`Exponential`: the kept fraction falls by the same factor every so often."""

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
    has_beat,
    is_beat,
    progress,
)


class Exponential(Schedule):
    """Let the kept fraction fall exponentially.

    With the progress p from `begin_step` to `end_step`, in [0, 1], the fraction that
    is kept is (1 - initial)^(1 - p) (1 - final)^p: each firing removes the same
    fraction of what is left. It fires at `begin_step` and every `frequency` steps
    after it up to `end_step`; the final sparsity is reached if `end_step` is one of
    these steps.

    Args:
        final_sparsity: Fraction of weights removed at the end, in [0, 1).
        begin_step: The step at which pruning begins.
        end_step: The step at which it ends. The two may be equal.
        initial_sparsity: Fraction of weights pruned at the beginning, in [0, 1).
            Defaults to `0.0`.
        frequency: Steps between two firings. Defaults to `100`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    schedule = tsp.schedules.Exponential(0.75, begin_step=0, end_step=1000)
    schedule.at(500)  # (True, 0.5): half, then half of that
    ```

    Source: the constant pruning rate per round of Frankle and Carbin, "The Lottery
    Ticket Hypothesis", ICLR 2019, in continuous form.
    """

    @checked(
        final_sparsity=FRACTION,
        begin_step=STEP,
        end_step=STEP,
        initial_sparsity=FRACTION,
        frequency=COUNT,
    )
    def __init__(
        self,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        initial_sparsity: float = 0.0,
        frequency: int = 100,
    ) -> None:
        super().__init__()
        self.final_sparsity = float(final_sparsity)
        self.initial_sparsity = float(initial_sparsity)
        self.begin_step, self.end_step = check_range(begin_step, end_step)
        self.frequency = frequency

    @checked(step=ANY_STEP)
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity."""
        fires = is_beat(step, self.begin_step, self.end_step, self.frequency)
        if step >= self.end_step:
            return fires, self.final_sparsity
        if step <= self.begin_step:
            return fires, self.initial_sparsity
        fraction = (step - self.begin_step) / (self.end_step - self.begin_step)
        first, last = self._logs()
        return fires, -math.expm1(first + (last - first) * fraction)

    def _logs(self) -> tuple[float, float]:
        return math.log1p(-self.initial_sparsity), math.log1p(-self.final_sparsity)

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Do the same inside a graph; see `Schedule.__call__`."""
        step = tf.cast(step, tf.int64)
        fires = (
            (step >= self.begin_step)
            & (step <= self.end_step)
            & tf.equal((step - self.begin_step) % self.frequency, 0)
        )
        fraction = progress(step, self.begin_step, self.end_step - self.begin_step)
        first, last = self._logs()
        between = -tf.math.expm1(first + (last - first) * fraction)
        late = tf.where(fraction >= 1, constant(self.final_sparsity), between)
        return fires, tf.where(fraction <= 0, constant(self.initial_sparsity), late)

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool:
        """Return whether a range of steps holds a firing step."""
        return has_beat(first, last, self.begin_step, self.end_step, self.frequency)
