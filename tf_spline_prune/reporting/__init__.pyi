from tf_spline_prune.reporting._report import (
    report as report,
    training_flops as training_flops,
)
from tf_spline_prune.reporting._report_table import Report as Report
