"""Pruning schedules: when masks change during training, and to which sparsity.

`ConstantSparsity` and `PolynomialDecay` are TFMOT's own, handed on. The others are
subclasses of the same `PruningSchedule`, so they work in TFMOT's wrappers too.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)

for _name in __all__:  # Keras finds them by name when it loads a model
    __getattr__(_name)
