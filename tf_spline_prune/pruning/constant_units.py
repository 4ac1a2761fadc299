"""`Folds`: what units that never change add to their readers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph.axes import channel_axis, norm_axis
from tf_spline_prune.graph.readings import Reading, readings
from tf_spline_prune.graph.unit_path import Step, is_linear
from tf_spline_prune.pruning.bounds import Bounds

# Layers that compute nothing of their input but sums of it times their weights.
_ZERO = ("Dense", "EinsumDense", "Conv", "SeparableConv")


@dataclass(frozen=True, eq=False)
class _Constants:
    """The units of a group that never change where they are read.

    Attributes:
        found: Array of shape `(units,)`, bool: those whose constants can be folded.
        values: For each reader's path, its reading and an array of shape
            `(units, m)`: the constant at each position.
    """

    found: np.ndarray
    values: dict[str, tuple[Reading, np.ndarray]] = field(default_factory=dict)


class Folds:
    """Gathers changes of weights that take the place of constant units.

    Args:
        graph: The channel graph.
        bounds: The bounds of what goes into each call, by the call's name and the
            input's index.

    Attributes:
        changed: New arrays by layer path and weight name.
    """

    def __init__(
        self, graph: ChannelGraph, bounds: Mapping[tuple[str, int], Bounds]
    ) -> None:
        self.graph = graph
        self.bounds = bounds
        self.changed: dict[str, dict[str, np.ndarray]] = {}
        self._ends = graph.graph.ends()
        self._steps: dict[str, list[Step]] = {}
        for step in graph.walked.steps:
            self._steps.setdefault(step.call.path, []).append(step)

    def constants_of(self, group: Group) -> _Constants:
        """Find the units of a group whose constants can be folded."""
        found = np.ones(group.num_units, bool)
        values: dict[str, tuple[Reading, np.ndarray]] = {}
        taken = readings(self.graph, group)
        paths = {member.path for member in group.consumers}
        calls = {step.call.name: step for p in paths for step in self._steps.get(p, ())}
        if {reading.call for reading in taken} != set(calls):
            return _Constants(np.zeros_like(found))
        for reading in taken:
            step = calls[reading.call]
            path = step.call.path
            fixed, constant = self._at(reading, step)
            found &= fixed
            if not step.call.kind.startswith(_ZERO):
                return _Constants(np.zeros_like(found))
            if self._place(step) is None:
                found &= (constant == 0).all(axis=1)
            if path in values:  # a layer that is used twice has one bias
                other, before = values[path]
                same = other.positions.shape == reading.positions.shape
                if not same or (other.positions != reading.positions).any():
                    return _Constants(np.zeros_like(found))
                found &= (before == constant).all(axis=1)
            values[path] = (reading, constant)
        return _Constants(found, values)

    def _at(self, reading: Reading, step: Step) -> tuple[np.ndarray, np.ndarray]:
        """Tell which units never change at a reading, and their constants."""
        bounds = self.bounds[reading.call, reading.input]
        axis = reading.axis - 1  # bounds have no batch axis
        shape = list(bounds.low.shape)
        # Units of other groups may lie beside these.
        shape[axis] = int(step.inputs[reading.input].shape[reading.axis] or 0)
        rows = [
            np.moveaxis(np.broadcast_to(bound, shape), axis, -1).reshape(
                -1, shape[axis]
            )
            for bound in (bounds.low, bounds.high)
        ]
        first = rows[0][:1]
        fixed = ((rows[0] == first) & (rows[1] == first)).all(axis=0)
        fixed &= np.isfinite(first[0])
        constant = np.where(fixed, first[0], 0.0)
        return fixed[reading.positions].all(axis=1), constant[reading.positions]

    def _place(self, step: Step) -> tuple[str, str, int] | None:
        """Say into which weight a reader's constants go, and with which sign."""
        call = step.call
        plain = call.kind == "Dense" or (
            call.kind in ("Conv1D", "Conv2D", "Conv3D")
            and call.layer.padding == "valid"
            and call.layer.groups == 1
        )
        if not plain:
            return None
        if "bias" in self.graph.arrays[call.path]:
            return call.path, "bias", 1
        users = self.graph.walked.users(step.outputs[0])
        alone = len(users) == 1 and len(self._steps[call.path]) == 1
        if not alone or not is_linear(step) or call.name in self._ends:
            return None
        norm = users[0].call
        rank = step.outputs[0].rank
        fits = (
            norm.kind == "BatchNormalization"
            and len(self._steps[norm.path]) == 1
            and norm_axis(norm, rank) == channel_axis(call, rank)
        )
        return (norm.path, "moving_mean", -1) if fits else None

    def fold(self, constants: _Constants, gone: np.ndarray) -> None:
        """Move the constants of the units that go into their readers' weights."""
        for path, (reading, values) in constants.values.items():
            if not gone.any() or not values[gone].any():
                continue
            place = self._place(self._steps[path][0])
            if place is None:
                continue  # only zeros go then
            kernel = self.graph.arrays[path]["kernel"].astype("float64")
            kernel = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
            added = values[gone].ravel() @ kernel[reading.positions[gone].ravel()]
            target, name, sign = place
            arrays = self.changed.setdefault(target, {})
            old = arrays.get(name, self.graph.arrays[target][name])
            arrays[name] = (old + sign * added).astype(old.dtype)
