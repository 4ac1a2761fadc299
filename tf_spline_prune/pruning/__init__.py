"""Decisions on structured pruning, and their execution."""

from tf_spline_prune.pruning.execution import merge, remove_units
from tf_spline_prune.pruning.pipeline import prune
from tf_spline_prune.pruning.planner import plan
from tf_spline_prune.pruning.pruning_plan import PruningPlan
from tf_spline_prune.pruning.rule_check import check_rule
from tf_spline_prune.pruning.verification import verify

__all__ = [
    "PruningPlan",
    "check_rule",
    "merge",
    "plan",
    "prune",
    "remove_units",
    "verify",
]
