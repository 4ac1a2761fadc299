"""`Cells`: the pieces of a weight tensor that a mask removes one by one."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Cells:
    """What goes together: single weights, blocks, or the groups of a pattern.

    Every granularity cuts a tensor into cells. From there on a cell is a score and
    a size, and the choice is the same for all of them.

    Attributes:
        scores: Array of shape `(cells,)`; the lowest go first.
        sizes: Array of shape `(cells,)`: how many weights go with each.
        num_weights: Number of weights of the tensor.
        mask: Takes a bool array of shape `(cells,)`, the cells that go; gives the
            mask in the tensor's shape, where true means keep.
    """

    scores: np.ndarray
    sizes: np.ndarray
    num_weights: int
    mask: Callable[[np.ndarray], np.ndarray]

    def may_go(self, max_sparsity: float) -> np.ndarray:
        """Mark the cells that may go at all.

        Where a tensor would lose its last weight, its best cell stays; among equals
        the last one.

        Args:
            max_sparsity: The largest share of its weights that the tensor loses.

        Returns:
            Bool array of shape `(cells,)`.
        """
        free = self.sizes > 0
        if free.any() and self.sizes.sum() == self.num_weights:
            free[len(free) - 1 - self.scores[::-1].argmax()] = False
        if max_sparsity < 1:
            most = aim(self.sizes, self.num_weights, max_sparsity)
            free &= lowest(self.scores, self.sizes, most)
        return free


def aim(sizes: np.ndarray, num_weights: int, share: float) -> float:
    """Say how many weights shall go.

    Args:
        sizes: Array of shape `(cells,)`: how many weights go with each cell.
        num_weights: Number of weights that the share is of.
        share: Share of the weights that shall go.

    Returns:
        The product, cleared of float noise, and no more than can go; in whole cells
        where all have one size, as `round` does it.
    """
    # A share that went through float32 is off by 6e-8 at most.
    target = round(min(share * num_weights, sizes.sum()), 4)
    if not len(sizes) or sizes.min() != sizes.max() or not sizes[0]:
        return target
    return int(sizes[0]) * round(target / int(sizes[0]))


def lowest(scores: np.ndarray, sizes: np.ndarray, target: float) -> np.ndarray:
    """Mark the cells of lowest score whose sizes add up nearest to a target.

    Cells are taken in order of score, among equals in order of place, and none is
    left out. Of two sums that are equally near, the smaller one is taken; where all
    sizes are the same, the one that `round` gives.

    Args:
        scores: Array of shape `(cells,)`.
        sizes: Array of shape `(cells,)`.
        target: What the sizes shall add up to.

    Returns:
        Bool array of shape `(cells,)`.
    """
    if not len(scores) or target <= 0:
        return np.zeros(len(scores), bool)
    if sizes.min() == sizes.max():  # then counting is enough, and much faster
        target = target / sizes[0]
        last = _score_at(scores, None, target)
        gone = scores < last
        ties = np.flatnonzero(scores == last)
        more = round(target) - np.count_nonzero(gone)
    else:
        last = _score_at(scores, sizes, target)
        gone = scores < last
        ties = np.flatnonzero(scores == last)
        sums = np.cumsum(np.concatenate([[sizes @ gone], sizes[ties]]))
        more = np.abs(sums - target).argmin()
    gone[ties[:more]] = True
    return gone


def _score_at(
    scores: np.ndarray, sizes: np.ndarray | None, target: float
) -> np.floating:
    """Find the score of the cell with which the sum of sizes reaches the target.

    Two scores around it are guessed from a sample, and the cells outside are left
    out, again and again. `np.partition` knows no sizes, and is twenty times slower
    where most scores are equal: the zeros of a tensor that has a mask.
    """
    draw = np.random.default_rng(0)  # changes the time only
    apart = 2.5  # standard deviations of a place in the sample
    while len(scores) > _SAMPLE:
        total = len(scores) if sizes is None else sizes.sum()
        sample = np.sort(scores[draw.integers(len(scores), size=_SAMPLE)])
        share = min(target / max(total, 1), 1.0)
        slack = apart * math.sqrt(_SAMPLE * share * (1 - share))
        first, last = (
            sample[min(max(int(_SAMPLE * share + by), 0), _SAMPLE - 1)]
            for by in (-slack, slack)
        )
        part = scores < first
        below = _sum(sizes, part)
        if below < target:
            inside = scores <= last
            upto = _sum(sizes, inside)
            if upto < target:
                part = ~inside
                if not part.any():
                    return last
                target -= upto
            elif first == last:
                return first
            else:
                part ^= inside
                target -= below
        # Many equal scores: a single one, on whose side all the others are.
        apart = 0.0 if 2 * np.count_nonzero(part) > len(part) else 2.5
        scores, sizes = scores[part], None if sizes is None else sizes[part]
    if sizes is None:
        place = min(math.ceil(target), len(scores)) - 1
        return np.partition(scores, place)[place]
    order = np.argsort(scores)
    sums = np.cumsum(sizes[order])
    place = min(int(np.searchsorted(sums, target)), len(order) - 1)
    return scores[order[place]]


def _sum(sizes: np.ndarray | None, part: np.ndarray) -> int:
    return int(np.count_nonzero(part) if sizes is None else sizes @ part)
