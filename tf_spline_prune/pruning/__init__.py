"""Decisions on structured pruning, and their execution."""

from tf_spline_prune.pruning.batchnorm import recalibrate_batchnorm
from tf_spline_prune.pruning.execution import merge, remove_units
from tf_spline_prune.pruning.least_squares import least_squares
from tf_spline_prune.pruning.pipeline import prune
from tf_spline_prune.pruning.planner import plan
from tf_spline_prune.pruning.pruning_plan import PruningPlan
from tf_spline_prune.pruning.rule_check import check_rule
from tf_spline_prune.pruning.verification import verify

__all__ = [
    "PruningPlan",
    "check_rule",
    "least_squares",
    "merge",
    "plan",
    "prune",
    "recalibrate_batchnorm",
    "remove_units",
    "verify",
]
