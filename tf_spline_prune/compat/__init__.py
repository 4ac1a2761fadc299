"""The one place that knows two Keras flavours and touches Keras internals.

Everything above works on what this package hands out: which flavour an object
belongs to, the graph of a model as a list of calls that can be run with any
meaning of "call", weights by name, rebuilt models, and callbacks that either
flavour's `fit` accepts. Asking costs no import of the other flavour.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
