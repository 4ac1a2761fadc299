"""`Stack`: groups whose numbers of units are said together by a config."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tf_spline_prune.compat import (
    Blueprint,
    Graph,
    Node,
    Place,
    SizeEntry,
    difference_of,
    is_own_class,
    size_entries,
    sketch,
)
from tf_spline_prune.graph._facts import Group

Axis = tuple[str, str, int]
"""A weight's axis: path of the layer, name of the weight, number of the axis."""


@dataclass(frozen=True)
class Stack:
    """Groups that lose the same fraction of their units, or none.

    The blocks of a backbone are such groups, for its config says one width for all.

    Attributes:
        groups: The names of the groups.
        levels: In how many equal steps they fall to nothing.
        entries: The entries of the config that say their sizes, with their values;
            none where they go together by agreement only.
    """

    groups: tuple[str, ...]
    levels: int
    entries: tuple[tuple[Place, int], ...] = ()


@dataclass(frozen=True)
class Sized:
    """What the config of a model, or of a layer made of layers, can say.

    Attributes:
        kind: Name of its class.
        inside: The names of all groups with units in weights of the owner.
        stacks: The groups whose sizes it says; `None` if its class cannot be made from
            its config.
    """

    kind: str
    inside: tuple[str, ...]
    stacks: tuple[Stack, ...] | None

    def values(self, left: Mapping[str, tuple[int, int]]) -> dict[Place, int] | str:
        """Return the entries that say the sizes of what is left, or why none do.

        Args:
            left: For the name of each group how many units it has, and how many are
                left; groups that are not named stay.
        """
        if self.stacks is None:
            return f"{self.kind} cannot be made again from its config"
        values: dict[Place, int] = {}
        unsaid = {n for n in self.inside if n in left and left[n][0] != left[n][1]}
        for stack in self.stacks:
            unsaid.difference_update(stack.groups)
            fractions = {Fraction(*left[name][::-1]) for name in stack.groups}
            if len(fractions) > 1:
                return (
                    f"the config of {self.kind} has one size for "
                    f"{' and '.join(stack.groups[:2])}, which lose different parts of "
                    'their units; with `scope="uniform"` they lose the same'
                )
            (fraction,) = fractions
            for place, value in stack.entries:
                if (value * fraction).denominator > 1:
                    return (
                        f"{name_of(place)}={value} in the config of {self.kind} cannot "
                        f"say that {fraction} of the units are left"
                    )
                if fraction != 1:
                    values[place] = int(value * fraction)
        if unsaid:
            return f"the config of {self.kind} says no size of {min(unsaid)}"
        return values


def name_of(place: Place) -> str:
    """Write the place of an entry of a config as text."""
    return ".".join(str(key) for key in place if key != "config")


def isomorphic(group: Group) -> tuple[Any, ...]:
    """Return what groups of the same structure share."""
    return tuple(sorted((m.role, m.name, m.positions.shape) for m in group.members))


def alike(groups: Sequence[Group]) -> tuple[Stack, ...]:
    """Put groups of the same structure into stacks, by agreement only."""
    found: dict[Any, list[Group]] = {}
    for group in groups:
        found.setdefault(isomorphic(group), []).append(group)
    return tuple(_stack(some, ()) for some in found.values())


class Sizes:
    """What the configs of a model and of the layers in it say of numbers of units.

    Args:
        graph: The model's channel graph.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._found: dict[str, Sized] = {}
        self._groups: Sequence[Group] = graph.groups
        owners = graph.owners(self._groups)
        # For each axis of a weight the numbers of the groups whose units it holds, and
        # -1 for units that must stay.
        self._held: dict[Axis, set[int]] = {
            (*key, axis): set(owners[graph.units_of(labels)].tolist())
            for key, fact in graph.weights.items()
            for axis, labels in enumerate(fact.axes)
            if labels is not None
        }
        self._places = {
            id(variable): (path, name)
            for path in graph.arrays
            for name, variable in graph.arrays.variables(path).items()
        }

    def of(self, node: Node | None) -> Sized:
        """Return what the config of a layer made of layers says, or of the model.

        Args:
            node: A use of the layer; `None` is the model.
        """
        path = node.path if node else ""
        if path not in self._found:
            found = self._read(node)
            if node is None and found.stacks:
                true = tuple(stack for stack in found.stacks if self._is_true(stack))
                found = replace(found, stacks=true)
            self._found[path] = found
        return self._found[path]

    def _read(self, node: Node | None) -> Sized:
        """Find which groups a config sizes, and together with which."""
        groups = self._groups
        owner = node.layer if node else self._graph.model
        keys = [self._places.get(id(weight)) for weight in owner.weights]
        axes_of: dict[int, set[Axis]] = {}
        for axis, numbers in self._held.items():
            if axis[:2] in keys:
                for number in numbers - {-1}:
                    axes_of.setdefault(number, set()).add(axis)
        inside = tuple(groups[number].name for number in sorted(axes_of))
        entries = size_entries(owner, {groups[n].num_units for n in axes_of}, node)
        if entries is None:
            return Sized(type(owner).__name__, inside, None)
        usable: list[tuple[SizeEntry, set[Axis], set[int]]] = []
        for entry in entries:
            axes = {(*(keys[at] or ("", "")), axis) for at, axis in entry.axes}
            some = set().union(*(self._held.get(axis, {-1}) for axis in axes))
            if -1 not in some:
                usable.append((entry, axes, some))
        stacks = []
        for together in _joined([some for _, _, some in usable]):
            mine = [(entry, axes) for entry, axes, some in usable if some & together]
            covered = set().union(*(axes for _, axes in mine))
            if all(axes_of[number] <= covered for number in together):
                said = [(entry.place, entry.value) for entry, _ in mine]
                members = [groups[number] for number in sorted(together)]
                stacks.append(_stack(members, said))
        return Sized(type(owner).__name__, inside, tuple(stacks))

    def _is_true(self, stack: Stack) -> bool:
        """Return whether other numbers in the config change the sizes and nothing else.

        With a size may change what hangs on it: a factor, a constant.
        """
        graph = self._graph
        removed = graph.nothing_removed()
        half = stack.levels // 2 or 1
        for group in graph.groups:
            if group.name in stack.groups:
                removed[group.roots[: half * group.num_units // stack.levels]] = True
        values = Sized("", (), (stack,)).values(graph.left(removed))
        if isinstance(values, str):
            return False
        try:
            made = graph.traced(sketch(graph.model, values))
        except Exception:  # whatever a user's class raises
            return False
        return difference_of(graph.graph, graph.changes(removed), made, True) is None


def closed_in(source: Graph, looked_at: Graph) -> dict[str, Node]:
    """Find the layers made of layers that can only be made by their class.

    One can come out as plain layers only if the calls in it are known at any size, and
    are those that were looked at.

    Args:
        source: The graph of the model as it is.
        looked_at: The one at known sizes, in which more layers are traced.

    Returns:
        How they are called, by path.
    """
    found: dict[str, Node] = {}
    shut = [f"{call.path}/" for call in source.calls if call.why]

    def inside(graph: Graph, node: Node) -> set[tuple[str, str]]:
        return {
            (call.path, call.kind)
            for call in graph.calls
            if call.path.startswith(f"{node.path}/")
            and not any(f"{call.path}/".startswith(path) for path in shut)
        }

    def visit(blueprint: Blueprint) -> None:
        for node in blueprint.nodes:
            inner = node.inner
            if inner is None:
                if node.why:
                    found[node.path] = node
            elif not inner.flat or inside(source, node) == inside(looked_at, node):
                visit(inner)
            else:
                found[node.path] = node

    if looked_at is not source:
        visit(source.blueprint)
    return found


def unsaid_of(graph: Any) -> list[tuple[str, Group, str]]:
    """Find the groups in layers made of layers whose numbers no config says.

    Args:
        graph: The channel graph of a model with layers that can only be made by their
            class.

    Returns:
        The path of each such layer, a group in it, and why that must stay.
    """
    known = {group.name: group for group in graph.groups}
    said: set[str] = set()
    if is_own_class(graph.model):
        said = {n for one in graph.sizes.of(None).stacks or () for n in one.groups}
    found: list[tuple[str, Group, str]] = []
    for node in graph.closed.values():
        sized = graph.sizes.of(node)
        here = {name for stack in sized.stacks or () for name in stack.groups}
        why = f"the config of {sized.kind} says no number of them alone"
        if sized.stacks is None:
            why = f"{sized.kind} cannot be made again from its config"
        because = node.why or "its calls hang on the sizes"
        for name in sorted(set(sized.inside) - said - here):
            reason = f"{node.path} is only made by its class ({because}), and {why}"
            found.append((node.path, known[name], reason))
    return found


def _stack(groups: Sequence[Group], entries: Sequence[tuple[Place, int]]) -> Stack:
    sizes = [*(group.num_units for group in groups), *(value for _, value in entries)]
    names = tuple(group.name for group in groups)
    return Stack(names, math.gcd(*sizes), tuple(entries))


def _joined(sets: Collection[set[int]]) -> list[set[int]]:
    """Join sets that share something."""
    found: list[set[int]] = []
    for some in sets:
        apart = [one for one in found if not one & some]
        found = [*apart, set(some).union(*(one for one in found if one & some))]
    return found
