"""`RegionBound`: how many linear regions a choice of widths allows at most."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.partition.region_bounds import log_regions


class RegionBound:
    """The logarithm of an upper bound on a network's number of linear regions.

    A network whose hidden layers have `n_1 .. n_L` units and whose input has the
    dimension `n_0` has at most

        prod_l sum_{j = 0 .. d_l} C(n_l, j),  d_l = min(n_0, n_1, .., n_l)

    linear regions: what reaches layer l spans `d_l` dimensions at most, and `n_l`
    hyperplanes cut such a space into no more pieces. The bound is that of one
    knot a unit.

    Each call of a layer that makes units counts as one layer of the chain, whether
    or not an activation follows it; depthwise layers and what only shapes tensors
    do not, and neither do the layers that make the model's outputs. The channels
    of a convolution count as its units, and those of an image as the dimensions
    of the input, whatever the number of positions. Where tensors run side by side,
    as along a shortcut, only the layers through which everything passes narrow
    what comes after them, so it stays an upper bound for branched networks.

    Args:
        graph: The model's channel graph.
        groups: The groups whose numbers of units are free.

    Source: Raghu et al., "On the Expressive Power of Deep Neural Networks", 2017;
    Montúfar, "Notes on the number of linear regions", 2017; Serra et al., "Bounding
    and Counting Linear Regions", 2018. As a guide for pruning: Cai et al., "Getting
    Away with More Network Pruning: From Sparsity to Geometry and Linear Regions",
    CPAIOR 2023.
    """

    def __init__(self, graph: ChannelGraph, groups: Sequence[Group]) -> None:
        self._owner = graph.owners(groups)
        self._sizes = np.array([group.num_units for group in groups], int)
        self.inputs, events = self._read(graph)
        # For each event: whether it is a layer, or else a place that all must pass.
        self._is_layer = [is_layer for is_layer, _, _ in events]
        self._full = np.array([full for _, full, _ in events], int)
        self._places = np.zeros((len(events), len(groups)), int)
        for row, (_, _, owners) in enumerate(events):
            self._places[row, owners] = 1

    def __call__(self, counts: np.ndarray) -> tuple[float, tuple[int, ...]]:
        """Give the bound of a choice.

        Args:
            counts: Array of shape `(groups,)`: how many units of each are gone.

        Returns:
            The natural logarithm of the bound, and the dimension `d` at each step,
            which tells whether two choices narrow the network alike.
        """
        total, depth, depths = 0.0, self.inputs, []
        widths = (self._full - self._places @ counts).tolist()
        for is_layer, width in zip(self._is_layer, widths, strict=True):
            if is_layer:
                total += log_regions(width, min(width, depth))
            else:
                depth = min(depth, width)
            depths.append(depth)
        return total, tuple(depths)

    def _read(
        self, graph: ChannelGraph
    ) -> tuple[int, list[tuple[bool, int, list[int]]]]:
        """List in the order of computation what makes units and what narrows."""
        steps = graph.walked.steps
        last: dict[int, int] = {}  # when each tensor is read for the last time
        for number, step in enumerate(steps):
            for tensor in step.inputs:
                last[id(tensor)] = number
        made = {id(tensor) for step in steps for tensor in step.outputs}
        given = {
            id(tensor): tensor
            for step in steps
            for tensor in step.inputs
            if id(tensor) not in made
        }
        alive = dict(given)
        ends = self._units(
            graph, [t for s in steps for t in s.outputs if id(t) not in last]
        )
        makers: dict[str, list[np.ndarray]] = {}
        for name, roots in graph.makers.items():
            makers.setdefault(graph.path_of_maker(name), []).append(np.unique(roots))
        events: list[tuple[bool, int, list[int]]] = []
        for number, step in enumerate(steps):
            for roots in makers.get(step.call.path, ()):
                if not np.isin(roots, ends).any():
                    events.append((True, len(roots), self._owners(roots)))
            alive.update({id(tensor): tensor for tensor in step.outputs})
            alive = {key: t for key, t in alive.items() if last.get(key, -1) > number}
            if len(alive) == 1:
                (tensor,) = alive.values()
                roots = self._units(graph, [tensor])
                cut = (False, len(roots), self._owners(roots))
                if len(roots) and self._whole(roots) and cut not in events[-1:]:
                    events.append(cut)
        size = sum(
            tensor.shape[-1] or 1 for tensor in given.values() if tensor.rank > 1
        )
        return max(1, size), events

    def _owners(self, roots: np.ndarray) -> list[int]:
        owners = np.unique(self._owner[roots])
        return [int(owner) for owner in owners if owner >= 0]

    def _whole(self, roots: np.ndarray) -> bool:
        """Tell whether a tensor holds all units of each group that it holds."""
        owners, counts = np.unique(self._owner[roots], return_counts=True)
        known = owners >= 0
        return bool((self._sizes[owners[known]] == counts[known]).all())

    @staticmethod
    def _units(graph: ChannelGraph, tensors: Sequence[Any]) -> np.ndarray:
        """Give the units that lie on the axes of tensors."""
        found = [
            graph.units_of(labels)
            for tensor in tensors
            for labels in tensor.kept.values()
        ]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, int)
