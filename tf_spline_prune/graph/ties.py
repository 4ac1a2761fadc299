"""Which labels name the same unit."""

from collections.abc import Sequence

import numpy as np

from tf_spline_prune.graph.axes import Labels


def joined(count: int, ties: Sequence[tuple[Labels, Labels]]) -> np.ndarray:
    """Join labels that are tied, directly or by a chain of ties.

    Args:
        count: Number of labels.
        ties: Pairs of arrays of labels, tied entry by entry.

    Returns:
        Array of shape `(count,)`: for each label the smallest label that it is
        joined with.
    """
    root = np.arange(count)
    if not ties:
        return root
    first = np.concatenate([a for a, _ in ties])
    second = np.concatenate([b for _, b in ties])
    while True:
        # Hook the larger root to the smaller one, then shorten the paths.
        low = np.minimum(root[first], root[second])
        high = np.maximum(root[first], root[second])
        if np.array_equal(low, high):
            return root
        np.minimum.at(root, high, low)
        while not np.array_equal(root, root[root]):
            root = root[root]
