"""Sparse matrices that are exactly orthogonal."""

import numpy as np

from tf_spline_prune.initialization.drawing import rotation

# So many random pairs are tried before all are looked through.
_GUESSES = 50


def sparse_rotation(
    rows: int, columns: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make an orthogonal matrix with a given number of entries.

    A permutation matrix with random signs is rotated in the plane of two random rows,
    or columns, again and again. Each rotation spreads the entries of both over all
    places that either has, and keeps what is orthogonal orthogonal.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        count: How many entries may be other than zero; at least the shorter side.
        rng: Draws.

    Returns:
        Array of shape `(rows, columns)`, whose columns are orthonormal, or its rows
        where it is wide; and the places of its entries, bool. There are at most
        `count`, and as many as rotations reach.
    """
    if rows < columns:
        matrix, keep = sparse_rotation(columns, rows, count, rng)
        return matrix.T, keep.T
    if count == rows * columns:
        return rotation(rows, columns, rng), np.ones((rows, columns), bool)
    matrix = np.zeros((rows, columns))
    signs = rng.choice([-1.0, 1.0], columns)
    matrix[rng.permutation(rows)[:columns], rng.permutation(columns)] = signs
    keep = matrix != 0
    left = count - columns
    while left > 0:
        views = [(matrix, keep), (matrix.T, keep.T)]
        if rng.random() < columns / (rows + columns):
            views.reverse()
        for view in views:
            pair, gain = _fitting_pair(view[1], left, rng)
            if gain:
                break
        else:
            break
        lines, places = view
        angle = rng.uniform(0.0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        lines[pair] = np.array([[c, -s], [s, c]]) @ lines[pair]
        places[pair] = places[pair[0]] | places[pair[1]]
        left -= gain
    return matrix, keep


def _fitting_pair(
    places: np.ndarray, left: int, rng: np.random.Generator
) -> tuple[list[int], int]:
    """Find two lines whose rotation makes new entries, but not too many.

    Args:
        places: Where entries are, bool, a row a line.
        left: The most new entries.
        rng: Draws.

    Returns:
        The two lines, and the number of new entries; 0 where no pair fits.
    """
    for first, second in rng.integers(0, len(places), (_GUESSES, 2)):
        gain = int(np.count_nonzero(places[first] ^ places[second]))
        if 0 < gain <= left:
            return [int(first), int(second)], gain
    ones = places.astype("float32")
    sizes = ones.sum(axis=1)
    gains = sizes[:, None] + sizes - 2 * (ones @ ones.T)
    gains[gains > left] = 0
    first, second = divmod(int(gains.argmax()), len(gains))
    return [first, second], int(gains[first, second])
