"""Data sets for examples, tests and benchmarks, two of them without a network.

`load` gives any TFDS image-classification set as a batched `tf.data.Dataset`.
`optical_digits` and `x_quadrants` live in this package and need no network.
Importing this module imports neither tensorflow nor tensorflow_datasets; the two
builder classes are imported, and so registered with TFDS, at their first use.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
