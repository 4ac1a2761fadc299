"""`weight_sparsity`: how many zeros a model has where masks could put them."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    CurrentWeights,
    mask_slots,
    read_weights,
    require_flavour,
    trace,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.masking._masked_layer import prunable_weights


def weight_sparsity(model: Any) -> dict[str, float]:
    """Compute the fraction of exact zeros in each weight that can be masked.

    Whether a mask holds it, and whether it is frozen, does not matter: a masked model,
    the same one without masks, and a file of it have the same numbers.

    Args:
        model: A built model of either flavour, masked or not.

    Returns:
        Fractions in [0, 1] by layer path and weight name, `"conv1/kernel"`, and under
        `"total"` that of all these weights together.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt.

    Example:

    ```python
    tsp.weight_sparsity(tsp.strip_masks(masked))["total"]     # 0.8
    ```
    """
    require_flavour(model)
    masked = {slot.key: slot.read() for slot in mask_slots(model)}
    arrays = {**_maskable(model), **masked}
    zeros = {key: array.size - np.count_nonzero(array) for key, array in arrays.items()}
    found = {key: float(zeros[key] / array.size) for key, array in arrays.items()}
    size = sum(array.size for array in arrays.values())
    return {**found, "total": float(sum(zeros.values()) / size) if size else 0.0}


def _maskable(model: Any) -> dict[str, np.ndarray]:
    """Read what masks could thin out, by path, in the order of the layers."""
    try:
        graph = trace(model)
    except ModelError:  # a `call` that cannot be traced, but its layers are known
        if not model.built:
            raise
        whole = read_weights(model)
        return {name: whole[name] for name in prunable_weights(model, frozen=True)}
    weights = CurrentWeights(graph)
    return {
        f"{path}/{name}": weights[path][name]
        for path in weights
        for name in prunable_weights(graph.layers[path], frozen=True)
    }
