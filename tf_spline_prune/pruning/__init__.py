"""Decisions on structured pruning, and their execution."""

from tf_spline_prune.pruning.batchnorm import recalibrate_batchnorm
from tf_spline_prune.pruning.composition import compose
from tf_spline_prune.pruning.execution import merge, remove_units
from tf_spline_prune.pruning.layer_sensitivity import Sensitivity, sensitivity
from tf_spline_prune.pruning.lossless_pass import lossless
from tf_spline_prune.pruning.pipeline import prune
from tf_spline_prune.pruning.planner import plan
from tf_spline_prune.pruning.pruning_plan import PruningPlan
from tf_spline_prune.pruning.reader_regression import least_squares
from tf_spline_prune.pruning.rounds import prune_in_rounds
from tf_spline_prune.pruning.rule_check import check_rule
from tf_spline_prune.pruning.sanity import sanity_checks
from tf_spline_prune.pruning.sanity_report import SanityReport
from tf_spline_prune.pruning.teaching import distill
from tf_spline_prune.pruning.verification import verify

__all__ = [
    "PruningPlan",
    "SanityReport",
    "Sensitivity",
    "check_rule",
    "compose",
    "distill",
    "least_squares",
    "lossless",
    "merge",
    "plan",
    "prune",
    "prune_in_rounds",
    "recalibrate_batchnorm",
    "remove_units",
    "sanity_checks",
    "sensitivity",
    "verify",
]
