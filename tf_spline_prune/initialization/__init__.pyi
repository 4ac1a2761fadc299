from tf_spline_prune.initialization._connection_scores import (
    connection_scores as connection_scores,
)
from tf_spline_prune.initialization._controls import (
    controls as controls,
    transfer_masks as transfer_masks,
)
from tf_spline_prune.initialization._prune_at_init import prune_at_init as prune_at_init
from tf_spline_prune.initialization.repair._approximate_isometry import (
    approximate_isometry as approximate_isometry,
)
from tf_spline_prune.initialization.repair._data_aware import DataAware as DataAware
from tf_spline_prune.initialization.repair._exact_orthogonal import (
    exact_orthogonal as exact_orthogonal,
)
from tf_spline_prune.initialization.repair._rescale import rescale as rescale
from tf_spline_prune.initialization.repair._stable_residual import (
    stable_residual as stable_residual,
)
from tf_spline_prune.initialization.signal._critical_sparsity import (
    critical_sparsity as critical_sparsity,
    magnitude_critical_sparsity as magnitude_critical_sparsity,
)
from tf_spline_prune.initialization.signal._edge_of_chaos import (
    EdgeOfChaos as EdgeOfChaos,
)
from tf_spline_prune.initialization.signal._mean_field import (
    EdgePoint as EdgePoint,
    MeanField as MeanField,
    edge_of_chaos as edge_of_chaos,
)
from tf_spline_prune.initialization.signal._signal_propagation import (
    SignalPropagation as SignalPropagation,
    signal_propagation as signal_propagation,
)
