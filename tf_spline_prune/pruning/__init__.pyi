from tf_spline_prune.pruning._prune import prune as prune
from tf_spline_prune.pruning._prune_in_rounds import prune_in_rounds as prune_in_rounds
from tf_spline_prune.pruning._remove_units import (
    merge as merge,
    remove_units as remove_units,
)
from tf_spline_prune.pruning.checks._check_rule import check_rule as check_rule
from tf_spline_prune.pruning.checks._sanity_checks import (
    SanityReport as SanityReport,
    sanity_checks as sanity_checks,
)
from tf_spline_prune.pruning.checks._sensitivity import (
    Sensitivity as Sensitivity,
    sensitivity as sensitivity,
)
from tf_spline_prune.pruning.checks._verify import verify as verify
from tf_spline_prune.pruning.depth._drop_blocks import (
    ResidualBlock as ResidualBlock,
    drop_blocks as drop_blocks,
    residual_blocks as residual_blocks,
)
from tf_spline_prune.pruning.planning._compose import compose as compose
from tf_spline_prune.pruning.planning._plan import plan as plan
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan as PruningPlan
from tf_spline_prune.pruning.recovery._data_free import (
    refit_data_free as refit_data_free,
)
from tf_spline_prune.pruning.recovery._distill import distill as distill
from tf_spline_prune.pruning.recovery._least_squares import (
    least_squares as least_squares,
)
from tf_spline_prune.pruning.recovery._recalibrate_batchnorm import (
    recalibrate_batchnorm as recalibrate_batchnorm,
)
from tf_spline_prune.pruning.width._prune_hidden import (
    ResidualStream as ResidualStream,
    prune_hidden as prune_hidden,
    residual_streams as residual_streams,
)
from tf_spline_prune.pruning.without_loss._lossless import lossless as lossless
