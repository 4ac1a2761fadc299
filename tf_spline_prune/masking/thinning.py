"""`Thinning`: single weights go by magnitude, at every step of training if need be."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from tf_spline_prune.compat import MaskSlot, zeroed
from tf_spline_prune.errors import CriterionError

_SAMPLE = 1024
_SMALL = 2**14  # so few are ranked sooner than guessed about


class Thinning:
    """Removes the weights of smallest magnitude, each tensor by itself.

    What `choose` would decide, in less time. Weights that are gone are zero after every
    step of the optimizer, so as a rule the weights alone tell the mask: if exactly as
    many of them are zero as were removed the last time. Else the mask is read.

    Args:
        slots: The masked weights.
    """

    def __init__(self, slots: Sequence[MaskSlot]) -> None:
        self.slots = slots
        self._gone = [0] * len(slots)

    def __call__(self, shares: Sequence[float]) -> None:
        """Remove weights, beside those that are gone.

        Args:
            shares: For each slot the share of weights that shall be gone, in [0, 1),
                those included that are. One weight stays.

        Raises:
            CriterionError: If a weight is NaN or infinite; then nothing is changed.
        """
        thinned = [self._thinned(*each) for each in enumerate(shares)]
        for place, (slot, new) in enumerate(zip(self.slots, thinned, strict=True)):
            if new is not None:
                keep, array = new
                slot.write(keep, array)
                self._gone[place] = keep.size - int(np.count_nonzero(keep))

    def _thinned(
        self, place: int, share: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Give the new mask and the new weights of a slot, if they are new."""
        slot = self.slots[place]
        array = slot.read()
        sizes = np.abs(array)
        keep = sizes > 0
        gone = array.size - int(np.count_nonzero(keep))
        known = 0 < gone == self._gone[place]
        if not known:
            keep = slot.keep().copy()
            gone = keep.size - int(np.count_nonzero(keep))
        count = round(round(share * array.size, 4))
        more = min(count, array.size - 1) - gone
        if more <= 0:
            return None
        if not sizes.max() < math.inf:
            raise CriterionError(
                "Weights that are NaN or infinite cannot be ranked. Train again from a "
                f"finite state. Received: {slot.key!r}"
            )
        fall = lightest(sizes, keep, more)
        array = array.copy() if known else zeroed(array, keep)
        keep.reshape(-1)[fall] = False
        array.reshape(-1)[fall] = 0
        return keep, array


def lightest(sizes: np.ndarray, keep: np.ndarray, count: int) -> np.ndarray:
    """Find the smallest of the magnitudes that are not gone.

    Args:
        sizes: Array of magnitudes, finite.
        keep: Array of its shape, bool: true where a weight is not gone yet.
        count: How many; at least 1, and at most as many as there are.

    Returns:
        Their places in the flat array. Among equal magnitudes the first ones.
    """
    sizes, keep = sizes.reshape(-1), keep.reshape(-1)
    places = ((sizes <= _guess(sizes, keep, count)) & keep).nonzero()[0]
    if len(places) < count:  # the guess was too low
        places = keep.nonzero()[0]
    found = sizes[places]
    last = np.partition(found, count - 1)[count - 1]
    fall = places[found <= last]
    if len(fall) > count:  # of those that equal the last one, the first ones
        ties = places[found == last]
        fall = np.setdiff1d(fall, ties[count - len(fall) :], assume_unique=True)
    return fall


def _guess(sizes: np.ndarray, keep: np.ndarray, count: int) -> float:
    """Guess from a sample a magnitude that hardly ever has fewer below it."""
    if sizes.size <= _SMALL:
        return math.inf
    drawn = _places(sizes.size)
    sample = sizes[drawn][keep[drawn]]
    share = count / np.count_nonzero(keep)
    # Three standard deviations of a place in the sample.
    slack = 3 * math.sqrt(len(sample) * share * (1 - share)) + 3
    place = int(len(sample) * share + slack)
    if place >= len(sample):
        return math.inf
    return float(np.partition(sample, place)[place])


@functools.lru_cache(64)
def _places(size: int) -> np.ndarray:
    """Draw the places of a sample: the same ones each time."""
    return np.sort(np.random.default_rng(0).integers(size, size=_SAMPLE))
