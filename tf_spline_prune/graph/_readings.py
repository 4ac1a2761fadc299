"""`readings`: where the units of a group are read, tensor by tensor."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.graph._channel_graph import ChannelGraph
from tf_spline_prune.graph._facts import Group


@dataclass(frozen=True, eq=False)
class Reading:
    """One axis of one input of a call that reads the units of a group.

    Attributes:
        path: Path of the layer that reads.
        call: Name of the call.
        input: Index of the input.
        axis: The axis.
        positions: Array of shape `(units, m)`: the positions of each unit.
    """

    path: str
    call: str
    input: int
    axis: int
    positions: np.ndarray

    def per_unit(self, tensor: np.ndarray) -> np.ndarray:
        """Arrange an input of the call by unit.

        Args:
            tensor: Array of the shape of the input.

        Returns:
            Array of shape `(samples, units)`: all that the consumer sees of a unit, at
            all positions, one below the other.
        """
        moved = np.moveaxis(tensor, self.axis, -1)[..., self.positions]
        return np.ascontiguousarray(
            np.swapaxes(moved, -1, -2).reshape(-1, len(self.positions))
        )


def readings(graph: ChannelGraph, group: Group) -> list[Reading]:
    """Find where the units of a group are read.

    Args:
        graph: The channel graph.
        group: A group of it.

    Returns:
        One entry for each axis at which they enter a layer that reads them; none
        where units are read only inside the layer that makes them, such as
        attention heads.
    """
    consumers = {member.path for member in group.consumers}
    place = graph.owners([group])
    place[group.roots] = np.arange(group.num_units)
    found: dict[tuple[str, int, int], Reading] = {}
    for call in graph.graph.calls:
        if call.path not in consumers:
            continue
        for index, value in enumerate(graph.inputs_of(call)):
            for axis in value.labelled:
                labels = value.labels[axis]
                if labels is None:
                    continue
                owner = place[graph.units_of(labels)].ravel()
                at = np.flatnonzero(owner >= 0)
                if not len(at):
                    continue
                order = at[np.argsort(owner[at], kind="stable")]
                positions = order.reshape(group.num_units, -1)
                key = (call.name, index, axis)
                found.setdefault(key, Reading(call.path, *key, positions))
    return list(found.values())


def by_call(found: Iterable[Reading]) -> dict[str, list[Reading]]:
    """List readings by the name of the call that reads."""
    listed: dict[str, list[Reading]] = {}
    for reading in found:
        listed.setdefault(reading.call, []).append(reading)
    return listed
