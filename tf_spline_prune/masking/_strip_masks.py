"""Taking masks off: with their zeros kept, or with what they emptied removed."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import CurrentWeights, compile_alike, rebuild, trace
from tf_spline_prune.masking._slots import require_slots
from tf_spline_prune.masking._targets import warn_below_target
from tf_spline_prune.pruning import lossless


def strip_masks(model: Any) -> Any:
    """Copy a masked model without its masks; pruned weights are exactly zero.

    Masks that nobody has set, or that are below what their schedule was to reach, are
    a `SparsityWarning`.

    Args:
        model: A masked model of either flavour: ours, or TFMOT's. It is not changed.

    Returns:
        A plain model of the same flavour with the original layers and names, compiled
        as `model` is. It has as many weights as before; `shrink` removes what the
        masks emptied.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks, or cannot be traced.

    Example:

    ```python
    plain = tsp.strip_masks(masked)
    plain.save("sparse.keras")
    ```
    """
    slots = require_slots(model)
    warn_below_target(slots)
    graph = trace(model)
    weights = CurrentWeights(graph)
    masks: dict[str, dict[str, np.ndarray]] = {}
    for slot in slots:
        masks.setdefault(slot.path, {})[slot.name] = slot.keep()

    def masked(path: str) -> dict[str, np.ndarray]:
        arrays = dict(weights[path])
        for name, keep in masks.get(path, {}).items():
            zero = np.zeros((), arrays[name].dtype)
            arrays[name] = np.where(keep, arrays[name], zero)
        return arrays

    plain = rebuild(graph, weights=masked)
    compile_alike(model, plain)
    return plain


def shrink(model: Any) -> Any:
    """Remove the units that masks have emptied; the model computes the same.

    A unit goes if all weights that read it are zero, or if all that make it are: then
    it is a constant of bias, normalisation and activation, which moves into the
    biases of its readers. What cannot move stays (see `lossless`), and the
    result is compared with the model before it is handed out.

    Args:
        model: A masked model of either flavour: ours, or TFMOT's. It is not changed.

    Returns:
        A new, plain, uncompiled, smaller model of the same flavour.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks, or cannot be traced.
        VerificationError: If the result computes something else.

    Example:

    ```python
    small = tsp.shrink(masked)
    ```
    """
    return lossless(strip_masks(model))
