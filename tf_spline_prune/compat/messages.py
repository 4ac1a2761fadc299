"""What a user sees while waiting: Keras' own messages and progress bars."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras.src.utils import io_utils


def say(text: str) -> None:
    """Print a message the way Keras does, silent where Keras is silent."""
    io_utils.print_msg(text)


def progress(
    items: Sequence[Any] | Iterable[Any], total: int, verbose: bool
) -> Iterator[Any]:
    """Go through `items` behind Keras' progress bar.

    Args:
        items: What to go through.
        total: Number of items.
        verbose: Whether the bar is shown.

    Yields:
        The items, one by one.
    """
    bar = keras.utils.Progbar(total, verbose=1 if verbose else 0, unit_name="batch")
    for item in items:
        yield item
        if verbose:
            bar.add(1)
