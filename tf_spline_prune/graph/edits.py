"""How entries of a config change with the units that are left."""

from typing import Any

import numpy as np


def counted(old: Any, keep: np.ndarray, index: int | None = None) -> Any:
    """Count the units that are left.

    Args:
        old: The entry, a number or a list of numbers.
        keep: Array of shape `(units,)`, bool.
        index: Position of the number in a list; -1 and `None` there mean that
            Keras counts by itself, and stay.

    Returns:
        The new entry.
    """
    kept = int(keep.sum())
    if index is None:
        return kept
    sizes = list(old)
    if sizes[index] not in (None, -1):
        sizes[index] = kept
    return tuple(sizes)


def cut(old: Any, keep: np.ndarray) -> Any:
    """Leave out the numbers of units that are gone, where there is one a unit."""
    numbers = np.asarray(old)
    if old is None or numbers.shape[-1:] != keep.shape:
        return old
    return numbers[..., keep].tolist()
