"""`transfer_masks`: the masks of one model on another of the same shapes."""

from collections.abc import Sequence
from typing import Any

from tf_spline_prune.compat import MaskSlot, mask_slots, trace
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization.masked_copy import refuse_masks
from tf_spline_prune.masking.slots import require_slots
from tf_spline_prune.masking.wrapping import wrap_with_masks


def transfer_masks(masked: Any, model: Any) -> Any:
    """Put the masks of one model on a copy of another.

    So a mask that was drawn on one data set is used on a second one, or the mask of
    a trained net on its initial weights. Layers belong together by path; where the
    paths differ, by their order.

    Args:
        masked: A masked model of either flavour. It is not changed.
        model: A built model without masks, of either flavour. It is not changed.

    Returns:
        A masked copy of `model`, compiled as it is.

    Raises:
        FlavourError: If one is no Keras model.
        ModelError: If `masked` has no masks or `model` has some, if weights have other
            shapes, or a model is unbuilt or cannot be traced.

    Example:

    ```python
    masked = tsp.prune_at_init(model, "snip", 0.9, data=(x_train, y_train))
    other = tsp.initialization.transfer_masks(masked, fresh)
    ```

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks at
    Initialization", ICLR 2020, section 5 (transfer of sparsity).
    """
    slots = require_slots(masked)
    found, targets = wrapped_alike(model, slots)
    for slot, target in zip(slots, targets, strict=True):
        target.assign(slot.keep())
    return found


def wrapped_alike(
    model: Any, slots: Sequence[MaskSlot]
) -> tuple[Any, Sequence[MaskSlot]]:
    """Copy a model with masks around the counterparts of masked weights.

    Args:
        model: A built model without masks.
        slots: The masked weights of another model.

    Returns:
        The masked copy, and its slots, in the order of `slots`.

    Raises:
        ModelError: As `transfer_masks`.
    """
    refuse_masks(model, "Take the model that was masked, or `tsp.strip_masks(model)`")
    paths = list(dict.fromkeys(slot.path for slot in slots))
    known = {call.path for call in trace(model).leaves()}
    found = wrap_with_masks(model, paths if known.issuperset(paths) else None)
    targets = mask_slots(found)
    keys = [slot.key for slot in slots]
    if set(keys) == {slot.key for slot in targets}:
        targets.sort(key=lambda slot: keys.index(slot.key))
    expected, received = (
        [(slot.key, tuple(slot.mask.shape)) for slot in some]
        for some in (slots, targets)
    )
    if [shape for _, shape in expected] != [shape for _, shape in received]:
        raise ModelError(
            "Masks go onto weights of their own shapes only. Expected: "
            f"{_listed(expected)}. Received: {_listed(received)}"
        )
    return found, targets


def _listed(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in shapes) or "none"
