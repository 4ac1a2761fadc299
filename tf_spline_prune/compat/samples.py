"""Random inputs for tensors of given shapes and dtypes."""

from collections.abc import Mapping, Sequence

import numpy as np

OPEN_SIZE = 32  # an open size may be anything; 32 passes through most networks


def random_inputs(
    specs: Mapping[str, tuple[Sequence[int | None], str]], batch: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw one array an input: normal numbers, words, or zeros and ones.

    Args:
        specs: Shape (batch axis first; `None` or -1 where a size is open) and
            dtype by input name.
        batch: Size of an open batch axis; other open sizes become 32.
        seed: Seed of the numbers.

    Returns:
        The arrays by input name.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, (shape, dtype) in specs.items():
        sizes = [
            size if size is not None and size >= 0 else (OPEN_SIZE if axis else batch)
            for axis, size in enumerate(shape)
        ]
        if dtype == "string":
            letters = rng.integers(ord("a"), ord("z") + 1, (*sizes, 3, 4))
            words = np.vectorize(chr)(letters)
            drawn[name] = np.apply_along_axis("".join, -1, words).astype(object)
            drawn[name] = np.apply_along_axis(" ".join, -1, drawn[name])
        elif np.issubdtype(np.dtype(dtype), np.inexact):
            drawn[name] = rng.standard_normal(sizes).astype(dtype)
        else:
            drawn[name] = rng.integers(0, 2, sizes).astype(dtype)
    return drawn
