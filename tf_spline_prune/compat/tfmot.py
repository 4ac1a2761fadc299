"""Importing TFMOT without changing what `tensorflow.keras` means.

TFMOT sets `TF_USE_LEGACY_KERAS` on import. TensorFlow binds its lazy `keras`
attribute at the first touch, reading that variable, and TFMOT's own import
touches it. So the attribute is touched first, under the user's environment,
and the variable is put back afterwards.
"""

import importlib
import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from tf_spline_prune.compat.mask_slots import MaskSlot, hold

_VARIABLE = "TF_USE_LEGACY_KERAS"
# A step that no training reaches.
_NEVER = 2**40


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


def wrap_with_tfmot(layer: Any) -> Any:
    """Wrap a layer of tf_keras with TFMOT's masks, that never fire by themselves.

    Args:
        layer: A built layer of tf_keras.

    Returns:
        TFMOT's wrapper; its own class finds its schedule when it is loaded.

    Raises:
        ValueError: If TFMOT does not take this kind of layer.
    """
    sparsity = import_tfmot().sparsity.keras
    return sparsity.prune_low_magnitude(
        layer, sparsity.ConstantSparsity(0.0, begin_step=_NEVER)
    )


def take_over(model: Any, slots: Iterable[MaskSlot]) -> None:
    """Drive TFMOT's wrappers from outside, and hold their masks after every step.

    Their own schedules rest, and their step counters are set, without which they
    refuse to train. Our own wrappers need nothing of this.

    Args:
        model: A model that is about to train.
        slots: Its masked weights.
    """
    theirs = {id(s.wrapper): s.wrapper for s in slots if hasattr(s.wrapper, "pruning_obj")}
    if not theirs:
        return
    sparsity = import_tfmot().sparsity.keras
    never = sparsity.ConstantSparsity(0.0, begin_step=_NEVER)
    for wrapper in theirs.values():
        wrapper.pruning_obj._pruning_schedule = never
        if int(wrapper.pruning_step) < 0:
            wrapper.pruning_step.assign(0)
    hold(slots)
    model.train_function = None  # what was traced before would go on as before
