"""Importing TFMOT without changing what `tensorflow.keras` means; its schedules.

TFMOT sets `TF_USE_LEGACY_KERAS` on import. TensorFlow binds its lazy `keras`
attribute at the first touch, reading that variable, and TFMOT's own import
touches it. So the attribute is touched first, under the user's environment,
and the variable is put back afterwards.
"""

import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import Any

import keras

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
        with warnings.catch_warnings():
            # TFMOT compares versions with a deprecated class when it is imported.
            warnings.filterwarnings("ignore", "distutils", DeprecationWarning)
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


def loading_saved_model() -> bool:
    """Tell whether tf_keras is reviving a model from a SavedModel at this moment."""
    saving = importlib.import_module("tf_keras.src.saving.legacy.saved_model.utils")
    return bool(saving.in_tf_saved_model_scope())


def register_class(cls: type, package: str) -> None:
    """Let the Keras flavours that are imported load a class without a custom scope.

    Args:
        cls: A class with `get_config` and `from_config`.
        package: What stands before its name in files: `"package>Name"`.
    """
    for flavour in filter(None, (keras, sys.modules.get("tf_keras"))):
        flavour.saving.register_keras_serializable(package)(cls)


def restore_schedule(config: dict[str, Any]) -> Any:
    """Make a schedule from its nested config.

    TFMOT's own classes, registered ones and those of a custom scope are known.

    Args:
        config: `{"class_name": ..., "config": ...}`, as `get_config` gives it.

    Returns:
        The schedule.
    """
    kinds = import_tfmot().sparsity.keras
    own = {k: getattr(kinds, k) for k in ("ConstantSparsity", "PolynomialDecay")}
    name = config.get("class_name")
    known = {
        "class_name": name,
        "config": config.get("config"),
        # Without the module, which tf_keras would import.
        "registered_name": config.get("registered_name") or name,
    }
    tf_keras = importlib.import_module("tf_keras")
    return tf_keras.utils.deserialize_keras_object(
        known, module_objects={}, custom_objects=own
    )
