"""Before training: sparse networks, and weights and masks that let the signal through.

Pruning without training, the theory of wide random networks, initial weights on its
edge of chaos, and repairs of what pruning before training breaks.
"""

from tf_spline_prune.initialization._connection_scores import connection_scores
from tf_spline_prune.initialization._controls import controls, transfer_masks
from tf_spline_prune.initialization._prune_at_init import prune_at_init
from tf_spline_prune.initialization.repair._approximate_isometry import (
    approximate_isometry,
)
from tf_spline_prune.initialization.repair._data_aware import DataAware
from tf_spline_prune.initialization.repair._exact_orthogonal import exact_orthogonal
from tf_spline_prune.initialization.repair._rescale import rescale
from tf_spline_prune.initialization.repair._stable_residual import stable_residual
from tf_spline_prune.initialization.signal._critical_sparsity import (
    critical_sparsity,
    magnitude_critical_sparsity,
)
from tf_spline_prune.initialization.signal._edge_of_chaos import EdgeOfChaos
from tf_spline_prune.initialization.signal._mean_field import (
    EdgePoint,
    MeanField,
    edge_of_chaos,
)
from tf_spline_prune.initialization.signal._signal_propagation import signal_propagation
from tf_spline_prune.initialization.signal._signal_report import SignalPropagation

__all__ = [
    "DataAware",
    "EdgeOfChaos",
    "EdgePoint",
    "MeanField",
    "SignalPropagation",
    "approximate_isometry",
    "connection_scores",
    "controls",
    "critical_sparsity",
    "edge_of_chaos",
    "exact_orthogonal",
    "magnitude_critical_sparsity",
    "prune_at_init",
    "rescale",
    "signal_propagation",
    "stable_residual",
    "transfer_masks",
]
