"""`EarlyBirdSparsity`: pruning begins when the early bird is found."""

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from tf_spline_prune._checks import COUNT, FRACTION, POSITIVE, Having, checked
from tf_spline_prune.schedules._schedule import (
    ANY_STEP,
    STEP,
    Schedule,
    constant,
    has_beat,
    is_beat,
    progress,
    read_state,
    state_variable,
    write_state,
)


class _Bird(Protocol):
    def when_found(self, listener: Callable[[int], Any]) -> None: ...


class EarlyBirdSparsity(Schedule):
    """Wait for an early bird, then ramp up to the target.

    Nothing fires until the detector does. The first firing is at the next optimizer
    step, `start_step`; from there the sparsity rises polynomially over `ramp_steps`
    steps. It fires every `frequency` steps and at the end of the ramp, and goes on
    at the target for as long as training does.

    The start is a variable: training steps that were compiled before see it, it is
    saved with a model that carries the schedule, and it is no weight of a layer. A
    schedule that has started keeps its start when the detector is run again.

    Args:
        bird: An early-bird callback, given to `fit` as well, with `stop=False`
            where training is to go on. `None`: `start` is called by hand.
        target_sparsity: Fraction of weights removed at the end of the ramp, in [0, 1).
        ramp_steps: Steps from the first firing to the target; with 0 all is pruned at
            once. Defaults to `0`.
        power: Exponent of the polynomial ramp. Defaults to `3`.
        frequency: Steps between two firings. Defaults to `100`.
        initial_sparsity: Fraction of weights pruned at the first firing, in [0, 1).
            Defaults to `0.0`.

    Raises:
        ValueError: If an argument is out of range, or `bird` is no detector.

    Example:

    ```python
    bird = tsp.SplineEarlyBird(x_train[:1024], stop=False)
    schedule = tsp.schedules.EarlyBirdSparsity(bird, 0.8, ramp_steps=2000)
    masked = tsp.wrap_with_masks(model)
    masked.fit(train, epochs=20, callbacks=[bird, tsp.MaskPruning(schedule)])
    ```

    Source: You et al., "Drawing Early-Bird Tickets", ICLR 2020, for when; Zhu and
    Gupta, "To prune, or not to prune", 2017, for the ramp.
    """

    @checked(
        bird=[
            Having(
                "when_found",
                what="an early-bird callback, such as `tsp.SplineEarlyBird`",
            ),
            None,
        ],
        target_sparsity=FRACTION,
        ramp_steps=STEP,
        power=POSITIVE,
        frequency=COUNT,
        initial_sparsity=FRACTION,
    )
    def __init__(
        self,
        bird: _Bird | None,
        target_sparsity: float,
        ramp_steps: int = 0,
        power: float = 3,
        frequency: int = 100,
        initial_sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        self.target_sparsity = float(target_sparsity)
        self.initial_sparsity = float(initial_sparsity)
        self.ramp_steps = ramp_steps
        self.frequency = frequency
        self.power = power
        self._start = state_variable(-1, "start_step")
        self._clock: Callable[[int], int] | None = None
        if bird is not None:
            bird.when_found(self._found)

    @property
    def start_step(self) -> int:
        """The first firing step, or -1 while it is not known."""
        return read_state(self._start)

    @checked(step=STEP)
    def start(self, step: int) -> None:
        """Set the first firing step by hand.

        Args:
            step: The step, at least 0. The optimizer's next step is
                `int(optimizer.iterations) + 1`.

        Raises:
            ValueError: If it is no step.
        """
        write_state(self._start, step)

    def _found(self, steps: int) -> None:
        if self.start_step < 0:
            # Inside `Timed` steps are ticks of another clock.
            self.start((self._clock(steps) if self._clock else steps) + 1)

    def follow(self, clock: Callable[[int], int]) -> None:
        """Count what the detector reports by another clock, as `Timed` needs.

        Args:
            clock: Function from optimizer steps to ticks.
        """
        self._clock = clock

    @checked(step=ANY_STEP)
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity."""
        start = self.start_step
        if start < 0 or step < start:
            return False, self.initial_sparsity
        passed = step - start
        fires = is_beat(passed, 0, -1, self.frequency) or passed == self.ramp_steps
        if passed >= self.ramp_steps:
            return fires, self.target_sparsity
        left = (1.0 - passed / self.ramp_steps) ** self.power
        rise = self.initial_sparsity - self.target_sparsity
        return fires, self.target_sparsity + rise * left

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Do the same inside a graph; see `Schedule.__call__`."""
        step, start = tf.cast(step, tf.int64), tf.identity(self._start)
        passed = step - start
        begun = (start >= 0) & (passed >= 0)
        beat = tf.equal(passed % self.frequency, 0)
        fires = begun & (beat | tf.equal(passed, self.ramp_steps))
        left = (1.0 - progress(step, start, self.ramp_steps)) ** self.power
        rise = self.initial_sparsity - self.target_sparsity
        ramp = self.target_sparsity + rise * left
        return fires, tf.where(begun, ramp, constant(self.initial_sparsity))

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool | None:
        """Return whether a range of steps holds a firing step; `None` before the start.

        Args:
            first: The first step of the range.
            last: The last step of the range.
        """
        start = self.start_step
        if start < 0:
            return None
        end_of_ramp = start + self.ramp_steps
        return (
            has_beat(first, last, start, -1, self.frequency)
            or first <= end_of_ramp <= last
        )

    def _arguments(self) -> dict[str, Any]:
        return {
            "target_sparsity": self.target_sparsity,
            "ramp_steps": self.ramp_steps,
            "power": self.power,
            "frequency": self.frequency,
            "initial_sparsity": self.initial_sparsity,
            "start_step": self.start_step,
        }

    @classmethod
    def _restore(cls, arguments: dict[str, Any]) -> "EarlyBirdSparsity":
        start_step = arguments.pop("start_step", -1)
        schedule = cls(None, **arguments)
        if start_step >= 0:
            schedule.start(start_step)
        return schedule
