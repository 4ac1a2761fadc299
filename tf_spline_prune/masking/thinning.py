"""Thinning out a tensor by magnitude, piece by piece.

During training this is done between two steps, when nothing is in the cache and
fresh memory has to be mapped page by page. Pieces that fit into the cache take a
fraction of the time of whole arrays.
"""

import functools
import math

import numpy as np

_PIECE = 2**16
_SAMPLE = 1024
_SMALL = 2**14  # so few are ranked sooner than guessed about


def thin_out(weights: np.ndarray, keep: np.ndarray, count: int) -> np.ndarray:
    """Remove the weights of smallest magnitude beside those that are gone.

    Args:
        weights: Array of floats.
        keep: Array of its shape, bool: true where a weight is not gone yet.
        count: Number of weights that shall be gone, those included that are. One
            weight stays.

    Returns:
        The new `keep`. Among equal magnitudes the first ones go.

    Raises:
        FloatingPointError: If a weight is NaN or infinite.
    """
    flat, kept = weights.reshape(-1), keep.reshape(-1)
    left = np.count_nonzero(kept)
    more = min(count, flat.size - 1) - (flat.size - left)
    if more <= 0:
        return keep
    places, sizes = _up_to(_guess(flat, kept, more / left), flat, kept)
    if len(places) < more:  # the guess was too low
        places, sizes = _up_to(math.inf, flat, kept)
    last = np.partition(sizes, more - 1)[more - 1]
    fall = places[sizes <= last]
    if len(fall) > more:  # of those that equal the last one, the first ones go
        ties = places[sizes == last]
        fall = np.setdiff1d(fall, ties[more - len(fall) :], assume_unique=True)
    stay = kept.copy()
    stay[fall] = False
    return stay.reshape(keep.shape)


def _guess(flat: np.ndarray, kept: np.ndarray, share: float) -> float:
    """Guess from a sample a magnitude that is hardly ever below a quantile."""
    if flat.size <= _SMALL:
        return math.inf
    drawn = _places(flat.size)
    sample = np.abs(flat[drawn[kept[drawn]]])
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


def _up_to(
    most: float, flat: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find what is left up to a magnitude: places and magnitudes."""
    places, found = [], []
    room = np.empty(min(_PIECE, flat.size), flat.dtype)
    for start in range(0, flat.size, _PIECE):
        piece = slice(start, start + _PIECE)
        sizes = np.abs(flat[piece], out=room[: flat.size - start])
        if not sizes.max() < math.inf:
            raise FloatingPointError("a weight is NaN or infinite")
        here = ((sizes <= most) & kept[piece]).nonzero()[0]
        places.append(here + start)
        found.append(sizes[here])
    return np.concatenate(places), np.concatenate(found)
