"""Keeping the noise of a process down to what concerns the user."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from tf_spline_prune.errors import SplinePruneWarning

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def only_our_voice() -> Iterator[None]:
    """Send stdout to stderr, our warnings there as short lines, and hush the rest.

    Who sets TF_CPP_MIN_LOG_LEVEL hears TensorFlow; who chooses warnings (`python -W`)
    sees those chosen.
    """
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", SplinePruneWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, SplinePruneWarning):
                sys.stderr.write(f"warning: {' '.join(str(message).split())}\n")
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        if _LEVEL not in os.environ:
            os.environ[_LEVEL] = "3"
            _start_quietly()
        yield


def _start_quietly() -> None:
    """Import Keras without what TensorFlow says before its log level counts.

    It writes to the file descriptor itself. If the import fails, all is shown.
    """
    if "keras" in sys.modules:
        return
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            import absl.logging
            import keras  # noqa: F401

            absl.logging.set_verbosity(absl.logging.ERROR)
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
