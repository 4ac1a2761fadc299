"""Masks of whole units, in terms of the channel graph.

A unit is masked where its removal would cut: in the weights that make it and in
those that read it. Nobody reads it then, so that it can be removed exactly,
whatever its bias and its normalisation.
"""

import dataclasses
from typing import Any

import numpy as np

from tf_spline_prune.compat import Calibration, MaskSlot
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.criteria.criterion import PairCriterion
from tf_spline_prune.graph import ChannelGraph, Group


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
        left = np.zeros(group.num_units, bool)
        for member in group.producers:
            keep = masks.get((member.path, member.name))
            if keep is None:
                left[:] = True
                continue
            entries = np.moveaxis(keep, member.axis, 0)
            entries = entries.reshape(len(entries), -1).any(axis=1)
            left |= np.asarray(entries[member.positions].any(axis=1))
        gone[group.roots] = ~left
    return gone


def gone_first(criterion: Criterion, gone: np.ndarray) -> Criterion:
    """Let a criterion rank the units that are gone below all others.

    A pair criterion does so by itself: they are dead.
    """
    if isinstance(criterion, PairCriterion) or not gone.any():
        return criterion
    return _GoneFirst(criterion, gone)


@dataclasses.dataclass
class _GoneFirst(Criterion):
    inner: Criterion
    gone: np.ndarray

    def __post_init__(self) -> None:
        self.name = self.inner.name  # type: ignore[misc]
        self.reduction = self.inner.reduction
        self.normalizer = self.inner.normalizer

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        super().prepare(graph, data, seed)
        self.inner.prepare(graph, data=data, seed=seed)

    def reason_against(self, group: Group) -> str | None:
        return self.inner.reason_against(group)

    def get_config(self) -> dict[str, Any]:
        return self.inner.get_config()

    def scores(self, group: Group) -> np.ndarray:
        scores = self.inner.scores(group)
        return np.where(self.gone[group.roots], min(scores.min(), 0.0) - 1.0, scores)
