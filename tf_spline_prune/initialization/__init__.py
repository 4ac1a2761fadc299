"""Before training: sparse networks, and initial weights that let them learn."""

from tf_spline_prune.initialization.connection_scoring import connection_scores
from tf_spline_prune.initialization.early_pruning import prune_at_init

__all__ = ["connection_scores", "prune_at_init"]
