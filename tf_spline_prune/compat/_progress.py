"""`Progress`: Keras' own progress bar, for work that turns out to take long."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar

import keras
from keras.src.utils import io_utils

# Work that is done by then shows no bar.
_PATIENCE = 2.0


class Progress:
    """Counts steps, and shows a bar once the work has taken a while.

    It is silent where `keras.config.disable_interactive_logging()` was called, and
    where nobody looks: outside terminals and notebooks a bar is lines upon lines.
    Within `Stages` it moves their bar and shows none of its own.

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
        self._stages = _STAGES.get()

    def step(self, count: int = 1) -> None:
        """Advance the bar by so many steps."""
        self._done += count
        if self._stages is not None:
            self._stages.reach(self._done / self._total)
            return
        late = time.monotonic() - self._start > _PATIENCE
        if self._bar is None and late and self._done < self._total:
            if keras.config.is_interactive_logging_enabled() and _is_watched():
                self._bar = keras.utils.Progbar(self._total, unit_name=self._unit)
                # The bar reckons from the first step, not from when it appears.
                self._bar._start -= time.monotonic() - self._start
        if self._bar is not None:
            self._bar.update(min(self._done, self._total))


class Stages(Progress):
    """One bar for a call of several stages, some of which count their own steps.

    Args:
        total: Number of stages.
        name: What the call does.
    """

    def __init__(self, total: int, name: str) -> None:
        super().__init__(100, f"percent of {name}")
        self._number, self._stage = total, 0

    def reach(self, part: float) -> None:
        """Set which part of the stage is done; the bar never goes back."""
        percent = int(100 * (self._stage + min(part, 1.0)) / self._number)
        if percent > self._done:
            self.step(percent - self._done)

    @contextlib.contextmanager
    def stage(self) -> Iterator[None]:
        """Do the work of one stage."""
        token = _STAGES.set(self)
        try:
            yield
        finally:
            _STAGES.reset(token)
        self.reach(1.0)
        self._stage += 1


_STAGES: ContextVar[Stages | None] = ContextVar("stages", default=None)


def _is_watched() -> bool:
    """Return whether stdout is one where a bar can be drawn: a terminal, a notebook."""
    return "ipykernel" in sys.modules or bool(
        getattr(sys.stdout, "isatty", lambda: False)()
    )


def say(text: str) -> None:
    """Print a message the way Keras does, silent where Keras is silent."""
    io_utils.print_msg(text)
