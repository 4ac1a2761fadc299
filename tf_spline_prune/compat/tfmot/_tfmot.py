"""Importing TFMOT without changing what `tensorflow.keras` means; its schedules.

TFMOT sets `TF_USE_LEGACY_KERAS` on import. TensorFlow binds its lazy `keras`
attribute at the first touch, reading that variable, and TFMOT's own import
touches it. So the attribute is touched first, under the user's environment,
and the variable is put back afterwards.
"""

import importlib
import inspect
import os
import sys
import types
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from tf_spline_prune.compat.tfmot._mask_slots import hold, mask_wrappers

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
    """Return whether tf_keras is reviving a model from a SavedModel at this moment."""
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


# A step that no training reaches.
_NEVER = 2**40


def wrap_with_tfmot(layer: Any) -> Any:
    """Wrap a layer of tf_keras with TFMOT's masks, that never fire by themselves.

    Args:
        layer: A built layer of tf_keras.

    Returns:
        TFMOT's wrapper; its own class finds its schedule when it is loaded.

    Raises:
        ValueError: If TFMOT does not take this kind of layer, or would lose a mask
            of timesteps that the layer reads, makes or hands on.
    """
    if _hands_timesteps_on(layer):
        raise ValueError(f"a mask of timesteps would be lost at {layer.name!r}")
    sparsity = import_tfmot().sparsity.keras
    return sparsity.prune_low_magnitude(
        layer,
        sparsity.ConstantSparsity(0.0, begin_step=_NEVER),
        dtype=layer.dtype_policy,  # it runs the layer under its own policy
    )


def _hands_timesteps_on(layer: Any) -> bool:
    """Return whether a mask of timesteps goes into a layer, or comes out of it."""
    return any(
        getattr(tensor, "_keras_mask", None) is not None
        for node in layer._inbound_nodes
        for tensor in (*node.keras_inputs, *keras.tree.flatten(node.outputs))
    )


def drive(model: Any) -> bool:
    """Let TFMOT's wrappers rest, and hold their masks after every step.

    Their forward pass is that of their layers from then on; by itself it counts steps,
    masks and writes weights, and refuses to train without a callback of TFMOT's. Our
    own wrappers need nothing of this.

    Args:
        model: A model of either flavour.

    Returns:
        Whether there are any.
    """
    wrappers = [w for w in mask_wrappers(model) if hasattr(w, "pruning_obj")]
    for wrapper in wrappers:
        # A method, for a SavedModel drops the first argument of what it traces.
        wrapper.call = types.MethodType(_call_of(wrapper.layer), wrapper)
        hold(wrapper)
    return bool(wrappers)


def _call_of(layer: Any) -> Callable[..., Any]:
    """Adapt the call of a layer to the arguments that TFMOT's wrapper takes."""
    in_training = "training" in inspect.signature(layer.call).parameters

    def call(self: Any, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        if in_training:
            kwargs["training"] = training
        return layer.call(inputs, **kwargs)

    return call


def take_over(model: Any) -> None:
    """Drive the wrappers of a model that is about to train.

    Args:
        model: The model, in `fit`.
    """
    if drive(model):
        model.make_train_function(force=True)  # a traced one would go on as before
