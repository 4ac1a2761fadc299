"""Shipping a finished model: TensorFlow Serving and LiteRT.

What is written needs neither this package nor Keras. It appears whole or not at
all, and only after its answers were compared with the model's.
"""

from tf_spline_prune.export.export_report import ExportReport
from tf_spline_prune.export.litert_file import export_litert
from tf_spline_prune.export.saved_model import export_saved_model

__all__ = ["ExportReport", "export_litert", "export_saved_model"]
