"""From ties and barriers to groups: which units are pruned together."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from tf_spline_prune.graph._facts import (
    Barrier,
    Group,
    Meeting,
    Member,
    Opaque,
    WeightFact,
    Work,
)


def find_groups(
    makers: Mapping[str, np.ndarray],
    weights: Collection[WeightFact],
    work: Iterable[Work | Opaque],
    mixings: Iterable[Meeting],
    parts: Iterable[np.ndarray],
    root: np.ndarray,
    reasons: Mapping[int, str],
) -> tuple[Group, ...]:
    """Gather the free units that the same layers make and that are used alike.

    Args:
        makers: For the name of each layer that produces units, the units it produces.
        weights: What is known of each weight.
        work: Multiply-accumulates between tensors, and calls that no rule covers.
        mixings: Normalisations over units.
        parts: Labels of the units that operations cut out.
        root: Array of shape `(labels,)`: the unit of each label.
        reasons: The units that must stay.

    Returns:
        The groups, in the order of the layers.
    """
    signature: dict[int, tuple[str, ...]] = {}
    for name, roots in makers.items():
        for unit in dict.fromkeys(roots.tolist()):
            if unit not in reasons:
                signature[unit] = (*signature.get(unit, ()), name)
    places = _places(weights, work, parts, root)
    together: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for unit, names in signature.items():
        together.setdefault((names, int(places[unit])), []).append(unit)
    gathered = [(names, units) for (names, _), units in together.items()]
    index = np.full(len(root), -1)
    owner = np.full(len(root), -1)
    for number, (_, units) in enumerate(gathered):
        index[units] = np.arange(len(units))
        owner[units] = number
    members = _members([len(u) for _, u in gathered], weights, root, index, owner)
    mixed: list[list[str]] = [[] for _ in gathered]
    for mixing in mixings:
        for number in np.unique(owner[root[mixing.labels]]).tolist():
            if number >= 0 and mixing.call not in mixed[number]:
                mixed[number].append(mixing.call)
    taken: dict[str, int] = {}
    groups = []
    for number, (names, units) in enumerate(gathered):
        count = taken.get(names[0], 0)
        taken[names[0]] = count + 1
        name = f"{names[0]}#{count}" if count else names[0]
        groups.append(
            Group(
                name,
                names,
                np.array(units),
                tuple(members[number]),
                tuple(mixed[number]),
            )
        )
    return tuple(groups)


def _places(
    weights: Iterable[WeightFact],
    work: Iterable[Work | Opaque],
    parts: Iterable[np.ndarray],
    root: np.ndarray,
) -> np.ndarray:
    """Number units so that those that lie as often on the same axes have the same.

    Units of one layer may be used unevenly, as by a grouped convolution behind a
    concatenation; a group holds only units that shrink every axis alike, and that
    lie in the same parts.
    """
    numbers = np.zeros(len(root), np.uint64)
    rng = np.random.default_rng(0)  # the numbers mean nothing but "the same"
    axes = [a for fact in weights for a in (*fact.axes, *fact.rows) if a is not None]
    axes += [*(a for one in work for a in one.rows), *parts]
    for key in rng.integers(1, 2**63, len(axes), np.uint64):
        units, counts = np.unique(root[axes.pop()], return_counts=True)
        numbers[units] += key * counts.astype(np.uint64)
    return numbers


def _members(
    sizes: list[int],
    weights: Iterable[WeightFact],
    root: np.ndarray,
    index: np.ndarray,
    owner: np.ndarray,
) -> list[list[Member]]:
    """Find all places of each group's units in the weights."""
    members: list[list[Member]] = [[] for _ in sizes]
    for fact in weights:
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if labels is None or role is None:
                continue
            roots = root[labels]
            for number in np.unique(owner[roots]).tolist():
                if number < 0:
                    continue
                at = np.flatnonzero(owner[roots] == number)
                order = at[np.argsort(index[roots[at]], kind="stable")]
                places = order.reshape(sizes[number], -1)
                members[number].append(Member(fact.path, fact.name, axis, role, places))
    return members


def find_barriers(
    makers: Mapping[str, np.ndarray], reasons: Mapping[int, str]
) -> tuple[Barrier, ...]:
    """List the layers with units that must stay.

    Args:
        makers: For the name of each layer that produces units, the units it produces.
        reasons: The units that must stay, and why.

    Returns:
        One barrier for each layer and reason.
    """
    found = []
    for name, roots in makers.items():
        barred = [unit for unit in roots.tolist() if unit in reasons]
        counts: dict[str, int] = {}
        for unit in barred:
            counts[reasons[unit]] = counts.get(reasons[unit], 0) + 1
        found += [Barrier(name, n, reason) for reason, n in counts.items()]
    return tuple(found)


# Weights of so many entries are not copied into a wider type.
_BIG = 2**24


def rows_of(array: np.ndarray, member: Member) -> np.ndarray:
    """Arrange a weight by units.

    Args:
        array: The weight.
        member: Where the units lie in it.

    Returns:
        Array of shape `(units, d)`.
    """
    if array.size < _BIG or array.dtype != np.float32:
        array = array.astype("float64")
    array = np.moveaxis(array, member.axis, 0)
    places = member.positions
    if places.shape != (len(array), 1) or (np.diff(places[:, 0]) != 1).any():
        array = array[places]
    return array.reshape(len(places), -1)


def sums_of(
    member: Member, of: Callable[..., np.ndarray], *arrays: np.ndarray
) -> np.ndarray:
    """Sum a function of the entries of weights unit by unit, without copies of them.

    Args:
        member: Where the units lie in them.
        of: Takes a block of each, float64; gives what is summed, entry by entry.
        *arrays: Arrays of the weight's shape.

    Returns:
        Array of shape `(units,)`, float64.
    """
    axis, shape = member.axis, arrays[0].shape
    whole = math.prod(shape[:axis]), shape[axis], -1
    blocks = [array.reshape(whole) for array in arrays]
    total = np.zeros(shape[axis])
    step = max(1, _BIG // 16 // max(1, math.prod(shape[axis:])))
    for start in range(0, len(blocks[0]), step):
        some = [block[start : start + step].astype("float64") for block in blocks]
        total += of(*some).sum(axis=(0, 2))
    return np.asarray(total[member.positions].sum(axis=1))
