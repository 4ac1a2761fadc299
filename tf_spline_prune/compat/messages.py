"""What a user is told, the way Keras tells it."""

from keras.src.utils import io_utils


def say(text: str) -> None:
    """Print a message the way Keras does, silent where Keras is silent."""
    io_utils.print_msg(text)
