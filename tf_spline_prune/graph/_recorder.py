"""`Recorder`: what the rules write down while the graph is walked."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tf_spline_prune.compat import Call
from tf_spline_prune.errors import RuleError
from tf_spline_prune.graph._facts import (
    Edit,
    Labels,
    Meeting,
    Opaque,
    Rescale,
    Role,
    TensorAxes,
    WeightFact,
    Work,
)

_UNSAID: Any = object()


class Recorder:
    """Record units, ties, barriers and weights, from which `solve` makes groups.

    A *label* is an integer that names one unit of one layer. Ties say that two labels
    are the same unit of the network; barriers that a unit is unprunable. Rules for
    users' own layers write into the same recorder; see `register_rule`.

    Args:
        shapes: For each layer's path the shapes of its weights by name.
        approximate: Whether units under a normalisation over units may be pruned.
        standing: Which of several axes that units are laid out over stands for them:
            -1 for the last, as the dimensions of all heads; 0 for the first, as the
            heads of an attention, and so on. Defaults to `-1`.
    """

    def __init__(
        self,
        shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
        approximate: bool,
        standing: int = -1,
    ) -> None:
        self.standing = standing
        # Of units that are laid out over several axes those that stand for them, and
        # over how many.
        self.spread: list[tuple[Labels, int]] = []
        self.parts: list[tuple[str, Labels]] = []
        self.weights: dict[tuple[str, str], WeightFact] = {}
        self.edits: list[Edit] = []
        self.rescales: dict[tuple[str, str], Rescale] = {}
        self.work: list[Work] = []
        self.opaque: list[Opaque] = []
        self.mixings: list[Meeting] = []
        self.contractions: list[Meeting] = []
        self.makers: dict[str, tuple[str, Labels]] = {}
        self._shapes = shapes
        self._approximate = approximate
        self._count = 0
        self._ties: list[tuple[Labels, Labels]] = []
        self._bars: list[tuple[Labels, str]] = []
        # For each entry of a config the units that it depends on, by call.
        self._edited: dict[tuple[str, str], dict[str, list[Labels]]] = {}
        # Where the weights and config of a layer inside a layer are found.
        self._names, self._keys = "", ""
        self._times: int | None = 1
        self._rows: tuple[Labels, ...] = ()
        self._shift = 0

    def fresh(self, size: int) -> Labels:
        """Return labels of `size` new units."""
        self._count += size
        return np.arange(self._count - size, self._count)

    def units(self, call: Call, size: int, part: str = "") -> Labels:
        """Return labels of the units that a layer produces, the same for all its uses.

        Args:
            call: A call of the layer.
            size: How many.
            part: The kind of unit, where a layer makes several kinds. Defaults to `""`.

        Returns:
            Their labels.
        """
        name = f"{call.path}/{part}" if part else call.path
        if name not in self.makers:
            self.makers[name] = (call.path, self.fresh(size))
        return self.makers[name][1]

    def read(self, value: TensorAxes, axis: int, call: Call) -> Labels:
        """Return the labels of an axis that a layer consumes by position."""
        labels = value.labels[axis]
        if labels is None:
            size = value.shape[axis]
            if size is None:
                raise ValueError(f"{call.path} consumes an axis of unknown size.")
            labels = self.fresh(size)
            self.bar(labels, f"{call.path} consumes positions that are not units")
        return labels

    def tie(self, first: Labels, second: Labels) -> None:
        """Record that two arrays of labels name the same units, entry by entry."""
        if first.size != second.size:
            raise ValueError(
                f"{first.size} units cannot be the same as {second.size} units."
            )
        if first is not second:
            self._ties.append((first.ravel(), second.ravel()))

    def meet(self, call: Call, met: Sequence[Labels | None]) -> Labels | None:
        """Record that the axes of several tensors meet in a call, entry by entry.

        Args:
            call: The call.
            met: For each tensor its labels, or `None` where it holds no units.

        Returns:
            The labels of the axis in the result.
        """
        known = [labels for labels in met if labels is not None]
        for labels in known[1:]:
            self.tie(known[0], labels)
        if known and len(known) < len(met):
            self.bar(known[0], f"{call.path} joins them with values that are not units")
        return known[0] if known else None

    def tie_groups(self, labels: Labels, groups: int) -> None:
        """Record that units of equal place in groups of equal size are one unit."""
        by_group = labels.reshape(groups, -1)
        self.tie(np.repeat(by_group[:1], groups, axis=0), by_group)

    def bar(self, labels: Labels, reason: str) -> None:
        """Record that units are unprunable, and why."""
        self._bars.append((labels.ravel(), reason))

    def bar_tensor(self, value: TensorAxes, reason: str) -> None:
        """Record that all units of a tensor are unprunable, and why."""
        for labels in value.labels:
            if labels is not None:
                self.bar(labels, reason)

    def bar_space(self, value: TensorAxes, channel: int, call: Call) -> None:
        """Record that units on other axes than the channels' are unprunable.

        A layer that moves along an axis, or pools over it, mixes its positions.
        """
        for axis in value.labelled:
            labels = value.labels[axis]
            if axis != channel and labels is not None:
                self.bar(labels, f"{call.path} mixes positions along these units")

    def mix(self, call: Call, values: Sequence[TensorAxes], axis: int) -> None:
        """Record that a call normalises over the units on an axis of its first input.

        They must stay, unless approximations were asked for.
        """
        labels = values[0].labels[axis]
        if labels is None:
            return
        if self._approximate:
            self.mixings.append(Meeting(call.name, 0, axis + self._shift, labels))
        else:
            self.bar(
                labels,
                f"{call.path} ({call.kind}) normalises over them; `approximate=True` "
                "allows pruning them",
            )

    def contract(
        self, call: Call, first: tuple[int, int, Labels], second: Labels
    ) -> None:
        """Record that a call multiplies and sums the units of two inputs.

        Args:
            call: The call.
            first: Index of one input, its axis, and the labels there.
            second: Labels of the other input, of the same length.
        """
        self.tie(first[2], second)
        which, axis, labels = first
        self.contractions.append(Meeting(call.name, which, axis + self._shift, labels))

    def weight(
        self,
        call: Call,
        name: str,
        axes: Sequence[Labels | None],
        roles: Sequence[Role | None],
        uses: int | None = _UNSAID,
        rows: Sequence[Labels] = (),
        optional: bool = False,
    ) -> None:
        """Record whose units the axes of a weight hold, and how often it is used.

        A layer that is used several times holds the same units in every use.

        Args:
            call: A call of the layer.
            name: Name of the weight.
            axes: For each axis of the weight the labels of its units, or `None`.
            roles: For each axis its role, or `None`.
            uses: Multiply-accumulates of each entry for one input of the model: at how
                many positions a kernel is used, see `positions`; 0 for what is added,
                scales or is looked up; `None` where a size is open. Must be said.
            rows: Labels of further axes at each of whose positions it is used. Defaults
                to `()`.
            optional: Whether some layers of the kind lack the weight, such as those
                with `use_bias=False`; of these nothing is said then. Defaults to
                `False`.

        Raises:
            RuleError: If `uses` is left out, the layer has no weight of this name,
                or one of another shape.
        """
        shape = self.shape(call, name)
        if shape is None:
            if not optional:
                self._refuse_name(call, name)
            return
        if uses is _UNSAID:
            raise RuleError(
                f"The rule of {call.kind} does not say how the weight {name!r} of "
                f"{call.path!r} is used, so what it costs is not known. Give `uses=`: "
                "how often each entry is multiplied for one input, such as "
                "`tsp.graph.positions(shape, [last])` for a kernel on the last axis; "
                "0 if it is added, scales or is looked up."
            )
        self._check_axes(call, name, shape, axes, roles)
        name = self._names + name
        uses = self._repeated(uses)
        key = (call.path, name)
        if key in self.weights:
            known = self.weights[key]
            for old, new in zip(known.axes, axes, strict=True):
                if old is not None and new is not None:
                    self.tie(old, new)
            uses = None if uses is None or known.uses is None else uses + known.uses
            axes, roles = known.axes, known.roles
        self.weights[key] = WeightFact(
            call.path,
            name,
            shape,
            tuple(axes),
            tuple(roles),
            uses,
            (*rows, *self._rows),
        )

    def shape(self, call: Call, name: str) -> tuple[int, ...] | None:
        """Return the shape of a layer's weight, or `None` if it has no such one."""
        return self._shapes.get(call.path, {}).get(self._names + name)

    def _refuse_name(self, call: Call, name: str) -> None:
        held = [n for n in self._shapes.get(call.path, {}) if n.startswith(self._names)]
        names = [held_name.removeprefix(self._names) for held_name in held]
        raise RuleError(
            f"The rule of {call.kind} speaks of a weight that {call.path!r} does not "
            f"have. Expected: one of {names}; where some layers of the kind lack it, "
            f"`optional=True`. Received: {name!r}"
        )

    @staticmethod
    def _check_axes(
        call: Call,
        name: str,
        shape: tuple[int, ...],
        axes: Sequence[Labels | None],
        roles: Sequence[Role | None],
    ) -> None:
        sizes = [None if labels is None else len(labels) for labels in axes]
        fits = len(sizes) == len(roles) == len(shape)
        if not fits or any(
            said not in (None, size) for said, size in zip(sizes, shape, strict=True)
        ):
            raise RuleError(
                f"The rule of {call.kind} does not fit the weight {name!r} of "
                f"{call.path!r}. Expected: labels (or None) and a role (or None) for "
                f"each axis of the shape {shape}. Received: labels of sizes {sizes}, "
                f"roles {tuple(roles)}"
            )

    def _repeated(self, uses: int | None) -> int | None:
        """Return how often something is done by all calls of the layer around."""
        return None if uses is None or self._times is None else uses * self._times

    def vector(
        self, call: Call, name: str, labels: Labels, optional: bool = False
    ) -> None:
        """Record that a weight holds one entry per unit on its last axis, as a bias.

        It is added, or scales; that counts no multiply-accumulates.

        Args:
            call: A call of the layer.
            name: Name of the weight.
            labels: The units.
            optional: Whether some layers of the kind lack the weight. Defaults to
                `False`.

        Raises:
            RuleError: If the layer has no weight of this name, or one of another
                size.
        """
        rank = len(self.shape(call, name) or (0,))
        axes = (*[None] * (rank - 1), labels)
        roles: list[Role | None] = [*[None] * (rank - 1), "channel"]
        self.weight(call, name, axes, roles, 0, optional=optional)

    def edit(
        self,
        call: Call,
        key: str,
        labels: Labels,
        change: Callable[..., Any],
    ) -> None:
        """Record that an entry of the layer's config depends on units; see `Edit`.

        A layer that is used several times has one config, so that all uses lose the
        same.

        Args:
            call: A call of the layer.
            key: Key of the entry; of an operation also the name of an argument.
            labels: The units.
            change: Gives the new entry, called as `change(old, keep=keep)`.
        """
        key = self._keys + key
        uses = self._edited.setdefault((call.path, key), {})
        place = len(uses.setdefault(call.name, []))
        uses[call.name].append(labels)
        first = next(iter(uses.values()))
        if first is uses[call.name]:
            self.edits.append(Edit(call.path, key, labels, change))
        elif place < len(first) and len(first[place]) == len(labels):
            self.tie(first[place], labels)

    def part(self, call: Call, labels: Labels) -> None:
        """Record units that an operation cuts out: of these too some must stay."""
        self.parts.append((call.path, labels))

    def resize(
        self, call: Call, key: str, labels: Labels, index: int | None = None
    ) -> None:
        """Record that an entry of the layer's config counts units.

        Args:
            call: A call of the layer.
            key: Key of the entry.
            labels: The units that it counts.
            index: Position in the entry where it is a list; -1 and `None` there mean
                that Keras counts by itself. Defaults to `None`.
        """
        self.edit(call, key, labels, functools.partial(counted, index=index))

    def slice(self, call: Call, key: str, labels: Labels) -> None:
        """Record that an entry of the layer's config may hold one number per unit."""
        self.edit(call, key, labels, cut)

    def rescale(
        self,
        call: Call,
        name: str,
        labels: Labels,
        exponent: float,
        optional: bool = False,
    ) -> None:
        """Record that a weight makes up for a number of units.

        Args:
            call: A call of the layer.
            name: Name of the weight.
            labels: Labels of the units that are counted.
            exponent: The weight is multiplied by (units kept / units) to this power.
            optional: Whether some layers of the kind lack the weight. Defaults to
                `False`.
        """
        if self.shape(call, name) is not None:  # once for all calls of the layer
            key = call.path, self._names + name
            self.rescales.setdefault(key, Rescale(*key, labels, exponent))
        elif not optional:
            self._refuse_name(call, name)

    def multiply(self, call: Call, uses: int | None, rows: Sequence[Labels]) -> None:
        """Count multiply-accumulates between tensors; see `Work`."""
        rows = (*rows, *self._rows)
        self.work.append(Work(call.path, self._repeated(uses), rows))

    def unseen(self, call: Call) -> None:
        """Record that nothing is known of a call, so that its cost must be traced."""
        self.opaque.append(Opaque(call, self._times, self._rows))

    @contextlib.contextmanager
    def within(
        self,
        names: str,
        keys: str,
        times: int | None = 1,
        rows: Sequence[Labels] = (),
        shift: int = 0,
    ) -> Iterator[None]:
        """Record what follows for a layer that another layer holds.

        Args:
            names: What its weights' names begin with in the outer layer.
            keys: What leads to its config in the outer layer's.
            times: How often the outer layer calls it; `None` if that is open. Defaults
                to `1`.
            rows: Labels of axes of units, at each of which it is called as well.
                Defaults to `()`.
            shift: How many axes more the outer layer's tensors have. Defaults to `0`.
        """
        outer = self._names, self._keys, self._times, self._rows, self._shift
        both = None not in (times, outer[2])
        product = times * outer[2] if both else None  # type: ignore[operator]
        self._names, self._keys = outer[0] + names, outer[1] + keys
        self._times = product
        self._rows, self._shift = (*outer[3], *rows), outer[4] + shift
        try:
            yield
        finally:
            self._names, self._keys, self._times, self._rows, self._shift = outer

    def solve(
        self, uses: Mapping[str, int] | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Compute which labels name the same unit, and which units are unprunable.

        Args:
            uses: How often each layer is used, by path. Defaults to `None`, once each.

        Returns:
            Array of shape `(labels,)`, the unit of each label (its smallest
            label), and the reason for each unit that must stay.
        """
        for (path, _), edited in self._edited.items():
            if self._shapes.get(path):  # weights have the same units in every use
                continue
            sizes = [list(map(len, found)) for found in edited.values()]
            alike = all(size == sizes[0] for size in sizes)
            if not alike or len(sizes) < (uses or {}).get(path, 1):
                for labels in itertools.chain(*edited.values()):
                    self.bar(labels, f"{path} is used again, on other units or none")
        root = joined(self._count, self._ties)
        reasons: dict[int, str] = {}
        for labels, reason in self._bars:
            for unit in np.unique(root[labels]).tolist():
                reasons.setdefault(unit, reason)
        return root, reasons


def counted(old: Any, keep: np.ndarray, index: int | None = None) -> Any:
    """Count the units that are left.

    Args:
        old: The entry, a number or a list of numbers.
        keep: Array of shape `(units,)`, bool.
        index: Position of the number in a list; -1 and `None` there mean that
            Keras counts by itself, and stay.

    Returns:
        The new entry.
    """
    kept = int(keep.sum())
    if index is None:
        return kept
    sizes = list(old)
    if sizes[index] not in (None, -1):
        sizes[index] = kept
    return tuple(sizes)


def cut(old: Any, keep: np.ndarray) -> Any:
    """Leave out the numbers of units that are gone, where there is one per unit."""
    numbers = np.asarray(old)
    if old is None or numbers.shape[-1:] != keep.shape:
        return old
    return numbers[..., keep].tolist()


def joined(count: int, ties: Sequence[tuple[Labels, Labels]]) -> np.ndarray:
    """Join labels that are tied, directly or by a chain of ties.

    Args:
        count: Number of labels.
        ties: Pairs of arrays of labels, tied entry by entry.

    Returns:
        Array of shape `(count,)`: for each label the smallest label that it is
        joined with.
    """
    if not ties:
        return np.arange(count)
    first = np.concatenate([a for a, _ in ties])
    second = np.concatenate([b for _, b in ties])
    links = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    _, component = connected_components(links, directed=False)
    _, smallest = np.unique(component, return_index=True)
    return np.asarray(smallest[component])
