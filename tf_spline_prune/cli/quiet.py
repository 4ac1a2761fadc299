"""Keeping the noise of a process down to what concerns the user."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tf_spline_prune.errors import SplinePruneWarning

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def only_our_voice(worded: Callable[[str], str]) -> Iterator[None]:
    """Send stdout to stderr, our warnings there as short lines, and hush the rest.

    A warning is shown once, however often a command comes by.

    Who sets TF_CPP_MIN_LOG_LEVEL hears TensorFlow; who chooses warnings (`python -W`)
    sees those chosen.

    Args:
        worded: Says in options what a warning says in arguments.
    """
    said: set[str] = set()
    hush = contextlib.nullcontext() if _LEVEL in os.environ else _hushed()
    with hush, contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", SplinePruneWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, SplinePruneWarning):
                text = worded(" ".join(str(message).split()))
                if text not in said:
                    sys.stderr.write(f"warning: {text}\n")
                said.add(text)
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Hear no logs below errors, and nothing of what compiled libraries write.

    TensorFlow's converter and its start heed no log level: they write to the file
    descriptor of stderr itself. Python's `sys.stderr` gets another one meanwhile.
    """
    os.environ[_LEVEL] = "3"
    logging.disable(logging.WARNING)
    stderr = sys.stderr
    kept = None
    if sys.__stderr__ is not None and stderr is sys.__stderr__:
        stderr.flush()
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = open(  # noqa: SIM115 -- loggers made meanwhile hold on to it
            kept, "w", buffering=1, encoding=stderr.encoding, closefd=False
        )
    try:
        yield
    finally:
        if kept is not None:
            sys.stderr.flush()
            sys.stderr = stderr
            os.dup2(kept, 2)
        logging.disable(logging.NOTSET)
        os.environ.pop(_LEVEL, None)
