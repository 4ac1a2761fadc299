"""A base class of initializers that the layers of either flavour accept."""

import functools
import sys

import keras


@functools.cache
def initializer_base() -> type:
    """Give a class that both flavours take for an initializer of their own.

    tf_keras warns of any other when it writes the config of a layer. It need not be
    installed, and is not imported for this: who uses it has done so.

    Returns:
        A class derived from `keras.initializers.Initializer`, and from that of
        tf_keras where tf_keras is imported.
    """
    bases = [keras.initializers.Initializer]
    if "tf_keras" in sys.modules:
        bases.append(sys.modules["tf_keras"].initializers.Initializer)
    return type("Initializer", tuple(bases), {})
