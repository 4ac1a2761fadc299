"""`Timed`: a schedule whose steps are epochs, or hundredths of the training."""

from typing import Any, Literal, get_args

import tensorflow as tf

from tf_spline_prune._checks import COUNT, OneOf, checked
from tf_spline_prune.compat import restore_schedule
from tf_spline_prune.schedules._early_bird_sparsity import EarlyBirdSparsity
from tf_spline_prune.schedules._firing import (
    check_schedule,
    evaluate,
    final_sparsity,
    fires_within,
)
from tf_spline_prune.schedules._schedule import (
    ANY_STEP,
    Schedule,
    read_state,
    state_variable,
    write_state,
)

Unit = Literal["epochs", "percent"]


class Timed(Schedule):
    """Run any schedule on another clock than optimizer steps.

    The steps of the inner schedule are ticks: with `"epochs"` the epochs done, with
    `"percent"` the hundredths done of the whole training, 0 to 100. It fires at the
    first optimizer step of a tick at which the inner schedule fires. Tick 0 begins
    with the first step, tick 100 (or the number of epochs) with the last one. Where
    several ticks begin at one step, the last of them that fires counts.

    How long an epoch and the training are is given here, or by `resolve`, which
    our training callback calls at the start of `fit`. A compiled training step sees
    a change. An `EarlyBirdSparsity` inside starts with the first tick that begins
    after its detector has fired.

    Args:
        schedule: Any pruning schedule, TFMOT's or ours. Its arguments count ticks;
            mind the default `frequency=100`.
        unit: `"epochs"` or `"percent"`.
        steps_per_epoch: Optimizer steps in an epoch; `None`: given later. Defaults to
            `None`.
        epochs: Epochs in the training; `None`: given later, or not needed. Defaults to
            `None`.

    Raises:
        ValueError: If an argument is out of range; where it is used before it knows
            how long an epoch or the training is.

    Example:

    ```python
    decay = tsp.schedules.PolynomialDecay(0.0, 0.8, 10, 60, frequency=1)
    schedule = tsp.schedules.Timed(decay, "percent", steps_per_epoch=390, epochs=20)
    ```

    Source: TFMOT issue 975, pruning that never begins because steps were miscounted.
    """

    @checked(
        unit=OneOf(*get_args(Unit)), steps_per_epoch=[COUNT, None], epochs=[COUNT, None]
    )
    def __init__(
        self,
        schedule: Any,
        unit: Unit,
        steps_per_epoch: int | None = None,
        epochs: int | None = None,
    ) -> None:
        super().__init__()
        check_schedule(schedule)
        if isinstance(schedule, Timed):
            raise ValueError(
                "A schedule can be on one clock only: give `Timed` the schedule that "
                f"is inside. Received: {schedule!r}"
            )
        self.schedule = schedule
        self.unit = unit
        # What the constructor was given stays; 0 stands for what is not known.
        self._given = steps_per_epoch, epochs
        self._steps_per_epoch = state_variable(self._given[0] or 0, "steps_per_epoch")
        self._epochs = state_variable(self._given[1] or 0, "epochs")
        if isinstance(schedule, EarlyBirdSparsity):
            schedule.follow(self._tick)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in an epoch, as far as known."""
        return read_state(self._steps_per_epoch) or None

    @property
    def epochs(self) -> int | None:
        """Epochs in the training, as far as known."""
        return read_state(self._epochs) or None

    @property
    def resolved(self) -> bool:
        """Whether it knows how long its ticks are."""
        known = self.steps_per_epoch is not None
        return known and (self.unit == "epochs" or self.epochs is not None)

    @checked(steps_per_epoch=[COUNT, None], epochs=[COUNT, None])
    def resolve(self, steps_per_epoch: int | None, epochs: int | None) -> None:
        """Set how long an epoch and the training are.

        What the constructor was given stays as it is.

        Args:
            steps_per_epoch: Optimizer steps in an epoch; `None`: not known.
            epochs: Epochs in the training, counted from the first of all; `None`:
                not known.

        Raises:
            ValueError: If a number is less than 1.
        """
        told = steps_per_epoch, epochs
        variables = (self._steps_per_epoch, self._epochs)
        for variable, given, number in zip(variables, self._given, told, strict=True):
            if given is None and number is not None:
                write_state(variable, number)

    def _check_resolved(self) -> None:
        if self.resolved:
            return
        needed = "`steps_per_epoch`" + (
            " and `epochs`" if self.unit != "epochs" else ""
        )
        raise ValueError(
            f"The schedule counts {self.unit} and does not know how many steps these "
            f"are. Give {needed} to `Timed`, or call `resolve` before training. "
            f"Received: {self!r}"
        )

    def _tick(self, step: int) -> int:
        """Return the tick of a step: what is done once the step is."""
        self._check_resolved()
        if self.unit == "epochs":
            return step // (self.steps_per_epoch or 1)
        return step * 100 // ((self.steps_per_epoch or 1) * (self.epochs or 1))

    def _before(self, step: int) -> int:
        """Return the last tick that had begun before a step."""
        return self._tick(step - 1) if step > 1 else -1

    @checked(step=ANY_STEP)
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity."""
        tick = self._tick(step)
        if step > 0:
            for begun in range(tick, self._before(step), -1):
                fires, sparsity = evaluate(self.schedule, begun)
                if fires:
                    return True, sparsity
        return False, evaluate(self.schedule, tick)[1]

    def _tick_tensor(self, step: tf.Tensor) -> tf.Tensor:
        if self.unit == "epochs":
            return step // self._steps_per_epoch
        return step * 100 // (self._steps_per_epoch * self._epochs)

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Do the same inside a graph; see `Schedule.__call__`."""
        self._check_resolved()
        step = tf.cast(step, tf.int64)
        tick = self._tick_tensor(step)
        before = tf.where(step > 1, self._tick_tensor(step - 1), -1)
        before = tf.where(step > 0, before, tick)

        def ask(tick: tf.Tensor) -> tuple[Any, Any]:
            fires, sparsity = self.schedule(tick)
            return tf.cast(fires, tf.bool), tf.cast(sparsity, tf.float32)

        def earlier(begun: tf.Tensor, *_: Any) -> tuple[Any, ...]:
            return begun - 1, *ask(begun)

        nothing = (tick, tf.constant(False), ask(tick)[1])
        _, fires, sparsity = tf.while_loop(
            lambda begun, fires, _: (begun > before) & ~fires, earlier, nothing
        )
        return fires, tf.where(fires, sparsity, nothing[2])

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool | None:
        """Return whether a tick begins in a range at which the inner schedule fires.

        Args:
            first: The first step of the range.
            last: The last step of the range.
        """
        first = max(first, 1)
        if last < first:
            return False
        return fires_within(self.schedule, self._before(first) + 1, self._tick(last))

    @property
    def final_sparsity(self) -> float | None:
        """The largest sparsity that the inner schedule is meant to reach."""
        return final_sparsity(self.schedule)

    def _arguments(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule.get_config(),
            "unit": self.unit,
            "steps_per_epoch": self._given[0],
            "epochs": self._given[1],
            "resolved": [self.steps_per_epoch, self.epochs],
        }

    @classmethod
    def _restore(cls, arguments: dict[str, Any]) -> "Timed":
        schedule = restore_schedule(arguments.pop("schedule"))
        resolved = arguments.pop("resolved", (None, None))
        timed = cls(schedule, **arguments)
        timed.resolve(*resolved)
        return timed
