"""A base class of initializers that the layers of either flavour accept."""

import functools
import importlib

import keras


@functools.cache
def initializer_base() -> type:
    """Give a class that both flavours take for an initializer of their own.

    tf_keras warns of any other when it writes the config of a layer. It is imported
    here, and not before a class needs it.

    Returns:
        A class derived from `keras.initializers.Initializer` and that of tf_keras.
    """
    other = importlib.import_module("tf_keras").initializers.Initializer
    return type("Initializer", (keras.initializers.Initializer, other), {})
