"""The masked weights of a model, and which of them a call means."""

from collections.abc import Iterable, Mapping
from typing import Any

from tf_spline_prune.compat import MaskSlot, mask_slots, require_flavour
from tf_spline_prune.errors import ModelError
from tf_spline_prune.pruning.selection import Selector, meant, named


def require_slots(model: Any) -> list[MaskSlot]:
    """List the masked weights of a model, of which there must be some.

    Args:
        model: A model of either flavour.

    Returns:
        The slots.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If nothing is masked.
    """
    require_flavour(model)
    slots = mask_slots(model)
    if not slots:
        raise ModelError(
            "This model has no masks. Make a masked copy with "
            f"`tsp.wrap_with_masks(model)`. Received: model {model.name!r}"
        )
    return slots


def chosen_layers(
    layers: Mapping[str, Any], selector: Selector, barred: Mapping[str, str]
) -> set[str]:
    """Find the layers that a selector means.

    Args:
        layers: The layers by path.
        selector: `None` for all; a path or name, a regular expression that matches
            paths whole, a list of these, or a function of the layer.
        barred: For the layers that cannot be meant, the reasons.

    Returns:
        Paths.

    Raises:
        ValueError: If a name means nothing, or only layers that are barred.
        TypeError: If it is a schedule.
    """
    if any(base.__name__ == "PruningSchedule" for base in type(selector).__mro__):
        raise TypeError(
            "`layers` chooses layers, and masks take no schedule: give it to the "
            "callback that moves them, `tsp.MaskPruning(schedule)`. Received: layers="
            f"{type(selector).__name__}"
        )
    open_ = {path: layer for path, layer in layers.items() if path not in barred}
    return meant(
        selector, open_, lambda name: matching(name, layers, barred), "can be masked"
    )


def matching(
    pattern: str, layers: Iterable[str], barred: Mapping[str, str] | None = None
) -> set[str]:
    """Find the layers that one name or regular expression means.

    Args:
        pattern: A path or name, or a regular expression that matches paths whole.
        layers: Paths.
        barred: For the layers that cannot be meant, the reasons.

    Returns:
        Paths, at least one.

    Raises:
        ValueError: If it means nothing, or only layers that are barred.
    """
    barred = barred or {}
    hits = named(pattern, {path: path for path in layers}, "layers", "can be masked")
    if hits <= set(barred):
        path = min(hits)
        raise ValueError(
            f"The layer {path!r} cannot be masked: {barred[path]}. "
            f"Received: {pattern!r}"
        )
    return hits - set(barred)
