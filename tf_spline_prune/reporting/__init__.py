"""Reports: what pruning saved, and what training cost."""

from tf_spline_prune.reporting.comparing import report
from tf_spline_prune.reporting.flops import training_flops
from tf_spline_prune.reporting.report_table import Report

__all__ = ["Report", "report", "training_flops"]
