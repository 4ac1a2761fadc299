"""Weights of a layer, by the names that both flavours can agree on."""

from typing import Any

import numpy as np

from tf_spline_prune.errors import ModelError


def weight_names(layer: Any) -> list[str]:
    """Name the weights of a layer, in the order of `layer.get_weights()`.

    Args:
        layer: A built layer of either flavour.

    Returns:
        Names such as `["kernel", "bias"]`. A depthwise kernel is `"kernel"` in
        both flavours; a repeated name gets a number.
    """
    names: list[str] = []
    for variable in layer.weights:
        name = str(variable.name).rpartition("/")[2].partition(":")[0]
        if name == "depthwise_kernel" and "Depthwise" in type(layer).__name__:
            name = "kernel"
        stem, count = name, 1
        while name in names:
            name = f"{stem}_{count}"
            count += 1
        names.append(name)
    return names


def read_weights(layer: Any) -> dict[str, np.ndarray]:
    """Read the weights of a layer as arrays.

    Args:
        layer: A built layer of either flavour.

    Returns:
        The arrays by name, in the layer's own order.
    """
    values = layer.get_weights() if layer.weights else []
    return dict(zip(weight_names(layer), values, strict=True))


def check_finite(path: str, weights: dict[str, np.ndarray]) -> None:
    """Refuse weights that hold NaN or infinity.

    Args:
        path: The layer's path, for the message.
        weights: What `read_weights` gave.

    Raises:
        ModelError: If an array holds a value that is not finite.
    """
    for name, value in weights.items():
        if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
            bad = int(value.size - np.count_nonzero(np.isfinite(value)))
            raise ModelError(
                "The model has weights that are NaN or infinite, so nothing that is "
                "read from it would mean anything. Train again from a finite state. "
                f"Received: {bad} of {value.size} values of {path}/{name}."
            )
