"""Before training: sparse networks, and initial weights that let them learn."""

from tf_spline_prune.initialization.connection_scoring import connection_scores
from tf_spline_prune.initialization.control_models import controls
from tf_spline_prune.initialization.early_pruning import prune_at_init
from tf_spline_prune.initialization.mask_transfer import transfer_masks

__all__ = ["connection_scores", "controls", "prune_at_init", "transfer_masks"]
