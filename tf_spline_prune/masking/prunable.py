"""Which weights of a layer a mask may thin out."""

from typing import Any

from tf_spline_prune.compat import kind_of, weight_variables
from tf_spline_prune.errors import ModelError

_NAMES = ("kernel", "embeddings", "pointwise_kernel", "recurrent_kernel")


def prunable_weights(layer: Any) -> list[str]:
    """Name the weights of a layer that a mask may thin out.

    These are the matrices that do the multiplying: kernels, those of recurrent
    cells and attention too, and embeddings. Biases, normalisations and depthwise
    kernels stay. A user's layer says so itself, as in TFMOT: its method
    `get_prunable_weights()` returns its variables.

    Args:
        layer: A built layer of either flavour.

    Returns:
        Names, as `weight_names` gives them; empty where there is none.

    Raises:
        ModelError: If `get_prunable_weights` returns something else than weights
            of the layer.
    """
    held = weight_variables(layer)
    own = getattr(layer, "get_prunable_weights", None)
    if own is not None:
        names = {id(variable): name for name, variable in held.items()}
        try:
            return [names[id(variable)] for variable in own()]
        except (KeyError, TypeError) as error:
            raise ModelError(
                "`get_prunable_weights` must return a list of weights of its layer. "
                f"Received: something else from {layer.name!r}"
            ) from error
    if kind_of(layer).startswith("Depthwise"):
        return []
    return [
        name
        for name, variable in held.items()
        if name.rpartition("/")[2] in _NAMES
        and len(variable.shape) > 1
        and variable.trainable
    ]


def why_not(layer: Any) -> str | None:
    """Say why a layer gets no mask, or `None` if it can have one."""
    if not getattr(layer, "weights", None):
        return "it has no weights"
    if not getattr(layer, "trainable", True):
        return "it is frozen"
    if not prunable_weights(layer):
        if kind_of(layer).startswith("custom:"):
            return "it is a layer of your own without `get_prunable_weights`"
        return "it has no weights that a mask may thin out"
    return None
