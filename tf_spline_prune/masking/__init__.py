"""Masks: zeros held in the weights of a model while it trains.

Wrapping, choosing what the masks remove, stripping, and shrinking by them.
"""

from tf_spline_prune.masking._load_weights import load_weights
from tf_spline_prune.masking._masked_layer import MaskedLayer
from tf_spline_prune.masking._strip_masks import shrink, strip_masks
from tf_spline_prune.masking._update_masks import (
    apply_masks,
    prune_once,
    update_masks,
)
from tf_spline_prune.masking._weight_sparsity import weight_sparsity
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks

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
