"""Which weights of a layer a mask may thin out, and why the others stay."""

from typing import Any

from tf_spline_prune.compat import HeldWeight, held_weights, kind_of, parts_of
from tf_spline_prune.errors import ModelError

_NAMES = (
    *("kernel", "pointwise_kernel", "recurrent_kernel"),
    *("embeddings", "reverse_embeddings"),
)
_OWN = "it is a layer of your own without `get_prunable_weights`"
_FROZEN = "it is frozen"


def prunable_weights(layer: Any, frozen: bool = False) -> list[str]:
    """Name the weights of a layer that a mask may thin out.

    These are the matrices that do the multiplying: kernels, those of recurrent
    cells and attention too, and embeddings. Biases, normalisations and depthwise
    kernels stay. Each layer inside the layer is asked for itself. A user's layer says
    so itself, as in TFMOT: its method `get_prunable_weights()` returns its variables.

    Args:
        layer: A built layer of either flavour.
        frozen: Whether frozen weights count too.

    Returns:
        Names, as `weight_names` gives them; empty where there is none.

    Raises:
        ModelError: If `get_prunable_weights` returns something else than weights
            of the layer.
    """
    told: dict[int, set[int]] = {}
    return [
        weight.name
        for weight in held_weights(layer)
        if _may_go(weight, told) and (frozen or not _is_frozen(weight))
    ]


def _may_go(weight: HeldWeight, told: dict[int, set[int]]) -> bool:
    """Ask the outermost layer that has a say; `told` holds what layers have said."""
    for holder in weight.holders:
        if hasattr(holder, "get_prunable_weights"):
            if id(holder) not in told:
                told[id(holder)] = _told_by(holder)
            return id(weight.variable) in told[id(holder)]
    return (
        weight.own_name in _NAMES
        and len(weight.variable.shape) > 1
        and not kind_of(weight.owner).startswith("Depthwise")
    )


def _told_by(layer: Any) -> set[int]:
    held = {id(weight.variable) for weight in held_weights(layer)}
    try:
        named = {id(variable) for variable in layer.get_prunable_weights()}
    except TypeError:
        named = {0}  # of no variable
    if named <= held:
        return named
    raise ModelError(
        "`get_prunable_weights` must return a list of weights of its layer. "
        f"Received: something else from {layer.name!r}"
    )


def _is_frozen(weight: HeldWeight) -> bool:
    layers = any(not getattr(h, "trainable", True) for h in weight.holders)
    return layers or not weight.variable.trainable


def why_not(layer: Any) -> str | None:
    """Say why a layer gets no mask, or `None` if it can have one."""
    if not getattr(layer, "weights", None):
        return "it has no weights"
    if not getattr(layer, "trainable", True):
        return _FROZEN
    if prunable_weights(layer):
        return None
    left = left_out(layer)
    if left and parts_of(layer):
        return "; ".join(f"{name or 'itself'}: {why}" for name, why in left.items())
    if kind_of(layer).startswith("custom:"):
        return _OWN
    return "it has no weights that a mask may thin out"


def left_out(layer: Any) -> dict[str, str]:
    """List the matrices of a layer, and of those inside it, that no mask can reach.

    Depthwise kernels are none of them, nor what `get_prunable_weights` leaves out:
    that they stay is meant.

    Args:
        layer: A built layer of either flavour.

    Returns:
        Reasons by the path of the layer that holds the weights, `""` for itself.
    """
    prunable = set(prunable_weights(layer))
    found: dict[str, str] = {}
    for weight in held_weights(layer):
        if weight.name in prunable or len(weight.variable.shape) < 2:
            continue
        if any(hasattr(holder, "get_prunable_weights") for holder in weight.holders):
            continue
        path = weight.name.rpartition("/")[0]
        if _is_frozen(weight):
            if _may_go(weight, {}):
                found[path] = _FROZEN
        elif kind_of(weight.owner).startswith("custom:"):
            found[path] = _OWN
    return found
