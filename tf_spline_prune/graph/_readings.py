"""`readings`: where the units of a group are read, tensor by tensor."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Values,
    arguments_inside,
    as_numbers,
    counted,
    numpy_of,
    parts_of,
)
from tf_spline_prune.graph._channel_graph import ChannelGraph
from tf_spline_prune.graph._facts import Group, Labels, Member, WeightFact
from tf_spline_prune.graph.rules._dense import letters_of


@dataclass(frozen=True, eq=False)
class Reading:
    """One axis of what a call, or a part of its layer, reads of a group's units.

    Attributes:
        path: Path of the layer that reads.
        call: Name of the call.
        input: Index of the input; of a part, of the input whose positions it has.
        axis: The axis.
        positions: Array of shape `(units, m)`: the positions of each unit.
        part: The part of the layer that reads, as in `parts_of`: the projection out of
            attention's heads. Defaults to `""`, the layer itself.
        beside: Further axes that the layer sums over together with this one, such as
            the dimensions of heads. Defaults to `()`.
        along: The axes of the kernel that these meet. Defaults to `()`.
        wide: How many positions these have together. Defaults to `1`.
    """

    path: str
    call: str
    input: int
    axis: int
    positions: np.ndarray
    part: str = ""
    beside: tuple[int, ...] = ()
    along: tuple[int, ...] = ()
    wide: int = 1

    @property
    def each(self) -> int:
        """How many positions each unit has along the axis."""
        return self.positions.shape[1]

    @property
    def width(self) -> int:
        """How many entries are looked at together: those of all units."""
        units, each = self.positions.shape
        return units * each * self.wide if self.in_blocks else units

    @property
    def in_blocks(self) -> bool:
        """Whether a unit is a block of entries that have weights of their own.

        Else its positions are looked at one by one, as those of an image.
        """
        return bool(self.part or self.beside)

    def is_through(self, member: Member) -> bool:
        """Return whether a weight is what multiplies what is read here."""
        named = not self.part or member.name == f"{self.part}/kernel"
        return member.path == self.path and named

    def places(self, tensor: np.ndarray) -> int:
        """Count the places of what is read, over all examples."""
        return tensor.size // (tensor.shape[self.axis] * self.wide)

    def moved(self, tensor: np.ndarray) -> np.ndarray:
        """Arrange what is read by example, place, position on the axis and beside it.

        Args:
            tensor: What is read.

        Returns:
            Array of shape `(n, places, size of the axis, sizes beside it)`.
        """
        axes = (self.axis, *self.beside)
        moved = np.moveaxis(tensor, axes, range(-len(axes), 0))
        size = tensor.shape[self.axis]
        return moved.reshape(len(tensor), -1, size, self.wide)

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

    def blocks(self, kernel: np.ndarray, member: Member) -> np.ndarray:
        """Arrange a kernel that reads the units as blocks by these.

        Args:
            kernel: The weight.
            member: Where the units lie in it.

        Returns:
            Array of shape `(units * entries of a block, outputs)`, float64.
        """
        axes = (member.axis, *self.along)
        moved = np.moveaxis(kernel.astype("float64"), axes, range(len(axes)))
        outputs = int(np.prod(moved.shape[len(axes) :], initial=1))
        return moved[member.positions].reshape(-1, outputs)


def readings(graph: ChannelGraph, group: Group, inside: bool = False) -> list[Reading]:
    """Find where the units of a group are read.

    Args:
        graph: The channel graph.
        group: A group of it.
        inside: Whether parts of layers count as well. Defaults to `False`.

    Returns:
        One entry for each axis at which they enter a layer, or a part of one, that
        reads them.
    """
    consumers = {member.path for member in group.consumers}
    place = _places(graph, group)
    found: dict[tuple[str, int, int, str], Reading] = {}
    for call in graph.graph.calls:
        if call.path not in consumers:
            continue
        entered = False
        for index, value in enumerate(graph.inputs_of(call)):
            for axis in value.labelled:
                labels = value.labels[axis]
                if labels is None:
                    continue
                positions = _positions(graph, group, place, labels)
                if not positions.size:
                    continue
                one = Reading(call.path, call.name, index, axis, positions)
                if call.kind == "EinsumDense":
                    one = _among(
                        one, *_letters(call), graph.weights[call.path, "kernel"]
                    )
                found.setdefault((call.name, index, axis, ""), one)
                entered = True
        if inside and not entered:
            within = [
                _inside(graph, call, m) for m in group.consumers if m.path == call.path
            ]
            for reading in filter(None, within):
                found.setdefault((call.name, 0, reading.axis, reading.part), reading)
    return list(found.values())


def _places(graph: ChannelGraph, group: Group) -> np.ndarray:
    """Return for each unit of a graph its place in a group, or -1."""
    place = graph.owners([group])
    place[group.roots] = np.arange(group.num_units)
    return place


def _positions(
    graph: ChannelGraph, group: Group, place: np.ndarray, labels: Labels
) -> np.ndarray:
    """Return the positions of each unit on an axis, shape `(units, m)`."""
    owner = place[graph.units_of(labels)].ravel()
    at = np.flatnonzero(owner >= 0)
    order = at[np.argsort(owner[at], kind="stable")]
    return np.asarray(order.reshape(group.num_units, -1))


def _letters(call: Call) -> tuple[str, str, str]:
    """Spell the equation of an EinsumDense as it is used."""
    ranks = (len(call.input_shapes[0]), len(call.output_shapes[0]))
    return letters_of(call.layer.equation, *ranks)


def _among(
    reading: Reading, taken: str, kernel: str, made: str, fact: WeightFact
) -> Reading:
    """Add to a reading what an equation sums over besides its axis."""
    letter = taken[reading.axis]
    summed = [c for c in kernel if c in taken and c not in made]
    others = [c for c in summed if c != letter and letter in summed]
    along = tuple(map(kernel.index, others))
    return replace(
        reading,
        beside=tuple(map(taken.index, others)),
        along=along,
        wide=math.prod(fact.shape[axis] for axis in along),
    )


def _inside(graph: ChannelGraph, call: Call, member: Member) -> Reading | None:
    """Find where a part of a call's layer reads units; `None` if it does not."""
    part, _, weight = member.name.rpartition("/")
    if part != "attention_output" or weight != "kernel":
        return None
    taken, kernel, made = letters_of(parts_of(call.layer)[part].equation, 0, 0)
    letter = kernel[member.axis]
    if letter not in taken:
        return None
    one = Reading(call.path, call.name, 0, taken.index(letter), member.positions, part)
    fact = graph.weights[member.path, member.name]
    return _among(one, taken, kernel, made, fact)


@dataclass(frozen=True, eq=False)
class Pairing:
    """A call in which units of two tensors are multiplied, and summed over.

    Attributes:
        call: Name of the call.
        letters: The axes of both tensors, a letter each.
        unit: The letter of the axis that is summed over.
        positions: Array of shape `(units, m)`: the positions of each unit on it.
        centred: Whether the second tensor matters but for its mean over the axes that
            it alone has, as keys do to a softmax.
        inside: Whether the tensors are queries and keys inside the layer.
    """

    call: str
    letters: tuple[str, str]
    unit: str
    positions: np.ndarray
    centred: bool
    inside: bool

    def squares(self, call: Call, values: Values) -> np.ndarray:
        """Sum the squares of the products of each unit over all pairs in a batch.

        Args:
            call: The call.
            values: The tensors before it.

        Returns:
            Array of shape `(units,)`, float64.
        """
        if self.inside:
            given = call.arguments([values[tensor] for tensor in call.inputs])
            key = given["value"] if given.get("key") is None else given["key"]
            parts = parts_of(call.layer)
            first, second = (
                as_numbers(parts[name](one))
                for name, one in (("query", given["query"]), ("key", key))
            )
            if first.shape[2] != second.shape[2]:  # several queries share a key
                second = np.repeat(second, first.shape[2] // second.shape[2], axis=2)
        else:
            first, second = (numpy_of(values, tensor) for tensor in call.inputs[:2])
        one, two = self.letters
        weights = [
            np.ones([1] * tensor.ndim) if count is None else count
            for tensor in (first, second)
            for count in [_counts_like(tensor, values)]
        ]
        if self.centred:
            alone = tuple(axis for axis, c in enumerate(two) if c not in one)
            wide = np.broadcast_to(weights[1], second.shape)
            total = np.maximum(wide.sum(axis=alone, keepdims=True), 1)
            second = second - (second * wide).sum(axis=alone, keepdims=True) / total
        first, second = first * weights[0], second * weights[1]
        shared = "".join(c for c in one if c in two)
        sums = [
            np.einsum(f"{spelt}->{shared}", np.square(tensor, dtype="float64"))
            for spelt, tensor in ((one, first), (two, second))
        ]
        found = np.einsum(f"{shared},{shared}->{self.unit}", *sums)
        return np.asarray(found[self.positions].sum(axis=1))


def _counts_like(tensor: np.ndarray, values: Values) -> np.ndarray | None:
    """Find which positions count, in a shape that fits a tensor; `None` if all do."""
    rows = math.prod(tensor.shape[:2])
    counts = counted(values, tensor, rows)
    shape = (*tensor.shape[:2], *[1] * (tensor.ndim - 2))
    return None if counts is None else counts.reshape(shape).astype("float64")


def pairings(graph: ChannelGraph, group: Group) -> list[Pairing] | None:
    """Find where units of a group meet units in products of tensors.

    Args:
        graph: The channel graph.
        group: A group of it.

    Returns:
        One entry for each; `None` if there is one that is not understood.
    """
    found: list[Pairing | None] = []
    place = _places(graph, group)
    calls = {call.name: call for call in graph.graph.calls}
    for meeting in graph.contractions:
        positions = _positions(graph, group, place, meeting.labels)
        if positions.size:
            found.append(_pairing(calls[meeting.call], meeting.axis, positions))
    for call in graph.graph.calls:
        for member in group.consumers:
            if member.path != call.path or not _meets_inside(call, member):
                continue
            plain = all(len(shape) == 3 for shape in call.input_shapes)
            one = Pairing(
                call.name, ("btnh", "bsnh"), "h", member.positions, True, True
            )
            found.append(one if plain else None)
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


def _meets_inside(call: Call, member: Member) -> bool:
    """Return whether a layer's keys are what reads units: those of its queries."""
    if member.name != "key/kernel" or not call.kind.endswith("Attention"):
        return False
    taken, kernel, _ = letters_of(parts_of(call.layer)["key"].equation, 0, 0)
    return kernel[member.axis] not in taken


def _pairing(call: Call, axis: int, positions: np.ndarray) -> Pairing | None:
    """Read a product of two tensors; `None` if it is not one that is known."""
    if call.kind == "op:dotproductattention":
        letters, centred = ("btnh", "bsnh"), True
    elif call.kind == "op:einsum" and len(call.inputs) == 2:
        given = call.arguments([None, None])
        equation = str(given.get("subscripts", given.get("equation", "")))
        terms = equation.replace(" ", "").partition("->")[0].split(",")
        if len(terms) != 2 or not all(term.isalpha() for term in terms):
            return None
        letters, centred = (terms[0], terms[1]), False
    else:
        return None
    unit = letters[0][axis]
    if unit not in letters[1]:
        return None
    return Pairing(call.name, letters, unit, positions, centred, inside=False)


def by_call(found: Iterable[Reading]) -> dict[str, list[Reading]]:
    """List readings by the name of the call that reads."""
    listed: dict[str, list[Reading]] = {}
    for reading in found:
        listed.setdefault(reading.call, []).append(reading)
    return listed


def read_by(
    found: Sequence[Reading], call: Call, values: Values
) -> Iterator[tuple[Reading, np.ndarray]]:
    """Yield what is read at a call, tensor by tensor; parts are tapped once.

    Args:
        found: Readings at this call.
        call: The call.
        values: The tensors before it.

    Yields:
        Each reading, and the tensor.
    """
    tapped: dict[str, np.ndarray] = {}
    for reading in found:
        if not reading.part:
            yield reading, numpy_of(values, call.inputs[reading.input])
            continue
        if reading.part not in tapped:
            (tensor, *_), _ = arguments_inside(call, values, reading.part)
            tapped[reading.part] = as_numbers(tensor)
        yield reading, tapped[reading.part]
