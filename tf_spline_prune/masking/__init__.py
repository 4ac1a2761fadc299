"""Masks: zeros held in the weights of a model while it trains.

Wrapping, choosing what the masks remove, stripping, and shrinking by them.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)

__getattr__("MaskedLayer")  # Keras finds it by name when it loads a model
