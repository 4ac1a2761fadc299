"""Shipping a finished model: TensorFlow Serving, LiteRT, ONNX.

What is written needs neither this package nor Keras. It appears whole or not at
all, and only after its answers were compared with the model's.
"""

from tf_spline_prune.export._export_litert import export_litert
from tf_spline_prune.export._export_onnx import export_onnx
from tf_spline_prune.export._export_report import ExportReport
from tf_spline_prune.export._export_saved_model import export_saved_model
from tf_spline_prune.export._write_serving_config import write_serving_config

__all__ = [
    "ExportReport",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "write_serving_config",
]
