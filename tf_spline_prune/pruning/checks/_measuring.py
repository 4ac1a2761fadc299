"""What users hand in to measure and to train models with, checked."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tf_spline_prune._checks import Function, received
from tf_spline_prune.compat import states_kept

Evaluate = Callable[[Any], float]
Train = Callable[[Any], Any]


# What the checks of arguments want of the two.
EVALUATE = Function("a function of a model that returns one number")
TRAIN = Function("a function of a model that trains it in place")


def measured(evaluate: Evaluate, model: Any) -> float:
    """Measure a model with the user's function.

    Args:
        evaluate: The user's function.
        model: A model.

    Returns:
        What it gave, as a float; NaN is let through, for a model may be broken.

    Raises:
        TypeError: If it gave no single number.
    """
    with states_kept(model):
        found = evaluate(model)
    try:
        return float(found)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`evaluate(model)` must return one number, such as an accuracy. "
            f"Received: {received(found)} of type {type(found).__name__}"
        ) from error


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation of a sample.

    Args:
        values: At least one number.

    Returns:
        The mean, and the standard deviation with `n - 1` below the fraction bar, or
        `None` for a single value.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))
