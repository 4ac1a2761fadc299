"""Numbers of a schedule that training steps compiled before see change.

A number that Python holds is frozen into a graph when it is traced. These live in
variables, made and set outside of whatever graph is being built.
"""

from typing import Any

import tensorflow as tf


def state_variable(value: int, name: str) -> tf.Variable:
    """Make a variable for a whole number.

    It is an int64: an int32 would live on the host, out of reach of a step that is
    compiled for another device.

    Args:
        value: The number at first.
        name: The variable's name.

    Returns:
        An untrained variable of which replicas hold the same value.
    """
    with tf.init_scope():
        return tf.Variable(
            value,
            trainable=False,
            dtype=tf.int64,
            name=name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )


def read_state(variable: Any) -> int:
    """Read such a variable as it is now, also while a graph is being built."""
    with tf.init_scope():
        return int(variable.numpy())


def write_state(variable: Any, value: int) -> None:
    """Set such a variable now, also while a graph is being built."""
    with tf.init_scope():
        variable.assign(value)
