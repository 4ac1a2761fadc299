"""The masked weights of a model, and which of them a call means."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tf_spline_prune.compat import MaskSlot, mask_slots, require_flavour
from tf_spline_prune.errors import ModelError
from tf_spline_prune.pruning.selection import Selector


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
    """
    open_ = {path: layer for path, layer in layers.items() if path not in barred}
    if selector is None:
        return set(open_)
    if callable(selector):
        found = {path for path, layer in open_.items() if selector(layer)}
        if not found:
            raise ValueError("`layers` chose none of the layers that can be masked.")
        return found
    if not isinstance(selector, Iterable):
        raise ValueError(
            "`layers` must be a name, a regular expression, a list of these, or a "
            f"function of the layer. Received: {selector!r}"
        )
    found = set()
    for pattern in [selector] if isinstance(selector, str) else selector:
        found |= matching(pattern, layers, barred)
    if not found:
        raise ValueError("`layers` is empty, so there is nothing to mask.")
    return found


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
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            "Neither a layer's name nor a regular expression: "
            f"{error}. Received: {pattern!r}"
        ) from error
    hits = {
        path
        for path in layers
        if pattern in (path, path.rpartition("/")[2]) or compiled.fullmatch(path)
    }
    if hits and hits <= set(barred):
        path = min(hits)
        raise ValueError(
            f"The layer {path!r} cannot be masked: {barred[path]}. "
            f"Received: {pattern!r}"
        )
    hits -= set(barred)
    if not hits:
        known = [path for path in layers if path not in barred]
        near = difflib.get_close_matches(pattern, known, 3, 0.4) or known[:5]
        raise ValueError(
            f"No layer that can be masked has this name. Nearest: {near}. "
            f"Received: {pattern!r}"
        )
    return hits
