from tf_spline_prune.criteria._activation import Activation as Activation
from tf_spline_prune.criteria._batchnorm_scale import BatchNormScale as BatchNormScale
from tf_spline_prune.criteria._check_criterion import check_criterion as check_criterion
from tf_spline_prune.criteria._connection_criterion import (
    ConnectionCriterion as ConnectionCriterion,
)
from tf_spline_prune.criteria._connections import Connections as Connections
from tf_spline_prune.criteria._criterion import (
    AnyCriterion as AnyCriterion,
    Criterion as Criterion,
    Normalizer as Normalizer,
    PairCriterion as PairCriterion,
    Reduction as Reduction,
    UnitPairs as UnitPairs,
)
from tf_spline_prune.criteria._fisher import Fisher as Fisher
from tf_spline_prune.criteria._force import FORCE as FORCE
from tf_spline_prune.criteria._fpgm import FPGM as FPGM
from tf_spline_prune.criteria._get import get as get
from tf_spline_prune.criteria._grasp import GraSP as GraSP
from tf_spline_prune.criteria._lamp import LAMP as LAMP
from tf_spline_prune.criteria._magnitude import Magnitude as Magnitude
from tf_spline_prune.criteria._random import Random as Random
from tf_spline_prune.criteria._reconstruction import Reconstruction as Reconstruction
from tf_spline_prune.criteria._snip import SNIP as SNIP
from tf_spline_prune.criteria._spline import Spline as Spline
from tf_spline_prune.criteria._synflow import SynFlow as SynFlow
from tf_spline_prune.criteria._taylor import Taylor as Taylor
from tf_spline_prune.criteria._user_function import UserFunction as UserFunction
