"""`load_weights`: weights of a plain model for its masked copy."""

import os
import pathlib
from typing import Any

from tf_spline_prune._checks import Path, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.compat import CurrentWeights, rebuild, trace
from tf_spline_prune.masking._slots import require_slots


@checked(filepath=Path())
def load_weights(model: Any, filepath: PathLike) -> None:
    """Load weights saved from the model without masks, and mask them.

    Keras finds weights in a file by the places of their layers, and those of a masked
    model lie inside wrappers; so `model.load_weights` reads files of masked models,
    and this function those of plain ones. The masks of `model` stay.

    Args:
        model: A masked model of either flavour. Its weights change.
        filepath: A file that `load_weights` of the plain model can read, such as
            `*.weights.h5` or `*.keras`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks.
        OSError: If the file cannot be read.
        ValueError: If it was saved from another model; nothing has changed then.

    Example:

    ```python
    tsp.load_weights(masked, "pretrained.weights.h5")
    ```
    """
    slots = require_slots(model)
    graph = trace(model)
    plain = rebuild(graph, fresh=True)
    try:
        plain.load_weights(str(pathlib.Path(filepath).expanduser()))
    except Exception as error:  # Keras, h5py and TensorFlow have many words for it
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(
                f"The file cannot be read: {os.strerror(error.errno)}. Expected: a "
                "file that `save_weights` of the model without masks has written. "
                f"Received: filepath={str(filepath)!r}"
            ) from error
        raise ValueError(
            "Keras finds no weights of this model in the file; expected one that the "
            f"model without masks has saved. It says: {type(error).__name__}: {error} "
            f"Received: filepath={str(filepath)!r}"
        ) from error
    loaded = CurrentWeights(trace(plain))
    for call in graph.calls:
        if call.path in loaded:
            call.layer.set_weights(list(loaded[call.path].values()))
    for slot in slots:
        slot.apply()
