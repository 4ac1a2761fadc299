"""Converting models for LiteRT (formerly TensorFlow Lite) and running them.

`convert` turns a Keras model of either flavour into the bytes of a `.tflite`
file; `Runner` runs such bytes or files and measures their latency, and
`interleaved_latencies` those of several models in turns. All stay in memory:
`tsp.export_litert` is what writes a file and compares its answers.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
