"""Derivatives of a model's outputs by its inputs."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.run._execution import backend_of, to_numpy
from tf_spline_prune.errors import FlavourError

Tensors = Callable[[Any], Any]
Jacobians = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def jacobians_of(function: Tensors, model: Any, inputs: int, outputs: int) -> Jacobians:
    """Make a function that gives outputs and Jacobians of a batch.

    One pass runs each example as often as the shorter side of its Jacobian is long:
    forward along each input, or backward from each output.

    Args:
        function: Maps a tensor of shape `(n, *input shape)` to one of shape
            `(n, *output shape)`, each example by itself.
        model: The model whose layers it calls.
        inputs: The numbers that one example holds.
        outputs: The numbers that one output holds.

    Returns:
        A function from an array to two: outputs of shape `(n, outputs)`, Jacobians
        of shape `(n, outputs, inputs)`.

    Raises:
        FlavourError: If Keras runs on a backend whose derivatives are not read.
    """
    backend = backend_of(model)
    if backend not in ("tensorflow", "jax"):
        raise FlavourError(
            "Jacobians are taken on the backends tensorflow and jax. Set KERAS_BACKEND "
            "to one of them before the first import of keras. Received: the backend "
            f"{backend!r}"
        )
    forward = inputs <= outputs
    make = _on_tensorflow if backend == "tensorflow" else _on_jax
    run = make(function, forward, inputs if forward else outputs)

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal forward, run
        try:
            tensors = run(x)
        except LookupError:  # TensorFlow resizes images backward only
            if not forward:
                raise
            forward, run = False, make(function, False, outputs)
            tensors = run(x)
        values, slopes = map(to_numpy, tensors)
        values = values.reshape(len(x), outputs)
        if not forward:
            return values, slopes.reshape(len(x), outputs, inputs)
        return values, slopes.reshape(len(x), inputs, outputs).swapaxes(1, 2)

    return both


def _on_tensorflow(function: Tensors, forward: bool, times: int) -> Tensors:
    import tensorflow as tf

    zero = tf.UnconnectedGradients.ZERO

    def basis(tensor: Any) -> Any:
        """Assign each copy of an example a direction of its own."""
        size = math.prod(tensor.shape[1:])
        rows = tf.tile(tf.eye(size, dtype=tensor.dtype), [len(tensor) // size, 1])
        return tf.reshape(rows, tensor.shape)

    def run(x: np.ndarray) -> Any:
        copies = tf.repeat(tf.convert_to_tensor(x), times, axis=0)
        if forward:
            with tf.autodiff.ForwardAccumulator(copies, basis(copies)) as accumulator:
                values = function(copies)
            slopes = accumulator.jvp(values, unconnected_gradients=zero)
        else:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(copies)
                values = function(copies)
            slopes = tape.gradient(
                values, copies, basis(values), unconnected_gradients=zero
            )
        return values[::times], slopes

    return run


def _on_jax(function: Tensors, forward: bool, times: int) -> Tensors:
    import jax

    def one(x: Any) -> tuple[Any, Any]:
        values = function(x[None])[0].ravel()
        return values, values

    take = jax.jacfwd if forward else jax.jacrev
    each = jax.jit(jax.vmap(take(one, has_aux=True)))

    def run(x: np.ndarray) -> Any:
        slopes, values = each(keras.ops.convert_to_tensor(x))
        slopes = slopes.reshape(*slopes.shape[:2], -1)
        return values, slopes.swapaxes(1, 2) if forward else slopes

    return run
