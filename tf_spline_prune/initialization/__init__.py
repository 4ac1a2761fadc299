"""Before training: sparse networks, and weights and masks that let the signal through.

Pruning without training, the theory of wide random networks, initial weights on its
edge of chaos, and repairs of what pruning before training breaks.
"""

from tf_spline_prune.initialization.connection_scoring import connection_scores
from tf_spline_prune.initialization.control_models import controls
from tf_spline_prune.initialization.criticality import (
    critical_sparsity,
    magnitude_critical_sparsity,
)
from tf_spline_prune.initialization.data_aware import DataAware
from tf_spline_prune.initialization.diagnosis import signal_propagation
from tf_spline_prune.initialization.early_pruning import prune_at_init
from tf_spline_prune.initialization.edge_initializer import EdgeOfChaos
from tf_spline_prune.initialization.edge_point import EdgePoint
from tf_spline_prune.initialization.isometry import approximate_isometry
from tf_spline_prune.initialization.mask_transfer import transfer_masks
from tf_spline_prune.initialization.mean_field import MeanField, edge_of_chaos
from tf_spline_prune.initialization.orthogonal_masks import exact_orthogonal
from tf_spline_prune.initialization.rescaling import rescale
from tf_spline_prune.initialization.residual import stable_residual
from tf_spline_prune.initialization.signal_report import SignalPropagation

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
