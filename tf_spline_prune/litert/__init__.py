"""Converting models for LiteRT (formerly TensorFlow Lite) and running them.

`convert` turns a Keras model of either flavour into the bytes of a `.tflite`
file; `Runner` runs such bytes or files and measures their latency, and
`interleaved_latencies` those of several models in turns. All stay in memory:
`tsp.export_litert` is what writes a file and compares its answers.
"""

from tf_spline_prune.litert._attachments import attach, read_attachments
from tf_spline_prune.litert._convert import SIGNATURE, convert
from tf_spline_prune.litert._quantization import Quantize
from tf_spline_prune.litert._runner import Runner, interleaved_latencies
from tf_spline_prune.litert._servable import Servable

__all__ = [
    "SIGNATURE",
    "Quantize",
    "Runner",
    "Servable",
    "attach",
    "convert",
    "interleaved_latencies",
    "read_attachments",
]
