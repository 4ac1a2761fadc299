"""Before training: weights and masks that let the signal through.

The theory of wide random networks, initial weights on its edge of chaos, and repairs
of what pruning before training breaks.
"""

from tf_spline_prune.initialization.edge_initializer import EdgeOfChaos
from tf_spline_prune.initialization.edge_point import EdgePoint
from tf_spline_prune.initialization.isometry import approximate_isometry
from tf_spline_prune.initialization.mean_field import MeanField, edge_of_chaos
from tf_spline_prune.initialization.orthogonal_masks import exact_orthogonal
from tf_spline_prune.initialization.rescaling import rescale

__all__ = [
    "EdgeOfChaos",
    "EdgePoint",
    "MeanField",
    "approximate_isometry",
    "edge_of_chaos",
    "exact_orthogonal",
    "rescale",
]
