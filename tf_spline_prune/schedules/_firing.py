"""What any pruning schedule does at a step, outside of a graph."""

import bisect
import math
import numbers
from typing import Any

import numpy as np
import tensorflow as tf

from tf_spline_prune._checks import checked, received
from tf_spline_prune.compat import import_tfmot
from tf_spline_prune.schedules._schedule import (
    ANY_STEP,
    Schedule,
    has_beat,
    is_beat,
    try_steps,
)

_kinds = import_tfmot().sparsity.keras
_KNOWN = (_kinds.ConstantSparsity, _kinds.PolynomialDecay)
FAR = 2**40  # a step that no training reaches


def check_schedule(schedule: Any) -> None:
    """Check that something is a pruning schedule.

    Args:
        schedule: What was given.

    Raises:
        ValueError: If it is no instance of TFMOT's `PruningSchedule`.
    """
    if not isinstance(schedule, _kinds.PruningSchedule):
        raise ValueError(
            "Expected a pruning schedule: one of `tsp.schedules`, or another subclass "
            "of `tfmot.sparsity.keras.PruningSchedule`. A fixed sparsity of 0.8 is "
            "`tsp.schedules.ConstantSparsity(0.8, begin_step=0)`. Received: "
            f"{received(schedule)}, an object of type "
            f"{type(schedule).__module__}.{type(schedule).__qualname__}"
        )


@checked(step=ANY_STEP)
def evaluate(schedule: Any, step: int) -> tuple[bool, float]:
    """Return whether any pruning schedule prunes at a step, and to what.

    Our schedules and TFMOT's two answer by plain arithmetic. A schedule of the
    user's is called with a tensor, as it is now: what changes in it later takes
    effect. It may return Python values or tensors.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.
        step: The optimizer step, counted from 1.

    Returns:
        Whether it fires at the step, and the sparsity. The latter is checked only
        where it fires, because nobody uses it elsewhere.

    Raises:
        ValueError: If it is no schedule, or asks for a sparsity outside [0, 1).

    Example:

    ```python
    schedule = tsp.schedules.ConstantSparsity(0.5, begin_step=0, frequency=10)
    tsp.schedules.evaluate(schedule, 20)  # (True, 0.5)
    ```
    """
    check_schedule(schedule)
    if isinstance(schedule, Schedule):
        fires, sparsity = schedule.at(step)
    elif type(schedule) is _kinds.ConstantSparsity:
        fires, sparsity = _beats(schedule, step), schedule.target_sparsity
    elif type(schedule) is _kinds.PolynomialDecay:
        fires, sparsity = _beats(schedule, step), _polynomial(schedule, step)
    else:
        fires, sparsity = _called(schedule, step)
    fires, sparsity = bool(fires), float(sparsity)
    if fires and not 0.0 <= sparsity < 1.0:
        raise ValueError(
            "A sparsity must be at least 0 and less than 1, and not NaN. Received: "
            f"{sparsity} at step {step} from a {type(schedule).__name__}"
        )
    return fires, sparsity


def _beats(schedule: Any, step: int) -> bool:
    return is_beat(step, schedule.begin_step, schedule.end_step, schedule.frequency)


def _polynomial(schedule: Any, step: int) -> float:
    begin, end = schedule.begin_step, schedule.end_step
    if begin != end:
        fraction = min(max((step - begin) / (end - begin), 0.0), 1.0)
    else:  # TFMOT divides by 0 there, and 0 by 0 at the step itself: NaN
        fraction = math.nan if step == begin else float(step > begin)
    endless = fraction == 1 and schedule.power < 0
    left = math.inf if endless else (1 - fraction) ** schedule.power
    rise = schedule.initial_sparsity - schedule.final_sparsity
    return float(rise * left + schedule.final_sparsity)


def _called(schedule: Any, step: int) -> tuple[Any, Any]:
    with tf.init_scope():
        answer = schedule(tf.constant(step, tf.int64))
        try:
            fires, sparsity = (np.asarray(part).item() for part in answer)
            return bool(fires), float(sparsity)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "A pruning schedule must return a pair: whether it fires, and the "
                f"sparsity. Received: {answer!r} at step {step} from a "
                f"{type(schedule).__name__}"
            ) from error


@checked(first=ANY_STEP, last=ANY_STEP)
def fires_within(schedule: Any, first: int, last: int) -> bool | None:
    """Return whether a schedule fires at some step of a range.

    Schedules of the user's are tried step by step, 1,000 steps at the most.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.
        first: The first step of the range.
        last: The last step of the range.

    Returns:
        The answer, or `None` if it cannot be known ahead: for `EarlyBirdSparsity`
        before its start, and for a long range and a schedule of the user's that
        does not fire in the first 1,000 steps of it.

    Raises:
        ValueError: If it is no schedule, or asks for a sparsity outside [0, 1).

    Example:

    ```python
    schedule = tsp.schedules.ConstantSparsity(0.5, begin_step=100)
    tsp.schedules.fires_within(schedule, 1, 80)  # False
    ```
    """
    check_schedule(schedule)
    if isinstance(schedule, Schedule):
        return schedule.fires_within(first, last)
    if type(schedule) in _KNOWN:
        begin, end = schedule.begin_step, schedule.end_step
        return has_beat(first, last, begin, end, schedule.frequency)
    return try_steps(lambda step: evaluate(schedule, step)[0], first, last)


def last_firing(schedule: Any, first: int, last: int) -> tuple[int, float] | None:
    """Find the last step of a range at which a schedule fires.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.
        first: The first step of the range.
        last: The last step of the range.

    Returns:
        The step, and the sparsity that is asked for there; `None` if there is none,
        or only trying all steps would tell.
    """
    if not _is_known(schedule) or not fires_within(schedule, first, last):
        return None
    steps = range(first, last + 1)
    quiet = bisect.bisect_left(
        steps, True, key=lambda step: not fires_within(schedule, step, last)
    )
    step = steps[quiet - 1]
    return step, evaluate(schedule, step)[1]


def why_short(schedule: Any, first: int, last: int) -> str | None:
    """Return why a schedule asks for less than it is meant to reach, if it does.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.
        first: The first step of the training.
        last: Its last step.

    Returns:
        Sentences; `None` if it gets there, never fires, or cannot be known.
    """
    meant, found = final_sparsity(schedule), last_firing(schedule, first, last)
    if meant is None or found is None or found[1] >= meant:
        return None
    step, fraction = found
    said = f"at step {step} it fires for the last time, and asks for {fraction:.1%}."
    if last_firing(schedule, last + 1, FAR):
        return (
            f"The training ends at step {last}, before the schedule does: {said} Train "
            "longer, or let the schedule end earlier or fire more often (`frequency`)."
        )
    if falls(schedule):
        return (
            f"The schedule falls from {meant:.1%} to {fraction:.1%}. Masks only grow, "
            "so what is pruned stays pruned: let it rise."
        )
    names = ("begin_step", "end_step", "frequency")
    begin, end, every = (getattr(schedule, name, None) for name in names)
    if begin is None or end is None or every is None:
        return f"No firing of the schedule falls on its end: {said}"
    fitting = next(n for n in range(every, 0, -1) if (end - begin) % n == 0)
    return (
        f"No firing of the schedule falls on its end, `end_step={end}`: it fires every "
        f"`frequency={every}` steps from `begin_step={begin}` on; {said} Let "
        f"`frequency` divide the steps between: `frequency={fitting}`."
    )


def falls(schedule: Any) -> bool:
    """Return whether a schedule asks for more at its beginning than at its end."""
    names = ("initial_sparsity", "final_sparsity")
    initial, final = (_sparsity(getattr(schedule, name, None)) for name in names)
    return initial is not None and final is not None and initial > final


def is_over(schedule: Any, step: int) -> bool:
    """Return whether, by arithmetic, a schedule fires at no step after this one.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.
        step: The optimizer step.

    Returns:
        Whether it is known to be over; false for a rule that only trying would tell.
    """
    return _is_known(schedule) and fires_within(schedule, step + 1, FAR) is False


def _is_known(schedule: Any) -> bool:
    """Return whether arithmetic answers for a schedule and for the one that it runs."""
    if not isinstance(schedule, Schedule):
        return type(schedule) in _KNOWN
    inner = getattr(schedule, "schedule", None)
    tried = type(schedule).fires_within is Schedule.fires_within
    return not tried and (inner is None or _is_known(inner))


def final_sparsity(schedule: Any) -> float | None:
    """Return the largest sparsity that a schedule is meant to reach.

    Args:
        schedule: Any subclass of TFMOT's `PruningSchedule`.

    Returns:
        The largest of its attributes `initial_sparsity`, `final_sparsity` and
        `target_sparsity`; `None` if it has no final or target sparsity.

    Raises:
        ValueError: If it is no schedule.

    Example:

    ```python
    schedule = tsp.schedules.PolynomialDecay(0.2, 0.8, 0, 1000)
    tsp.schedules.final_sparsity(schedule)  # 0.8
    ```
    """
    check_schedule(schedule)
    names = ("final_sparsity", "target_sparsity", "initial_sparsity")
    first, second, initial = (
        _sparsity(getattr(schedule, name, None)) for name in names
    )
    meant = [value for value in (first, second) if value is not None]
    return max([*meant, initial or 0.0]) if meant else None


def _sparsity(value: Any) -> float | None:
    known = isinstance(value, numbers.Real) and 0.0 <= float(value) < 1.0
    return float(value) if known else None
