"""What a user is told, the way Keras tells it."""

import sys
import warnings

from keras.src.utils import io_utils


def say(text: str) -> None:
    """Print a message the way Keras does, silent where Keras is silent."""
    io_utils.print_msg(text)


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warn at the line outside this package that led here."""
    frame, level = sys._getframe(), 1
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
