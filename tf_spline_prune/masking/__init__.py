"""Masks: zeros held in the weights of a model while it trains.

Wrapping, choosing what the masks remove, stripping, and shrinking by them.
"""

from tf_spline_prune.masking.masked_layer import MaskedLayer
from tf_spline_prune.masking.sparsities import weight_sparsity
from tf_spline_prune.masking.stripping import shrink, strip_masks
from tf_spline_prune.masking.updating import (
    apply_masks,
    prune_once,
    update_masks,
)
from tf_spline_prune.masking.weight_files import load_weights
from tf_spline_prune.masking.wrapping import wrap_with_masks

__all__ = [
    "MaskedLayer",
    "apply_masks",
    "load_weights",
    "prune_once",
    "shrink",
    "strip_masks",
    "update_masks",
    "weight_sparsity",
    "wrap_with_masks",
]
