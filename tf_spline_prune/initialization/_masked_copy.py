"""Copies of masked models, masks and all."""

from typing import Any

from tf_spline_prune.compat import (
    Kernel,
    MaskSlot,
    kernels_of,
    mask_slots,
    require_flavour,
    trace,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.masking import wrap_with_masks


def masked_kernels(model: Any) -> dict[str, tuple[Kernel, MaskSlot]]:
    """List the masked kernels of the dense and convolution layers of a model.

    Args:
        model: A masked model of either flavour.

    Returns:
        Kernels and their masks by the path of the layer, in the order of computation.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has none.
    """
    require_flavour(model)
    slots = {(slot.path, slot.name): slot for slot in mask_slots(model)}
    found = {
        path: (kernel, slots[path, kernel.name])
        for path, kernel in kernels_of(trace(model)).items()
        if (path, kernel.name) in slots
    }
    if not found:
        raise ModelError(
            "The model has no dense or convolution layer that is masked. Mask a copy "
            "with `tsp.prune_once(model, sparsity)`, or wrap it with "
            f"`tsp.wrap_with_masks`. Received: model {model.name!r}"
        )
    return found


def copied(model: Any) -> Any:
    """Copy a masked model with its masks.

    Args:
        model: A masked model of either flavour.

    Returns:
        A masked model of the same flavour, compiled as `model` is.
    """
    masked = {id(slot.layer) for slot in mask_slots(model)}
    return wrap_with_masks(model, lambda layer: id(layer) in masked)


def refuse_masks(model: Any, way_out: str) -> None:
    """Refuse a model with masks where what is done would lose them.

    Args:
        model: What the user gave as a model.
        way_out: What to do instead, for the message.

    Raises:
        FlavourError: If it is no Keras model.
        ModelError: If it has masks.
    """
    require_flavour(model)
    if mask_slots(model):
        raise ModelError(
            f"This is done to a model without masks. {way_out}. Received: the masked "
            f"model {model.name!r}"
        )
