"""Shipping a finished model: TensorFlow Serving, LiteRT, ONNX.

What is written needs neither this package nor Keras. It appears whole or not at
all, and only after its answers were compared with the model's.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
