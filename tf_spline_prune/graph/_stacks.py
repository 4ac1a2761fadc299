"""`Stack`: groups whose numbers of units are said together by a config."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tf_spline_prune.compat import Node, Place, SizeEntry, size_entries
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
                left.
        """
        if self.stacks is None:
            return f"{self.kind} cannot be made again from its config"
        values: dict[Place, int] = {}
        unsaid = {name for name in self.inside if left[name][0] != left[name][1]}
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


def sized_by(
    owner: Any,
    node: Node | None,
    held: Mapping[Axis, set[int]],
    places: Mapping[int, tuple[str, str]],
    groups: Sequence[Group],
) -> Sized:
    """Find which groups the config of a model or layer sizes, and together with which.

    Args:
        owner: The model or layer.
        node: How the layer is called; `None` for the model.
        held: For each axis of a weight the numbers of the groups whose units it holds;
            -1 for units that must stay.
        places: Path and name of each weight, by the identity of its variable.
        groups: The groups that may be pruned.
    """
    keys = [places.get(id(weight)) for weight in owner.weights]
    axes_of: dict[int, set[Axis]] = {}
    for axis, numbers in held.items():
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
        some = set().union(*(held.get(axis, {-1}) for axis in axes))
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
