"""Masks of whole units, in terms of the channel graph.

A unit is masked where its removal would cut: in the weights that make it and in
those that read it. Nobody reads it then, so that it can be removed exactly,
whatever its bias and its normalisation.
"""

import numpy as np

from tf_spline_prune.compat import MaskSlot
from tf_spline_prune.graph import ChannelGraph


def masks_of_units(
    graph: ChannelGraph, removed: np.ndarray, slots: list[MaskSlot]
) -> list[np.ndarray]:
    """Give the masks that remove units.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        slots: The masked weights.

    Returns:
        For each slot an array of the weight's shape, bool: true means keep.
    """
    masks = []
    for slot in slots:
        keep = np.ones(tuple(slot.weight.shape), bool)
        fact = graph.weights.get((slot.path, slot.name))
        for axis, labels in enumerate(fact.axes if fact else ()):
            if labels is not None:
                gone = removed[graph.units_of(labels)]
                np.moveaxis(keep, axis, 0)[gone] = False
        masks.append(keep)
    return masks


def units_gone(graph: ChannelGraph, slots: list[MaskSlot]) -> np.ndarray:
    """Find the units that masks have removed: none of what makes them is left.

    Returns:
        Array of shape `(labels,)`, bool, indexed by unit.
    """
    masks = {(slot.path, slot.name): slot.keep() for slot in slots}
    gone = graph.nothing_removed()
    for group in graph.groups:
        left = []
        for member in group.producers:
            keep = masks.get((member.path, member.name))
            if keep is None:  # a weight without a mask keeps its units
                left.append(np.ones(group.num_units, bool))
                continue
            entries = np.moveaxis(keep, member.axis, 0)
            any_left = np.asarray(entries.reshape(len(entries), -1).any(axis=1))
            left.append(np.asarray(any_left[member.positions].any(axis=1)))
        gone[group.roots] = ~np.any(left, axis=0)
    return gone
