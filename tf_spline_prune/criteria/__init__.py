"""Criteria: scores, nothing else. One criterion a file."""

from tf_spline_prune.criteria.activation import Activation
from tf_spline_prune.criteria.batchnorm_scale import BatchNormScale
from tf_spline_prune.criteria.criterion import Criterion, PairCriterion, UnitPairs
from tf_spline_prune.criteria.criterion_check import check_criterion
from tf_spline_prune.criteria.finding import AnyCriterion, get
from tf_spline_prune.criteria.fisher import Fisher
from tf_spline_prune.criteria.fpgm import FPGM
from tf_spline_prune.criteria.lamp import LAMP
from tf_spline_prune.criteria.magnitude import Magnitude
from tf_spline_prune.criteria.random import Random
from tf_spline_prune.criteria.reconstruction import Reconstruction
from tf_spline_prune.criteria.reduction import Normalizer, Reduction
from tf_spline_prune.criteria.spline import Spline
from tf_spline_prune.criteria.taylor import Taylor
from tf_spline_prune.criteria.user_function import UserFunction

__all__ = [
    "Activation",
    "AnyCriterion",
    "BatchNormScale",
    "Criterion",
    "FPGM",
    "Fisher",
    "LAMP",
    "Magnitude",
    "Normalizer",
    "PairCriterion",
    "Random",
    "Reconstruction",
    "Reduction",
    "Spline",
    "Taylor",
    "UnitPairs",
    "UserFunction",
    "check_criterion",
    "get",
]
