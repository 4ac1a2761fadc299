"""The entries of a weight, arranged by the units that they belong to."""

import math

import numpy as np

from tf_spline_prune.graph.facts import Member

# Weights of so many entries are not copied into a wider type.
_BIG = 2**24


def rows_of(array: np.ndarray, member: Member) -> np.ndarray:
    """Arrange a weight by units.

    Args:
        array: The weight.
        member: Where the units lie in it.

    Returns:
        Array of shape `(units, d)`.
    """
    if array.size < _BIG or array.dtype != np.float32:
        array = array.astype("float64")
    array = np.moveaxis(array, member.axis, 0)
    places = member.positions
    if places.shape != (len(array), 1) or (np.diff(places[:, 0]) != 1).any():
        array = array[places]
    return array.reshape(len(places), -1)


def lengths_of(array: np.ndarray, member: Member, p: int) -> np.ndarray:
    """Measure a weight unit by unit, without a copy of it.

    Args:
        array: The weight.
        member: Where the units lie in it.
        p: 1 or 2.

    Returns:
        Array of shape `(units,)`, float64: the p-norms.
    """
    size = array.shape[member.axis]
    blocks = array.reshape(math.prod(array.shape[: member.axis]), size, -1)
    total = np.zeros(size)
    step = max(1, _BIG // 16 // max(1, size * blocks.shape[2]))
    for start in range(0, len(blocks), step):
        block = blocks[start : start + step].astype("float64")
        if p == 2:
            total += np.einsum("asb,asb->s", block, block)
        else:
            total += np.abs(block, out=block).sum(axis=(0, 2))
    return np.asarray(total[member.positions].sum(axis=1) ** (1 / p))
