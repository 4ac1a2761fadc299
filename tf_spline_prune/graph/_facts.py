"""What is known of a model: whose units lie on which axes, and what that means."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tf_spline_prune.compat import Call

Shape = tuple[int | None, ...]
Labels = np.ndarray


@dataclass(frozen=True, eq=False)
class TensorAxes:
    """A tensor, reduced to the units that each of its axes holds.

    Attributes:
        shape: Shape with the batch axis first; `None` where a size is open.
        labels: For each axis an array of shape `(size,)`, the label of the unit
            at each position, or `None` where the axis holds no units (batch,
            space, time).
        batch: The batch axis. Defaults to `0`.
    """

    shape: Shape
    labels: tuple[Labels | None, ...]
    batch: int = 0

    @property
    def rank(self) -> int:
        """Number of axes, the batch axis included."""
        return len(self.shape)

    @property
    def labelled(self) -> list[int]:
        """The axes that hold units."""
        return [axis for axis, labels in enumerate(self.labels) if labels is not None]

    @property
    def kept(self) -> dict[int, Labels]:
        """The labels by axis, where there are any."""
        return {a: labels for a, labels in enumerate(self.labels) if labels is not None}

    def with_labels(self, shape: Shape, changes: dict[int, Labels]) -> "TensorAxes":
        """Describe a tensor of another shape that holds units on the axes given."""
        return TensorAxes(shape, tuple(changes.get(axis) for axis in range(len(shape))))


def norm_axis(call: Call, rank: int) -> int:
    """Return the axis that a BatchNormalization works on.

    Args:
        call: A call of a BatchNormalization.
        rank: Rank of its input, the batch axis included.

    Returns:
        The index of the axis, not negative.
    """
    axis = call.layer.axis
    return int(axis[0] if isinstance(axis, (list, tuple)) else axis) % rank


def channel_axis(call: Call, rank: int) -> int:
    """Return the channel axis of a layer with a `data_format`.

    Args:
        call: A call of a layer.
        rank: Rank of its input, the batch axis included.

    Returns:
        The index of the axis, not negative.
    """
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return 1 if first and rank > 2 else rank - 1


def positions(shape: Sequence[int | None], channels: Iterable[int]) -> int | None:
    """Count the positions of a tensor for one input of the model.

    Args:
        shape: Shape of the tensor, the batch axis first.
        channels: The axes that do not count as positions.

    Returns:
        The product of the other sizes, the batch left out; `None` if one is open.
    """
    left_out = {0, *channels}
    sizes = [size for axis, size in enumerate(shape) if axis not in left_out]
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]


# How an axis of a weight relates to units: it makes them, reads them, or holds
# one entry per unit on their way from producer to consumer.
Role = Literal["out", "in", "channel"]


@dataclass(frozen=True, eq=False)
class WeightFact:
    """One weight array: whose units its axes hold, and what it costs.

    Attributes:
        path: Path of the layer.
        name: Name of the weight in the layer.
        shape: Shape of the array.
        axes: For each axis the labels of its units, or `None`.
        roles: For each axis its role, or `None`.
        uses: Multiply-accumulates of each entry for one input of the model, at
            one position of `rows`; `None` where a size is open.
        rows: Labels of further axes that hold units, at each of whose positions the
            weight is used. Defaults to `()`.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    axes: tuple[Labels | None, ...]
    roles: tuple[Role | None, ...]
    uses: int | None
    rows: tuple[Labels, ...] = ()


@dataclass(frozen=True, eq=False)
class Work:
    """Multiply-accumulates between tensors, such as those of attention scores.

    Attributes:
        path: Path of the layer.
        uses: Multiply-accumulates for each combination of units; `None` where a
            size is open.
        rows: Labels of each axis of units that they run over.
    """

    path: str
    uses: int | None
    rows: tuple[Labels, ...]


@dataclass(frozen=True, eq=False)
class Opaque:
    """A call that no rule covers.

    Attributes:
        call: The call.
        times: How often a layer around it makes it; `None` if that is open.
        rows: Labels of axes of units, at each of which it is made as well.
    """

    call: Call
    times: int | None
    rows: tuple[Labels, ...]


@dataclass(frozen=True, eq=False)
class Edit:
    """An entry of a layer's config that depends on which units there are.

    Of an operation it is a setting, or an argument of its call.

    Attributes:
        path: Path of the layer.
        key: Key of the entry, such as `"filters"`; dots lead into entries that
            hold entries: `"layer.config.units"`.
        labels: The units that it depends on.
        change: Called as `change(old, keep=keep)`, with one bool per unit; gives the
            new value of the entry.
    """

    path: str
    key: str
    labels: Labels
    change: Callable[..., Any]

    def apply(self, config: dict[str, Any], keep: np.ndarray) -> None:
        """Change the entry of a config, copying the entries that lead to it.

        Args:
            config: The layer's config; it may leave out what follows from the rest.
            keep: Array of shape `(units,)`, bool.
        """
        *outer, last = self.key.split(".")
        for key in outer:
            if key not in config:
                return
            inner = dict(config[key])
            config[key] = inner
            config = inner
        if last in config:
            config[last] = self.change(config[last], keep=keep)


@dataclass(frozen=True, eq=False)
class Rescale:
    """A weight that makes up for a number of units which the layer divides by.

    Attributes:
        path: Path of the layer.
        name: Name of the weight.
        labels: The units that are counted.
        exponent: The weight is multiplied by `(kept / all) ** exponent`.
    """

    path: str
    name: str
    labels: Labels
    exponent: float


@dataclass(frozen=True, eq=False)
class Meeting:
    """A call in which units meet although no weight consumes them.

    Attributes:
        call: Name of the call.
        input: Index of the input that holds the units.
        axis: The axis of that input.
        labels: Their labels.
    """

    call: str
    input: int
    axis: int
    labels: Labels


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one weight in which a group's units appear.

    Attributes:
        path: Path of the layer.
        name: Name of the weight.
        axis: The axis.
        role: The axis' role.
        positions: Array of shape `(units, m)`: the positions of each unit.
    """

    path: str
    name: str
    axis: int
    role: Role
    positions: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Group:
    """Coupled units: units of several layers that are pruned together.

    Attributes:
        name: Name of the layer that produces the units, the first one if several; a
            further group of the same layer has a number, such as `"conv#1"`, so that no
            two groups of a graph share a name.
        makers: Names of all layers that produce them: paths, with the kind of unit
            where a layer produces several kinds (`"attention/heads"`).
        roots: Array of shape `(units,)`: identities of the units in the graph.
        members: All places in which the units appear.
        approximate: Paths of normalisations over these units, whose statistics change
            when units are pruned; empty unless `approximate=True` was given. Defaults
            to `()`.
    """

    name: str
    makers: tuple[str, ...]
    roots: np.ndarray = field(repr=False)
    members: tuple[Member, ...] = field(repr=False)
    approximate: tuple[str, ...] = ()

    @property
    def num_units(self) -> int:
        """Number of units."""
        return len(self.roots)

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that produce the units."""
        return tuple(m for m in self.members if m.role == "out")

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The members that read the units."""
        return tuple(m for m in self.members if m.role == "in")

    def member(self, path: str, name: str) -> Member | None:
        """Find the units' place in one weight."""
        return next(
            (m for m in self.members if m.path == path and m.name == name), None
        )


@dataclass(frozen=True)
class Barrier:
    """Units that may not be pruned, or a layer whose units are not known.

    Attributes:
        layer: Name of the layer that makes them.
        units: How many of its units; 0 for a layer that no rule covers.
        reason: Why.
    """

    layer: str
    units: int
    reason: str

    def __str__(self) -> str:
        units = f"{self.units} units: " if self.units else ""
        return f"{self.layer}: {units}{self.reason}"
