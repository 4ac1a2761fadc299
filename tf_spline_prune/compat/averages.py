"""The moving averages of weights that an optimizer keeps (`use_ema=True`)."""

from collections.abc import Iterable
from typing import Any

from tf_spline_prune.compat.mask_slots import MaskSlot, zeroed
from tf_spline_prune.compat.weights import values_of


def mask_averages(model: Any, slots: Iterable[MaskSlot]) -> None:
    """Set the averages of entries that masks remove to zero.

    The optimizer averages its own update, before any constraint, and may write the
    averages into the weights.

    Args:
        model: A compiled model of either flavour.
        slots: Its masked weights.
    """
    optimizer: Any = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not averages or not getattr(optimizer, "use_ema", False):
        return
    if hasattr(optimizer, "_index_dict"):  # tf_keras
        index = optimizer._index_dict
        places = {
            slot.key: index.get(optimizer._var_key(slot.weight)) for slot in slots
        }
    else:
        order = {id(v): i for i, v in enumerate(optimizer._trainable_variables)}
        places = {slot.key: order.get(id(slot.weight)) for slot in slots}
    for slot in slots:
        place = places[slot.key]
        if place is not None:
            average = averages[place]
            average.assign(zeroed(values_of(average), slot.keep()))
