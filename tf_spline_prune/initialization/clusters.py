"""Centres of data, and pairs of them that lie beside each other."""

import numpy as np

_ROUNDS = 20


def centres_of(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Find centres by k-means, begun by k-means++.

    Args:
        rows: Array of shape `(n, d)`.
        count: How many; fewer come if there are fewer different rows.
        rng: Draws the first ones.

    Returns:
        Array of shape `(k, d)`, `k` at most `count`.

    Source: Lloyd, 1982; Arthur and Vassilvitskii, SODA 2007 (k-means++).
    """
    centres = rows[rng.integers(len(rows))][None]
    nearest = np.square(rows - centres[0]).sum(axis=1)
    while len(centres) < count and nearest.sum() > 0:
        chosen = rows[rng.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, chosen[None]])
        nearest = np.minimum(nearest, np.square(rows - chosen).sum(axis=1))
    for _ in range(_ROUNDS):
        owner = squared_distances(rows, centres).argmin(axis=1)
        sizes = np.bincount(owner, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, rows)
        moved = np.where(sizes[:, None], sums / np.maximum(sizes, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def pairs_of(centres: np.ndarray) -> np.ndarray:
    """List pairs of centres, those of the nearest neighbours first.

    First come each centre and the one nearest to it, then each and the next, and so
    on; each pair once.

    Args:
        centres: Array of shape `(k, d)`.

    Returns:
        Array of shape `(k (k - 1) / 2, 2)`, int.
    """
    count = len(centres)
    order = squared_distances(centres, centres)
    np.fill_diagonal(order, np.inf)
    neighbours = order.argsort(axis=1, kind="stable")[:, : count - 1]
    found: dict[tuple[int, int], None] = {}
    for rank in range(count - 1):
        for one in range(count):
            other = int(neighbours[one, rank])
            found.setdefault((min(one, other), max(one, other)))
    return np.array(list(found), int).reshape(-1, 2)


def squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Give the squared distances of rows to centres, `(n, k)`."""
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * rows @ centres.T, 0.0))
