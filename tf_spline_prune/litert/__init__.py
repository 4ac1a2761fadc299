"""Converting models for LiteRT (formerly TensorFlow Lite) and running them.

`convert` turns a Keras model of either flavour into the bytes of a `.tflite`
file; `Runner` runs such bytes or files and measures their latency. Both stay in
memory: `tsp.export_litert` is what writes a file and compares its answers.
"""

from tf_spline_prune.litert.conversion import convert
from tf_spline_prune.litert.runner import Runner
from tf_spline_prune.litert.servable import Servable

__all__ = ["Runner", "Servable", "convert"]
