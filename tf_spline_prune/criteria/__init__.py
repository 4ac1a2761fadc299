"""Criteria: scores, nothing else. One criterion a file."""

from tf_spline_prune.criteria._activation import Activation
from tf_spline_prune.criteria._batchnorm_scale import BatchNormScale
from tf_spline_prune.criteria._check_criterion import check_criterion
from tf_spline_prune.criteria._connection_criterion import ConnectionCriterion
from tf_spline_prune.criteria._connections import Connections
from tf_spline_prune.criteria._criterion import Criterion, PairCriterion, UnitPairs
from tf_spline_prune.criteria._fisher import Fisher
from tf_spline_prune.criteria._force import FORCE
from tf_spline_prune.criteria._fpgm import FPGM
from tf_spline_prune.criteria._get import AnyCriterion, get
from tf_spline_prune.criteria._grasp import GraSP
from tf_spline_prune.criteria._lamp import LAMP
from tf_spline_prune.criteria._magnitude import Magnitude
from tf_spline_prune.criteria._random import Random
from tf_spline_prune.criteria._reconstruction import Reconstruction
from tf_spline_prune.criteria._reduction import Normalizer, Reduction
from tf_spline_prune.criteria._snip import SNIP
from tf_spline_prune.criteria._spline import Spline
from tf_spline_prune.criteria._synflow import SynFlow
from tf_spline_prune.criteria._taylor import Taylor
from tf_spline_prune.criteria._user_function import UserFunction

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
