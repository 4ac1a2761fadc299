"""Decisions on structured pruning, and their execution."""

from tf_spline_prune.pruning._prune import prune
from tf_spline_prune.pruning._prune_in_rounds import prune_in_rounds
from tf_spline_prune.pruning._remove_units import merge, remove_units
from tf_spline_prune.pruning.checks._check_rule import check_rule
from tf_spline_prune.pruning.checks._sanity_checks import SanityReport, sanity_checks
from tf_spline_prune.pruning.checks._sensitivity import Sensitivity, sensitivity
from tf_spline_prune.pruning.checks._verify import verify
from tf_spline_prune.pruning.planning._compose import compose
from tf_spline_prune.pruning.planning._plan import plan
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._distill import distill
from tf_spline_prune.pruning.recovery._least_squares import least_squares
from tf_spline_prune.pruning.recovery._recalibrate_batchnorm import (
    recalibrate_batchnorm,
)
from tf_spline_prune.pruning.without_loss._lossless import lossless

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
