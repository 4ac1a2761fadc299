from tf_spline_prune.export._export_litert import export_litert as export_litert
from tf_spline_prune.export._export_onnx import export_onnx as export_onnx
from tf_spline_prune.export._export_report import ExportReport as ExportReport
from tf_spline_prune.export._export_saved_model import (
    export_saved_model as export_saved_model,
)
from tf_spline_prune.export._write_serving_config import (
    write_serving_config as write_serving_config,
)
