"""What the schedules demand of their arguments."""

import math
import numbers
from typing import Any


def check_sparsity(name: str, value: Any) -> float:
    """Check that an argument is a sparsity: a number in [0, 1).

    Args:
        name: Name of the argument.
        value: What was given.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, numbers.Real) or not 0.0 <= float(value) < 1.0:
        raise ValueError(
            f"`{name}` must be a sparsity: at least 0 and less than 1. Received: "
            f"{name}={value!r}"
        )
    return float(value)


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """Check that an argument is a whole number that is not too small.

    Args:
        name: Name of the argument.
        value: What was given.
        least: The smallest number allowed.

    Returns:
        The value as an int.

    Raises:
        ValueError: If it is no whole number or smaller.
    """
    if not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}. Received: "
            f"{name}={value!r}"
        )
    return int(value)


def check_range(begin_step: Any, end_step: Any) -> tuple[int, int]:
    """Check that two steps are in order; they may be equal.

    Args:
        begin_step: The first step.
        end_step: The last step.

    Returns:
        Both as ints.

    Raises:
        ValueError: If one is no whole number, negative, or they are out of order.
    """
    begin = check_whole("begin_step", begin_step)
    end = check_whole("end_step", end_step)
    if end < begin:
        raise ValueError(
            "`end_step` must not come before `begin_step`. Received: "
            f"begin_step={begin}, end_step={end}"
        )
    return begin, end


def check_power(power: Any) -> float:
    """Check that an exponent is finite and greater than 0.

    Args:
        power: What was given.

    Returns:
        The exponent, an int where an int was given.

    Raises:
        ValueError: If it is out of range.
    """
    if not isinstance(power, numbers.Real) or not 0.0 < float(power) < math.inf:
        raise ValueError(f"`power` must be greater than 0. Received: power={power!r}")
    return int(power) if isinstance(power, numbers.Integral) else float(power)
