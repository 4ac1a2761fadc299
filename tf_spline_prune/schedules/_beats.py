"""The steps begin, begin + frequency, ... in plain arithmetic."""

from collections.abc import Callable

# Nothing is tried step by step over a longer range.
_MOST_STEPS = 1000


def is_beat(step: int, begin: int, end: int, frequency: int) -> bool:
    """Return whether a step is a beat.

    Args:
        step: The step.
        begin: The first beat.
        end: No beat comes after this step; a negative number is no end.
        frequency: Steps between two beats.

    Returns:
        Whether `step` is one of `begin`, `begin + frequency`, ... up to `end`.
    """
    inside = step >= begin and (end < 0 or step <= end)
    return inside and (step - begin) % frequency == 0


def has_beat(first: int, last: int, begin: int, end: int, frequency: int) -> bool:
    """Return whether a range of steps holds a beat.

    Args:
        first: The first step of the range.
        last: The last step of the range; an empty range holds none.
        begin: The first beat.
        end: No beat comes after this step; a negative number is no end.
        frequency: Steps between two beats.

    Returns:
        Whether some step from `first` to `last`, both included, is a beat.
    """
    last = last if end < 0 else min(last, end)
    first = max(first, begin)
    following = begin + -(-(first - begin) // frequency) * frequency
    return following <= last


def try_steps(fires: Callable[[int], bool], first: int, last: int) -> bool | None:
    """Look for a firing step by trying, 1,000 steps at the most.

    Args:
        fires: Tells whether a step is one.
        first: The first step of the range.
        last: The last step of the range.

    Returns:
        Whether there is one, or `None` where the range is longer than that and
        none was found.
    """
    tried = range(first, min(last + 1, first + _MOST_STEPS))
    if any(fires(step) for step in tried):
        return True
    return False if first + len(tried) > last else None
