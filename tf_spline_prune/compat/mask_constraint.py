"""`MaskConstraint`: what makes an optimizer hold a mask, in either flavour."""

from collections.abc import Callable
from typing import Any

import keras


class MaskConstraint:
    """A constraint of a weight: the user's own first, then zeros by the mask.

    Args:
        mask: The variable of the mask, of numbers or bool; zero and false remove.
        users: The constraint that the weight had, or `None`.
    """

    def __init__(self, mask: Any, users: Callable[[Any], Any] | None) -> None:
        self.mask = mask
        self.users = users

    def __call__(self, weight: Any) -> Any:
        """Give the weight that is to be kept, as a tensor."""
        if self.users is not None:
            weight = self.users(weight)
        weight = keras.ops.convert_to_tensor(weight)
        if keras.config.backend() != "tensorflow":
            keep = keras.ops.cast(self.mask, "bool")
            return keras.ops.where(keep, weight, keras.ops.zeros((), weight.dtype))
        import tensorflow as tf

        # Zero also where the weight is NaN or infinite, in half the time of `where`.
        keep = tf.cast(keras.ops.convert_to_tensor(self.mask), weight.dtype)
        return tf.math.multiply_no_nan(weight, keep)
