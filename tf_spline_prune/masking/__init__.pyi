from tf_spline_prune.masking._load_weights import load_weights as load_weights
from tf_spline_prune.masking._masked_layer import MaskedLayer as MaskedLayer
from tf_spline_prune.masking._prune_once import prune_once as prune_once
from tf_spline_prune.masking._strip_masks import (
    shrink as shrink,
    strip_masks as strip_masks,
)
from tf_spline_prune.masking._update_masks import (
    apply_masks as apply_masks,
    update_masks as update_masks,
)
from tf_spline_prune.masking._weight_sparsity import weight_sparsity as weight_sparsity
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks as wrap_with_masks
