"""`weight_sparsity`: how many zeros a model has where masks could put them."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import CurrentWeights, mask_slots, require_flavour, trace
from tf_spline_prune.masking.prunable import prunable_weights


def weight_sparsity(model: Any) -> dict[str, float]:
    """Measure the share of exact zeros in each weight that masks can thin out.

    Args:
        model: A built model of either flavour, masked or not.

    Returns:
        Shares in [0, 1] by layer path and weight name, `"conv1/kernel"`, and under
        `"total"` that of all these weights together.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced.

    Example:

    ```python
    tsp.weight_sparsity(tsp.strip_masks(masked))["total"]     # 0.8
    ```
    """
    require_flavour(model)
    slots = mask_slots(model)
    if slots:
        arrays = {slot.key: slot.read() for slot in slots}
    else:
        graph = trace(model)
        weights = CurrentWeights(graph)
        layers = {call.path: call.layer for call in graph.leaves()}
        arrays = {
            f"{path}/{name}": weights[path][name]
            for path in weights
            for name in prunable_weights(layers[path])
        }
    zeros = {key: array.size - np.count_nonzero(array) for key, array in arrays.items()}
    found = {key: float(zeros[key] / array.size) for key, array in arrays.items()}
    size = sum(array.size for array in arrays.values())
    return {**found, "total": float(sum(zeros.values()) / size) if size else 0.0}
