"""Keeping so many weights of a whole network, those of the highest scores."""

from collections.abc import Sequence

import numpy as np

from tf_spline_prune.masking.cells import lowest


def strongest(
    scores: Sequence[np.ndarray], count: int, old: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Choose the weights of the highest scores, exactly as many as are asked for.

    Among equal scores the first ones go, tensor by tensor: nothing hangs on chance.

    Args:
        scores: One array a weight tensor, finite or plus infinity; higher means keep.
        count: How many weights stay, of all tensors together.
        old: Masks, bool; what they have removed stays gone.

    Returns:
        One bool array a tensor, in its shape; true means keep.
    """
    if old is None:
        old = [np.ones(array.shape, bool) for array in scores]
    masks = [mask.copy() for mask in old]
    left = np.concatenate([a[mask] for a, mask in zip(scores, masks, strict=True)])
    gone = lowest(left, np.broadcast_to(1, left.shape), len(left) - count)
    ends = np.cumsum([np.count_nonzero(mask) for mask in masks])
    for mask, lost in zip(masks, np.split(gone, ends[:-1]), strict=True):
        mask[mask] = ~lost
    return masks
