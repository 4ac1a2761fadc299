"""`ChannelGraph`: which units of a model are pruned together."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tf_spline_prune._checks import Flag, Integer, ListOf, MapOf, Text, checked
from tf_spline_prune.compat import (
    Call,
    CurrentWeights,
    Graph,
    Node,
    Shape,
    Tensor,
    check_finite,
    check_plain,
    config_of,
    trace,
    traced_macs,
    with_sizes,
)
from tf_spline_prune.errors import BudgetError, RuleError
from tf_spline_prune.graph._facts import (
    Barrier,
    Group,
    Member,
    TensorAxes,
    WeightFact,
    Work,
)
from tf_spline_prune.graph._grouping import (
    find_barriers,
    find_groups,
    rows_of,
    sums_of,
)
from tf_spline_prune.graph._input_shapes import INPUT_SHAPES, InputShapes, read_at
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph._selection import Nameable
from tf_spline_prune.graph._stacks import Sizes, closed_in, unsaid_of
from tf_spline_prune.graph._unit_path import UnitPath, follow
from tf_spline_prune.graph.rules import describe, has_own_rule

UNITS = MapOf(
    Text("the name of a layer"),
    ListOf(Integer(0), "indices of units", 0),
    "a dictionary from names of layers to lists of the indices of units",
    least=0,
    hint="Such as {'conv2d_3': [0, 7]}.",
)
"""What the checks of arguments want of units to be removed."""
# Stands for a size that is open where only "none or some" is asked.
_ANY_SIZE = 32


def _rows_after(call: Call, rows: int | None) -> int | None:
    """Return how many rows of the batch axis each example has after a call.

    A reshape may move positions to the batch axis, or back from there.
    """
    if call.kind != "op:reshape" or rows is None:
        return rows
    sizes = [shape[1:] for shape in (call.input_shapes[0], call.output_shapes[0])]
    if None in (*sizes[0], *sizes[1]):
        # Of an axis that is open on both sides nothing is moved.
        return rows if call.input_shapes[0][0] == call.output_shapes[0][0] else None
    before, after = (math.prod(one) for one in sizes)  # type: ignore[arg-type]
    return None if rows * before % after else rows * before // after


class ChannelGraph:
    """The units of a model, and every place in its weights where they appear.

    The graph is walked once. Every axis of every tensor carries the units that it
    holds, through sums, concatenations, flattening, depthwise convolutions and the
    rest; so for each axis of each weight it is known whose units it produces, consumes
    or accompanies. Units that meet in a sum are coupled: they form one group and are
    pruned together. A layer without a rule is a barrier with a reason, never a guess.

    Args:
        model: A built model of either flavour. It is read, never changed.
        approximate: Whether units may be pruned although a normalisation runs over them
            (LayerNormalization and the like), so that its statistics change. Defaults
            to `False`.
        input_shapes: For names of inputs the shapes, without the batch axis, at which
            the model is read and counted: `{"token_ids": (128,)}`. Open axes of inputs
            that are not named are as long. Defaults to `None`: any, and where a layer
            can only be read at a known size, 16.

    Attributes:
        input_shapes: The shapes at which the model was read, without the batch axis;
            `None` where it was read at any.
        groups: The groups that may be pruned.
        barriers: The layers with units that may not, and those that no rule covers,
            and why.
        makers: For the name of each layer that produces units, the units it produces. A
            layer that produces several kinds has a name for each: `"attention/heads"`.
        weights: What is known of each weight, by layer path and name.
        edits: The entries of the layers' configs that depend on units.
        rescales: The weights that make up for a changed number of units.
        mixings: Normalisations over units that may be pruned.
        contractions: Calls in which units meet although no weight consumes them.
        arrays: The values of the weights, by layer path and name.
        graph: The calls of the model as it was read, whose axes are labelled.
        source: Those of the model as it is, from which a smaller one is built.
        approximate: As it was given.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        ValueError: If `input_shapes` does not fit the inputs.
        RuleError: If a user's rule does not fit the weights or the config of its
            layer.

    Example:

    ```python
    graph = tsp.ChannelGraph(model)
    [(group.name, group.num_units) for group in graph.groups]
    print(graph.explain("conv2d_3"))
    ```
    """

    @checked(approximate=Flag(), input_shapes=INPUT_SHAPES)
    def __init__(
        self,
        model: Any,
        *,
        approximate: bool = False,
        input_shapes: InputShapes | None = None,
    ) -> None:
        self.model = model
        self.approximate = approximate
        self.source, self.graph = read_at(model, input_shapes)
        self.input_shapes: dict[str, tuple[int, ...]] | None = None
        is_open = any(None in entry.shape[1:] for entry in self.source.inputs)
        if self.graph is not self.source and is_open:
            self.input_shapes = {i.name: i.shape[1:] for i in self.graph.inputs}  # type: ignore[misc]
        self.arrays = CurrentWeights(self.graph)
        for path, layer in self.graph.layers.items():
            check_plain(path, layer)
        for path, weights in self.arrays.items():
            check_finite(path, weights)
        shapes = {path: self.arrays.shapes(path) for path in self.arrays}
        self.axes: dict[Tensor, TensorAxes] = {}
        # By call how many rows of the batch axis each example has there.
        self.times: dict[str, int | None] = {}
        recorder, self._root, reasons = self._labelled(shapes)
        self.weights: dict[tuple[str, str], WeightFact] = recorder.weights
        self.edits = tuple(recorder.edits)
        self.rescales = tuple(recorder.rescales.values())
        self.opaque = tuple(recorder.opaque)
        self._multiplied = tuple(recorder.work)
        self._check_rules()
        self.mixings = tuple(recorder.mixings)
        self.contractions = tuple(recorder.contractions)
        self.makers = {
            n: self._root[units] for n, (_, units) in recorder.makers.items()
        }
        self._producer_paths = {
            name: path for name, (path, _) in recorder.makers.items()
        }
        self._parts = [
            (path, np.unique(self._root[labels])) for path, labels in recorder.parts
        ]
        self.groups = find_groups(
            self.makers,
            self.weights.values(),
            [*recorder.work, *recorder.opaque],
            self.mixings,
            [labels for _, labels in recorder.parts],
            self._root,
            reasons,
        )
        unsaid = unsaid_of(self) if self.closed else []
        gone = {group.name for _, group, _ in unsaid}
        self.groups = tuple(g for g in self.groups if g.name not in gone)
        for _, group, why in unsaid:
            reasons.update(dict.fromkeys(group.roots.tolist(), why))
        whole = {path: Barrier(path, 0, why) for path, _, why in unsaid}
        self.barriers = (
            *find_barriers(self.makers, reasons),
            *self._unseen(),
            *whole.values(),
        )
        self._paths: dict[str, UnitPath] = {}

    def _labelled(
        self, shapes: dict[str, dict[str, tuple[int, ...]]]
    ) -> tuple[Recorder, np.ndarray, dict[int, str]]:
        """Label all axes, so that units of as many producers as possible are free.

        A reshape that lays units out over several axes, as heads and their dimensions,
        leaves a choice: where dimensions must stay or are turned in pairs, heads need
        not be.
        """
        counts = {path: len(uses) for path, uses in self.graph.uses.items()}

        def label(standing: int) -> tuple[Any, Any, Recorder, dict[Tensor, Any]]:
            recorder = Recorder(shapes, self.approximate, standing)
            self.axes = {}
            self._label(recorder)
            root, reasons = solved = recorder.solve(counts)
            units = [root[labels].tolist() for _, labels in recorder.makers.values()]
            free = sum(any(unit not in reasons for unit in some) for some in units)
            spread = [root[labels].tolist() for labels, _ in recorder.spread]
            bound = sum(
                len({*some} - reasons.keys()) < len(some) for some in spread
            )  # axes with units that must stay, or go together
            return (free, -bound), solved, recorder, self.axes

        tried = [label(standing=-1)]
        (_, bound), _, recorder, _ = tried[0]
        if bound:
            most = max(count for _, count in recorder.spread)
            tried += [label(standing) for standing in range(most - 1)]
        _, solved, recorder, self.axes = max(tried, key=lambda one: one[0])
        return recorder, *solved

    def _label(self, recorder: Recorder) -> None:
        """Label the axes of every tensor, from the inputs to the outputs."""
        for tensor, entry in zip(
            self.graph.input_tensors, self.graph.inputs, strict=True
        ):
            labels: list[Any] = [None] * len(entry.shape)
            if len(labels) > 1 and entry.shape[-1] is not None:
                labels[-1] = recorder.fresh(entry.shape[-1])
            self.axes[tensor] = TensorAxes(entry.shape, tuple(labels))
            recorder.bar_tensor(self.axes[tensor], "they are the model's input")
        calls = []
        rows: dict[Tensor, int | None] = dict.fromkeys(self.graph.input_tensors, 1)
        for call in self.graph.calls:
            for mask in call.masks:
                recorder.bar_tensor(self.axes[mask], f"{call.path} uses them as a mask")
            values = [self.axes[tensor] for tensor in call.inputs]
            call = with_sizes(call, [value.shape for value in values])
            taken = [rows[tensor] for tensor in call.inputs]
            times = None if None in taken else max(taken, default=1)  # type: ignore
            with recorder.within("", "", times):
                found = describe(call, values, recorder)
            moved = any(value.batch for value in values)
            times = None if moved and call.kind == "op:reshape" else times
            rows.update(dict.fromkeys(call.outputs, _rows_after(call, times)))
            self.times[call.key] = times
            self.axes.update(zip(call.outputs, found, strict=True))
            calls.append(call)
        # From here on with all sizes that are known.
        self.graph = replace(self.graph, calls=tuple(calls))
        for tensor in self.graph.output_tensors:
            recorder.bar_tensor(self.axes[tensor], "they are the model's output")

    def _check_rules(self) -> None:
        """Raise `RuleError` where a user's rule leaves out what decides."""
        unseen = {one.call.path for one in self.opaque}
        for path, layer in self.graph.layers.items():
            if path in unseen or not has_own_rule(layer):
                continue
            silent = [
                name
                for name in self.arrays.shapes(path)
                if (path, name) not in self.weights and self.arrays.is_float(path, name)
            ]
            if silent:
                raise RuleError(
                    f"The rule of {type(layer).__name__} says nothing of some weights "
                    "of its layer, so neither their units nor their cost are known. "
                    "Expected: `recorder.weight` or `recorder.vector` for each, with "
                    f"None for axes without units. Received: nothing of {silent} of "
                    f"{path!r}"
                )
            config = config_of(layer)
            keys = {e.key for e in self.edits if e.path == path and "." not in e.key}
            if lost := sorted(keys - set(config)):
                raise RuleError(
                    f"The rule of {type(layer).__name__} changes entries that the "
                    f"config of {path!r} does not have. Expected: some of "
                    f"{sorted(config)}. Received: {lost}"
                )

    def _unseen(self) -> list[Barrier]:
        """List the layers with weights that no rule covers."""
        found = []
        for call in {one.call.path: one.call for one in self.opaque}.values():
            shapes = self.arrays.shapes(call.path)
            if params := sum(map(math.prod, shapes.values())):
                why = f", and it cannot be traced ({call.why})" if call.why else ""
                reason = (
                    f"no rule covers {call.kind} as it is used here{why}, so its "
                    f"{params:,} parameters are kept"
                )
                found.append(Barrier(call.path, 0, reason))
        return found

    @functools.cached_property
    def work(self) -> tuple[Work, ...]:
        """Multiply-accumulates between tensors, and of calls that no rule covers."""
        return (*self._multiplied, *self._traced[0])

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Paths of the calls whose multiply-accumulates cannot be counted."""
        return self._traced[1]

    @functools.cached_property
    def _traced(self) -> tuple[tuple[Work, ...], tuple[str, ...]]:
        """Count what no rule covers; only here, for tracing takes its time."""
        work: list[Work] = []
        uncounted: list[str] = []
        for one in self.opaque:
            call = one.call
            sizes = [s for shape in call.input_shapes for s in shape[1:]]
            if is_open := None in sizes:  # at some size, to see if there are any
                shapes = tuple(
                    (*shape[:1], *(size or _ANY_SIZE for size in shape[1:]))
                    for shape in call.input_shapes
                )
                call = replace(call, input_shapes=shapes)
            count = traced_macs(call)
            if count is None and not is_open:
                uncounted.append(call.path)
            elif count != 0:
                known = not is_open and None not in (count, one.times)
                uses = count * one.times if known else None  # type: ignore[operator]
                work.append(Work(call.path, uses, one.rows))
        return tuple(work), tuple(dict.fromkeys(uncounted))

    def traced(self, small: Any) -> Graph:
        """Trace a smaller model of the same inputs as this one was."""
        whole = [call.path for call in self.graph.calls if call.why]
        return trace(small, self._full_shapes, self.graph is not self.source, whole)

    @property
    def _full_shapes(self) -> dict[str, Shape] | None:
        if self.input_shapes is None:
            return None
        return {entry.name: entry.shape for entry in self.graph.inputs}

    @functools.cached_property
    def sizes(self) -> Sizes:
        """What the configs of users' classes say of the numbers of units."""
        return Sizes(self)

    @functools.cached_property
    def closed(self) -> dict[str, Node]:
        """The layers made of layers that can only be made by their class, by path."""
        return closed_in(self.source, self.graph)

    def left(self, removed: np.ndarray) -> dict[str, tuple[int, int]]:
        """Count the units of each group, and those that are left of them."""
        return {
            group.name: (group.num_units, int((~removed[group.roots]).sum()))
            for group in self.groups
        }

    def layer(self, name: str) -> Any:
        """Return the layer object of a path, or of the name of a producer."""
        return self.graph.layers[self._producer_paths.get(name, name)]

    def path_of_maker(self, name: str) -> str:
        """Return the path of the layer that produces units under a name."""
        return self._producer_paths[name]

    @functools.cached_property
    def nameable(self) -> Nameable:
        """The producers of units, as users name them."""
        return Nameable(
            {name: self.layer(name) for name in self.makers},
            "produces units",
            {b.layer: b.reason for b in self.barriers if b.layer not in self.makers},
            "Units of {name!r} cannot be pruned: {reason}. Leave it out.",
            self._producer_paths,
            BudgetError,
        )

    def units_of(self, labels: np.ndarray) -> np.ndarray:
        """Return the unit that each label stands for, an index into removal arrays."""
        return np.asarray(self._root[labels])

    def rows(self, member: Member) -> np.ndarray:
        """Return the entries of a weight that belong to each unit of a group.

        Args:
            member: A member of a group.

        Returns:
            Array of shape `(units, d)`, float64; float32 where a weight is so big
            that a copy of twice its size would hurt.
        """
        return rows_of(self.arrays[member.path][member.name], member)

    def lengths(self, member: Member, p: int = 2) -> np.ndarray:
        """Compute the p-norm of the entries of a weight that belong to each unit.

        Args:
            member: A member of a group.
            p: 1 or 2. Defaults to `2`.

        Returns:
            Array of shape `(units,)`, float64: the p-norms of the rows.
        """
        of = np.square if p == 2 else np.abs
        return sums_of(member, of, self.arrays[member.path][member.name]) ** (1 / p)

    def inputs_of(self, call: Call) -> list[TensorAxes]:
        """List whose units lie on the axes of what goes into a call."""
        return [self.axes[tensor] for tensor in call.inputs]

    def path_of(self, group: Group) -> UnitPath:
        """Follow a group's units from the layer that produces them to its consumers."""
        if group.name not in self._paths:
            mine = self.owners([group]) == 0

            def holds(tensor: Tensor) -> bool:
                held = self.axes[tensor].kept.values()
                return any(mine[self._root[labels]].any() for labels in held)

            self._paths[group.name] = follow(group, self.graph, holds)
        return self._paths[group.name]

    def kept_counts(self, removed: np.ndarray) -> dict[tuple[str, str], list[int]]:
        """Count what is kept of every weight's axes.

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

    def changes(self, removed: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return the entries of configs that change, by path; an operation's arguments.

        Args:
            removed: Array of shape `(labels,)`, bool, indexed by unit.
        """
        changes: dict[str, dict[str, Any]] = {}
        kept = self.kept_counts(removed)
        for edit in self.edits:
            keep = ~removed[self._root[edit.labels]]
            if not keep.all():
                entries = changes.setdefault(edit.path, {})
                first = edit.key.partition(".")[0]
                settings = self._settings(edit.path) if first not in entries else {}
                if first in settings:
                    entries[first] = settings[first]
                edit.apply(entries, keep)
        for (path, name), fact in self.weights.items():
            if kept[path, name] != list(fact.shape):
                changes.setdefault(path, {})
        return changes

    def _settings(self, path: str) -> Mapping[str, Any]:
        """Return the config of a layer, or all that an operation is told."""
        call = self.graph.uses[path][0]
        if call.kind.startswith("op:"):
            return call.arguments([None] * len(call.inputs))
        return config_of(call.layer)

    def owners(self, groups: Sequence[Group]) -> np.ndarray:
        """Return for each unit the index of its group, or -1."""
        owner = np.full(len(self._root), -1)
        for number, group in enumerate(groups):
            owner[group.roots] = number
        return owner

    def nothing_removed(self) -> np.ndarray:
        """Return the array, indexed by unit, that removes nothing."""
        return np.zeros(len(self._root), bool)

    @checked(units=UNITS)
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
        removed = self.nothing_removed()
        for name, indices in units.items():
            self.nameable.require(name)
            roots = self.makers[name]
            wrong = [i for i in indices if not 0 <= i < len(roots)]
            if wrong:
                raise ValueError(
                    f"The layer {name!r} has {len(roots)} units, counted from 0. "
                    f"Received: indices {wrong}"
                )
            removed[roots[list(indices)]] = True
        if emptied := self.emptied(removed):
            raise ValueError(
                "A layer must keep at least one unit, and an operation that cuts units "
                "one of each part. Received: all units of "
                f"{', '.join(emptied)}"
            )
        allowed = self.nothing_removed()
        for group in self.groups:
            allowed[group.roots] = True
        if (removed & ~allowed).any():
            blocked = [
                p for p, r in self.makers.items() if (removed & ~allowed)[r].any()
            ]
            reasons = {b.layer: b.reason for b in self.barriers}
            raise ValueError(
                "These units cannot be pruned: "
                + "; ".join(f"{p}: {reasons.get(p, 'barred')}" for p in blocked)
                + f". Received: units of {', '.join(blocked)}"
            )
        return removed

    def emptied(self, removed: np.ndarray) -> list[str]:
        """List the producers, and the operations that cut units, left without any.

        Args:
            removed: Array of shape `(labels,)`, bool, indexed by unit.

        Returns:
            Names of producers, and paths of operations with a part that is empty.
        """
        known = [*self.makers.items(), *self._parts]
        return list(dict.fromkeys(n for n, roots in known if removed[roots].all()))

    def indices(self, removed: np.ndarray) -> dict[str, list[int]]:
        """Translate units of the graph into unit indices of the layers."""
        found = {p: np.flatnonzero(removed[r]).tolist() for p, r in self.makers.items()}
        return {path: indices for path, indices in found.items() if indices}

    def unit_counts(self) -> dict[str, int]:
        """Count the units that each layer produces, by path."""
        return {name: len(roots) for name, roots in self.makers.items()}

    @checked(layer=Text("the name of a layer"))
    def explain(self, layer: str) -> str:
        """Explain what becomes of a layer's units.

        Args:
            layer: Path of a layer that produces units or that no rule covers, or the
                name of one kind of units.

        Returns:
            One paragraph: the group and its members, or the barrier's reason.

        Raises:
            ValueError: If there is no such layer.
        """
        names = [n for n, path in self._producer_paths.items() if path == layer]
        if not names and layer not in {barrier.layer for barrier in self.barriers}:
            self.nameable.require(layer)
        return "\n".join(self._explain(name) for name in names or [layer])

    def _explain(self, layer: str) -> str:
        lines = []
        for group in self.groups:
            if layer in group.makers:
                consumers = ", ".join(dict.fromkeys(m.path for m in group.consumers))
                norms = ", ".join(group.approximate)
                lines.append(
                    f"{layer}: {group.num_units} units may be pruned; produced by "
                    f"{', '.join(group.makers)}; consumed by {consumers or 'nothing'}"
                    + (f"; approximate, because of {norms}." if norms else ".")
                )
        for barrier in self.barriers:
            if barrier.layer == layer:
                count = barrier.units
                which = f"{count} units are unprunable: " if count else ""
                lines.append(f"{layer}: {which}{barrier.reason}.")
        return "\n".join(lines)
