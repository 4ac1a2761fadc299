"""Criteria: scores, nothing else. One criterion a file."""

from tf_spline_prune.criteria.activation import Activation
from tf_spline_prune.criteria.batchnorm_scale import BatchNormScale
from tf_spline_prune.criteria.connection_criterion import ConnectionCriterion
from tf_spline_prune.criteria.connections import Connections
from tf_spline_prune.criteria.criterion import Criterion, PairCriterion, UnitPairs
from tf_spline_prune.criteria.criterion_check import check_criterion
from tf_spline_prune.criteria.finding import AnyCriterion, get
from tf_spline_prune.criteria.fisher import Fisher
from tf_spline_prune.criteria.force import FORCE
from tf_spline_prune.criteria.fpgm import FPGM
from tf_spline_prune.criteria.grasp import GraSP
from tf_spline_prune.criteria.lamp import LAMP
from tf_spline_prune.criteria.magnitude import Magnitude
from tf_spline_prune.criteria.random import Random
from tf_spline_prune.criteria.reconstruction import Reconstruction
from tf_spline_prune.criteria.reduction import Normalizer, Reduction
from tf_spline_prune.criteria.snip import SNIP
from tf_spline_prune.criteria.spline import Spline
from tf_spline_prune.criteria.synflow import SynFlow
from tf_spline_prune.criteria.taylor import Taylor
from tf_spline_prune.criteria.user_function import UserFunction

__all__ = [
    "Activation",
    "AnyCriterion",
    "BatchNormScale",
    "ConnectionCriterion",
    "Connections",
    "Criterion",
    "FORCE",
    "FPGM",
    "Fisher",
    "GraSP",
    "LAMP",
    "Magnitude",
    "Normalizer",
    "PairCriterion",
    "Random",
    "Reconstruction",
    "Reduction",
    "SNIP",
    "Spline",
    "SynFlow",
    "Taylor",
    "UnitPairs",
    "UserFunction",
    "check_criterion",
    "get",
]
