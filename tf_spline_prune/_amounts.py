"""Fractions and numbers as people write them, in Python and in the shell."""

import math


def read_amount(text: str) -> float | int:
    """Read a fraction, `"0.5"` or `"50%"`, or an absolute whole number.

    Args:
        text: What the user wrote; spaces around it and before the sign do not count.

    Returns:
        A float for a fraction, an int for a number.

    Raises:
        ValueError: If it is neither.
    """
    given = text.strip()
    try:
        if given.endswith("%"):
            return finite(given[:-1]) / 100
        return int(given) if given.lstrip("+-").isdecimal() else finite(given)
    except ValueError:
        raise ValueError(
            "expected a fraction ('0.5' or '50%') or a whole number ('1200000'). "
            f"Received: {text!r}"
        ) from None


def finite(text: str) -> float:
    """Read a number that is neither NaN nor infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value
