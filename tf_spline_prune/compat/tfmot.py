"""Importing TFMOT without changing what `tensorflow.keras` means.

TFMOT sets `TF_USE_LEGACY_KERAS` on import. TensorFlow binds its lazy `keras`
attribute at the first touch, reading that variable, and TFMOT's own import
touches it. So the attribute is touched first, under the user's environment,
and the variable is put back afterwards.
"""

import importlib
import os
from types import ModuleType

_VARIABLE = "TF_USE_LEGACY_KERAS"


def import_tfmot() -> ModuleType:
    """Import `tensorflow_model_optimization` and leave the process as it was.

    Returns:
        The module `tensorflow_model_optimization`.

    Raises:
        ImportError: If it, or `tf_keras`, which it needs, is not installed.
    """
    before = os.environ.get(_VARIABLE)
    tensorflow = importlib.import_module("tensorflow")
    tensorflow.keras.Model  # noqa: B018 -- the touch binds the lazy name
    try:
        return importlib.import_module("tensorflow_model_optimization")
    except ImportError as error:
        raise ImportError(
            "TFMOT cannot be imported. Install it with `pip install "
            f"tensorflow-model-optimization tf-keras`. The cause: {error}"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
