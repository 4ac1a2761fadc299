"""Before training: sparse networks, and weights and masks that let the signal through.

Pruning without training, the theory of wide random networks, initial weights on its
edge of chaos, and repairs of what pruning before training breaks.
"""

from tf_spline_prune.initialization.connection_scoring import connection_scores
from tf_spline_prune.initialization.early_pruning import prune_at_init
from tf_spline_prune.initialization.edge_initializer import EdgeOfChaos
from tf_spline_prune.initialization.edge_point import EdgePoint
from tf_spline_prune.initialization.mean_field import MeanField, edge_of_chaos
from tf_spline_prune.initialization.rescaling import rescale

__all__ = [
    "EdgeOfChaos",
    "EdgePoint",
    "MeanField",
    "connection_scores",
    "edge_of_chaos",
    "prune_at_init",
    "rescale",
]
