"""Reports: what pruning saved, and what training cost."""

from tf_spline_prune.reporting._report import report, training_flops
from tf_spline_prune.reporting._report_table import Report

__all__ = ["Report", "report", "training_flops"]
