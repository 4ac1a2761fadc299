"""`Progress`: Keras' own progress bar, for work that turns out to take long."""

import sys
import time

import keras
from keras.src.utils import io_utils

# Work that is done by then shows no bar.
_PATIENCE = 2.0


class Progress:
    """Counts steps, and shows a bar once the work has taken a while.

    It is silent where `keras.config.disable_interactive_logging()` was called, and
    where nobody looks: outside terminals and notebooks a bar is lines upon lines.

    Args:
        total: Number of steps.
        unit: What one step is, such as `"layer"`.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = time.monotonic()
        self._bar: keras.utils.Progbar | None = None

    def step(self, count: int = 1) -> None:
        """Say that so many more steps are done."""
        self._done += count
        late = time.monotonic() - self._start > _PATIENCE
        if self._bar is None and late and self._done < self._total:
            if keras.config.is_interactive_logging_enabled() and _is_watched():
                self._bar = keras.utils.Progbar(self._total, unit_name=self._unit)
                # The bar reckons from the first step, not from when it appears.
                self._bar._start -= time.monotonic() - self._start
        if self._bar is not None:
            self._bar.update(min(self._done, self._total))


def _is_watched() -> bool:
    """Tell whether stdout is one where a bar can be drawn: a terminal, a notebook."""
    return "ipykernel" in sys.modules or bool(
        getattr(sys.stdout, "isatty", lambda: False)()
    )


def say(text: str) -> None:
    """Print a message the way Keras does, silent where Keras is silent."""
    io_utils.print_msg(text)
