"""Random inputs: numbers, images, ids and words that a model may be given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OPEN_SIZE = 32  # an open size may be anything; 32 passes through most networks

# A longer axis of a picture is one along which it is smooth.
_SMOOTH = 8


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a model takes the numbers of an input for.

    Attributes:
        ids: They are whole numbers from 0 to below this one; `None`: no ids.
        low: The lowest plausible number, of which `high` is the highest; `None` where
            nothing is known of them.
        high: See `low`.
        mean: Array that broadcasts to an input: what a normalisation subtracts.
        std: The same: what it divides by.
        words: What there is to choose from, words or whole numbers; empty: anything.
        length: Of so many of them one entry is made, with blanks between.
    """

    ids: int | None = None
    low: float | None = None
    high: float = 1.0
    mean: Any = None
    std: Any = None
    words: tuple[Any, ...] = ()
    length: int = 1


def random_inputs(
    specs: Mapping[str, tuple[Sequence[int | None], str]], batch: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw one array per input where only its shape and dtype are known.

    Floats are between 0 and 1: whatever reads them takes them for small numbers, dark
    images or the id 0. Integers are zeros and ones.

    Args:
        specs: Shape (batch axis first; `None` or -1 where a size is open) and
            dtype by input name.
        batch: Size of an open batch axis; other open sizes become 32.
        seed: Seed of the numbers.

    Returns:
        The arrays by input name.
    """
    rng = np.random.default_rng(seed)
    unit = Meaning(low=0.0)
    drawn = {}
    for name, (shape, dtype) in specs.items():
        first = shape[:1] if shape and (shape[0] or -1) > 0 else [batch][: len(shape)]
        sizes = (*map(int, first), *sizes_of(shape[1:]))  # type: ignore[arg-type]
        drawn[name] = drawn_as(rng, sizes, dtype, unit if _real(dtype) else Meaning())
    return drawn


def sizes_of(shape: Sequence[int | None], open_size: int = OPEN_SIZE) -> list[int]:
    """Put a size in the place of those that are open."""
    return [open_size if size is None or size < 0 else size for size in shape]


def _real(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def drawn_as(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: str,
    meaning: Meaning,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw one array of a shape and dtype, of what a model takes it for."""
    if meaning.words:
        words = np.array(meaning.words, object if dtype == "string" else dtype)
        chosen = words[rng.integers(0, len(words), (*shape, meaning.length))]
        if meaning.length == 1:
            return chosen[..., 0]
        texts = [" ".join(some) for some in chosen.reshape(-1, meaning.length)]
        return np.array(texts, object).reshape(shape)
    if dtype == "string":
        letters = rng.integers(ord("a"), ord("z") + 1, (*shape, 3, 4))
        words = np.apply_along_axis("".join, -1, np.vectorize(chr)(letters))
        return np.apply_along_axis(" ".join, -1, words.astype(object))
    if meaning.ids is not None:
        return rng.integers(0, max(1, meaning.ids), shape).astype(dtype)
    if meaning.low is None and meaning.mean is None and not _real(dtype):
        return rng.integers(0, 2, shape).astype(dtype)
    values = _picture(rng, shape) if len(shape) > 3 else rng.standard_normal(shape)
    if meaning.mean is not None:
        values = meaning.mean + values * meaning.std
    elif meaning.low is not None:  # two standard deviations lie within the range
        fraction = np.clip(0.5 + values / 4, 0.0, 1.0)
        values = meaning.low + fraction * (meaning.high - meaning.low)
        values = values if _real(dtype) else np.floor(values)
    else:
        values = values * scale
    return values.astype(dtype)


def _picture(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw smooth normal numbers: neighbours are alike, with some noise on each."""
    long = [axis for axis, size in enumerate(shape) if axis and size > _SMOOTH]
    coarse = [5 if axis in long else size for axis, size in enumerate(shape)]
    values = rng.standard_normal(coarse)
    for axis in long:
        at = np.linspace(0.0, 4.0, shape[axis])
        left = np.minimum(at.astype(int), 3)
        weight = (at - left).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
        low, high = np.take(values, left, axis), np.take(values, left + 1, axis)
        values = (1 - weight) * low + weight * high
    return np.asarray(values + 0.3 * rng.standard_normal(shape))
