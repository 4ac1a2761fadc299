"""Reports: what pruning saved, and what training cost."""

from tf_spline_prune.reporting.report_table import (
    Report,
    measure_in_turns,
    report,
    training_flops,
)

__all__ = ["Report", "measure_in_turns", "report", "training_flops"]
