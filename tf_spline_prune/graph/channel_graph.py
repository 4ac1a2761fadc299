"""`ChannelGraph`: which units of a model live or die together."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import Call, check_finite, current_weights, trace
from tf_spline_prune.graph.axes import TensorAxes
from tf_spline_prune.graph.facts import Barrier, Group, Member, Resize, WeightFact
from tf_spline_prune.graph.recorder import Recorder, tensors
from tf_spline_prune.graph.rules import opaque, rule_of
from tf_spline_prune.graph.unit_path import Step, UnitPath, Walk, follow


class ChannelGraph:
    """The units of a model, and every place in its weights where they appear.

    The graph is walked once. Every axis of every tensor carries the units that
    it holds, through sums, concatenations, flattening, depthwise convolutions
    and the rest; so each axis of each weight knows whose units it makes, reads
    or accompanies. Units that meet in a sum form one group and live or die
    together. A layer without a rule is a barrier with a reason, never a guess.

    Args:
        model: A built model of either flavour. It is read, never changed.

    Attributes:
        groups: The groups that may be pruned.
        barriers: The layers with units that may not, and why.
        weights: What is known of each weight, by layer path and name.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.

    Example:

    ```python
    graph = tsp.ChannelGraph(model)
    [(group.name, group.num_units) for group in graph.groups]
    print(graph.explain("conv2d_3"))
    ```
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = trace(model)
        self.arrays = current_weights(self.graph)
        for path, weights in self.arrays.items():
            check_finite(path, weights)
        self._layers = {call.path: call.layer for call in self.graph.leaves()}
        recorder = Recorder()
        self._steps = Walk()
        self._walk(recorder)
        self.weights: dict[tuple[str, str], WeightFact] = recorder.weights
        self.resizes: list[Resize] = recorder.resizes
        self._root, reasons = recorder.solve()
        self.groups = self._find_groups(reasons)
        self.barriers = self._find_barriers(reasons)
        self._paths: dict[str, UnitPath] = {}

    def _walk(self, recorder: Recorder) -> None:
        """Run the graph on labels in the place of tensors."""
        inputs = []
        for entry in self.graph.inputs:
            labels = tuple(
                None if axis == 0 or size is None else recorder.fresh(size)
                for axis, size in enumerate(entry.shape)
            )
            inputs.append(TensorAxes(entry.shape, labels))
            recorder.bar_tensor(inputs[-1], "they are the model's input")

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rule = rule_of(call)
            values = tensors(args, kwargs)
            found = (rule.apply if rule else opaque)(call, values, recorder)
            outputs = found if isinstance(found, list) else [found]
            # Every step gets tensors of its own, so that steps can be followed.
            outputs = [TensorAxes(o.shape, o.labels) for o in outputs]
            self._steps.add(Step(call, rule, values, outputs))
            return outputs[0] if len(outputs) == 1 else outputs

        for value in self.graph.run(inputs, apply):
            recorder.bar_tensor(value, "they are the model's output")

    def layer(self, path: str) -> Any:
        """Give the layer object of a path."""
        return self._layers[path]

    def units_of(self, labels: np.ndarray) -> np.ndarray:
        """Give the unit that each label names, an index into removal arrays."""
        return np.asarray(self._root[labels])

    def rows(self, member: Member) -> np.ndarray:
        """Read the entries of a weight that belong to each unit of a group.

        Args:
            member: A member of a group.

        Returns:
            Array of shape `(units, d)`, float64.
        """
        array = self.arrays[member.path][member.name].astype("float64")
        array = np.moveaxis(array, member.axis, 0)
        return array[member.positions].reshape(len(member.positions), -1)

    def path_of(self, group: Group) -> UnitPath:
        """Follow a group's units from the layer that makes them to its readers."""
        if group.name not in self._paths:
            self._paths[group.name] = follow(group, self._steps)
        return self._paths[group.name]

    def kept_counts(self, removed: np.ndarray) -> dict[tuple[str, str], list[int]]:
        """Count what stays of every weight's axes.

        Args:
            removed: Array of shape `(labels,)`, bool, indexed by unit.

        Returns:
            For each weight the kept size of each axis.
        """
        counts = {}
        for key, fact in self.weights.items():
            counts[key] = [
                size if labels is None else int((~removed[self._root[labels]]).sum())
                for size, labels in zip(fact.shape, fact.axes, strict=True)
            ]
        return counts

    def nothing_removed(self) -> np.ndarray:
        """Give the array, indexed by unit, that removes nothing."""
        return np.zeros(len(self._root), bool)

    def removal(self, units: dict[str, list[int]]) -> np.ndarray:
        """Translate unit indices of layers into units of the graph.

        Args:
            units: For each path of a layer, indices of its units.

        Returns:
            Array of shape `(labels,)`, bool, indexed by unit.

        Raises:
            ValueError: If a layer makes no units, an index is out of range, a unit
                may not be removed, or a layer would be left without units.
        """
        makers = self._makers()
        removed = self.nothing_removed()
        for path, indices in units.items():
            if path not in makers:
                raise ValueError(
                    f"No layer of this path makes units. Expected one of "
                    f"{tuple(makers)}. Received: {path!r}"
                )
            roots = makers[path]
            wrong = [i for i in indices if not 0 <= i < len(roots)]
            if wrong:
                raise ValueError(
                    f"The layer {path!r} has {len(roots)} units, counted from 0. "
                    f"Received: indices {wrong}"
                )
            removed[roots[list(indices)]] = True
        emptied = [path for path, roots in makers.items() if removed[roots].all()]
        if emptied:
            raise ValueError(
                "A layer must keep at least one unit. Received: all units of "
                f"{', '.join(emptied)}"
            )
        allowed = self.nothing_removed()
        for group in self.groups:
            allowed[group.roots] = True
        if (removed & ~allowed).any():
            blocked = [p for p, r in makers.items() if (removed & ~allowed)[r].any()]
            reasons = {b.layer: b.reason for b in self.barriers}
            raise ValueError(
                "These units may not be removed: "
                + "; ".join(f"{p}: {reasons.get(p, 'barred')}" for p in blocked)
            )
        return removed

    def indices(self, removed: np.ndarray) -> dict[str, list[int]]:
        """Translate units of the graph into unit indices of the layers."""
        found = {
            p: np.flatnonzero(removed[r]).tolist() for p, r in self._makers().items()
        }
        return {path: indices for path, indices in found.items() if indices}

    def unit_counts(self) -> dict[str, int]:
        """Count the units that each layer makes, by path."""
        return {path: len(roots) for path, roots in self._makers().items()}

    def explain(self, layer: str) -> str:
        """Tell in words what becomes of a layer's units.

        Args:
            layer: Path of a layer that makes units.

        Returns:
            One paragraph: the group and its members, or the barrier's reason.

        Raises:
            ValueError: If no layer of this path makes units.
        """
        if layer not in self._makers():
            raise ValueError(
                f"No layer of this path makes units. Expected one of "
                f"{tuple(self._makers())}. Received: {layer!r}"
            )
        lines = []
        for group in self.groups:
            if any(m.path == layer for m in group.producers):
                makers = ", ".join(m.path for m in group.producers)
                readers = ", ".join(m.path for m in group.consumers)
                lines.append(
                    f"{layer}: {group.num_units} units may be pruned; made by "
                    f"{makers}; read by {readers or 'nothing'}."
                )
        for barrier in self.barriers:
            if barrier.layer == layer:
                lines.append(
                    f"{layer}: {barrier.units} units must stay: {barrier.reason}."
                )
        return "\n".join(lines)

    def _makers(self) -> dict[str, np.ndarray]:
        """Map each layer that makes units to the units it makes."""
        found = {}
        for fact in self.weights.values():
            for labels, role in zip(fact.axes, fact.roles, strict=True):
                if role == "out" and labels is not None:
                    found[fact.path] = self._root[labels]
        return found

    def _find_groups(self, reasons: dict[int, str]) -> tuple[Group, ...]:
        """Gather the free units that the same layers make."""
        makers = self._makers()
        signature: dict[int, tuple[str, ...]] = {}
        for path, roots in makers.items():
            for unit in roots.tolist():
                if unit not in reasons:
                    signature[unit] = (*signature.get(unit, ()), path)
        gathered: dict[tuple[str, ...], list[int]] = {}
        for unit, paths in signature.items():
            gathered.setdefault(paths, []).append(unit)
        index = np.full(len(self._root), -1)
        owner = np.full(len(self._root), -1)
        for number, units in enumerate(gathered.values()):
            index[units] = np.arange(len(units))
            owner[units] = number
        sizes = [len(units) for units in gathered.values()]
        members: list[list[Member]] = [[] for _ in gathered]
        for fact in self.weights.values():
            for axis, (labels, role) in enumerate(
                zip(fact.axes, fact.roles, strict=True)
            ):
                if labels is None or role is None:
                    continue
                roots = self._root[labels]
                for number in np.unique(owner[roots]).tolist():
                    if number < 0:
                        continue
                    at = np.flatnonzero(owner[roots] == number)
                    order = at[np.argsort(index[roots[at]], kind="stable")]
                    size = sizes[number]
                    members[number].append(
                        Member(
                            fact.path, fact.name, axis, role, order.reshape(size, -1)
                        )
                    )
        taken: dict[str, int] = {}
        groups = []
        for number, (paths, units) in enumerate(gathered.items()):
            count = taken.get(paths[0], 0)
            taken[paths[0]] = count + 1
            name = f"{paths[0]}#{count}" if count else paths[0]
            groups.append(Group(name, np.array(units), tuple(members[number])))
        return tuple(groups)

    def _find_barriers(self, reasons: dict[int, str]) -> tuple[Barrier, ...]:
        found = []
        for path, roots in self._makers().items():
            barred = [unit for unit in roots.tolist() if unit in reasons]
            counts: dict[str, int] = {}
            for unit in barred:
                counts[reasons[unit]] = counts.get(reasons[unit], 0) + 1
            found += [Barrier(path, n, reason) for reason, n in counts.items()]
        return tuple(found)
