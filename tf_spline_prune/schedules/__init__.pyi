from tf_spline_prune.schedules._cyclic import Cyclic as Cyclic
from tf_spline_prune.schedules._early_bird_sparsity import (
    EarlyBirdSparsity as EarlyBirdSparsity,
)
from tf_spline_prune.schedules._exponential import Exponential as Exponential
from tf_spline_prune.schedules._firing import (
    evaluate as evaluate,
    final_sparsity as final_sparsity,
    fires_within as fires_within,
)
from tf_spline_prune.schedules._one_shot import OneShot as OneShot
from tf_spline_prune.schedules._schedule import Schedule as Schedule
from tf_spline_prune.schedules._tfmot import (
    ConstantSparsity as ConstantSparsity,
    PolynomialDecay as PolynomialDecay,
)
from tf_spline_prune.schedules._timed import Timed as Timed
