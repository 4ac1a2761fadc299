"""Activations as functions from NumPy arrays to NumPy arrays, in float64."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import Function, Options, Text
from tf_spline_prune.compat import activation_name, flavour_of, to_numpy

Elementwise = Callable[[np.ndarray], np.ndarray]

ACTIVATION: Options = [
    Text("the name of an activation"),
    Function("a layer or a function from arrays to arrays", layers=True),
]
"""What the checks of arguments want of an activation."""


def name_of(activation: Any) -> str:
    """Return the name of an activation, for messages and configs.

    Args:
        activation: As in `as_function`.

    Returns:
        The name as Keras serialises it, or that of the layer or function.
    """
    if isinstance(activation, str):
        return activation
    if flavour_of(activation) is not None:
        return str(getattr(activation, "name", type(activation).__name__))
    return activation_name(activation)


def as_function(activation: Any) -> Elementwise:
    """Make of an activation a function on arrays.

    Args:
        activation: A name that Keras knows, or `"erf"` for erf(sqrt(pi) x / 2), which
            has the slope 1 at 0; a layer or function of either flavour; a function
            from NumPy arrays to NumPy arrays.

    Returns:
        A function that takes and gives arrays of one axis.

    Raises:
        ValueError: If the name is unknown, or the function does not give one finite
            number for each of a few small ones.
        TypeError: If it is no activation at all.
    """
    function = _callable(activation)

    def evaluate(x: np.ndarray) -> np.ndarray:
        return np.asarray(to_numpy(function(x)), "float64")

    trial = np.linspace(-1.0, 1.0, 5)
    try:
        values = evaluate(trial)
        fits = values.shape == trial.shape and bool(np.isfinite(values).all())
        wrong = f"{values} for {trial}"
    except Exception as error:  # whatever a user's function raises
        fits, wrong = False, f"{type(error).__name__}: {error}"
    if not fits:
        raise ValueError(
            "An activation maps each entry of an array of shape (n,) by itself, to a "
            f"finite number. Received: {name_of(activation)!r}, which gave {wrong}"
        )
    return evaluate


def _callable(activation: Any) -> Callable[[Any], Any]:
    if activation == "erf":
        return lambda x: keras.ops.erf(x * (math.sqrt(math.pi) / 2))
    if isinstance(activation, str):
        try:
            return keras.activations.get(activation)
        except ValueError as error:
            raise ValueError(
                "There is no activation of this name. Give one that Keras knows, "
                "'erf', a layer, or a function from arrays to arrays. Received: "
                f"{activation!r}"
            ) from error
    if flavour_of(activation) is not None and hasattr(activation, "get_config"):
        # A copy, for a layer that has weights is built by its first call; one unit.
        config = {**activation.get_config(), "dtype": "float64"}
        copy = type(activation).from_config(config)
        return lambda x: copy(x[:, None])[:, 0]
    return activation
