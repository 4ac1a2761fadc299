"""Between which values an activation function's output lies."""

from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import activation_name, to_numpy
from tf_spline_prune.graph.rules.elementwise import is_known
from tf_spline_prune.pruning.bounds import Bounds

# Functions of single entries that never fall, by the name Keras serialises.
_RISING = frozenset(
    "linear relu relu6 leaky_relu elu selu celu sigmoid tanh softplus softsign "
    "hard_sigmoid hard_sigmoid_2.5 hard_tanh exponential log_sigmoid squareplus".split()
)
# Others of single entries: a value that never changes stays one.
_OTHER = frozenset("gelu silu swish mish hard_silu hard_swish abs tanh_shrink".split())


def activated(function: Any, value: Bounds) -> Bounds | None:
    """Bound what an activation function makes of a tensor.

    Args:
        function: An activation function of either flavour, or `None`.
        value: The bounds of its input.

    Returns:
        The bounds of its output; `None` if the function is not known.
    """
    name = activation_name(function) if callable(function) else "linear"
    if name == "linear":
        return value
    if not is_known(function) or name not in _RISING | _OTHER:
        return None
    low, high = (
        to_numpy(function(keras.ops.convert_to_tensor(bound))).astype("float64")
        for bound in _both(value)
    )
    if name in _RISING:
        return Bounds(low, high)
    fixed = value.low == value.high
    return Bounds(np.where(fixed, low, -np.inf), np.where(fixed, high, np.inf))


def _both(value: Bounds) -> tuple[np.ndarray, np.ndarray]:
    # A copy: a backend must not see an array that numpy only pretends to hold.
    return np.array(value.low, "float32"), np.array(value.high, "float32")
