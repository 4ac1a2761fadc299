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
    flat = np.concatenate([array.ravel() for array in scores])
    if old is None:
        keep = ~lowest(flat, np.broadcast_to(1, flat.shape), len(flat) - count)
    else:
        keep = np.concatenate([mask.ravel() for mask in old])
        left = flat[keep]
        gone = lowest(left, np.broadcast_to(1, left.shape), len(left) - count)
        keep[keep] = ~gone
    parts = np.split(keep, np.cumsum([array.size for array in scores])[:-1])
    return [part.reshape(a.shape) for part, a in zip(parts, scores, strict=True)]
