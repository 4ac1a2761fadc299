"""Before training: sparse networks, and weights and masks that let the signal through.

Pruning without training, the theory of wide random networks, initial weights on its
edge of chaos, and repairs of what pruning before training breaks.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)

__getattr__("EdgeOfChaos")  # Keras finds it by name when it loads a model
