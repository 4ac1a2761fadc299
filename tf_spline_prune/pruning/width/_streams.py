"""The streams of a model: who writes and reads them, and what runs over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tf_spline_prune.compat import Call, Tensor, table_given
from tf_spline_prune.graph import ChannelGraph, Group, Member
from tf_spline_prune.graph._unit_path import is_linear
from tf_spline_prune.pruning.width._norms import Norm, read_norm

# Layers that are linear in what they read, and in what they write if they have no
# activation.
_DENSE = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")
_ATTENTION = ("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention")
_TABLES = ("Embedding", "ReversibleEmbedding")
# What adds vectors of the stream, moves them about or leaves them out; whatever basis
# they are written in.
_COMMUTING = frozenset(
    (
        *("Add", "Average", "Concatenate", "Dropout", "Flatten", "Identity", "Permute"),
        *("RepeatVector", "Reshape", "StochasticDepth", "Subtract"),
        *(f"AveragePooling{rank}D" for rank in (1, 2, 3)),
        *(f"Cropping{rank}D" for rank in (1, 2, 3)),
        *(f"GlobalAveragePooling{rank}D" for rank in (1, 2, 3)),
        *(f"ZeroPadding{rank}D" for rank in (1, 2, 3)),
        *(
            "op:add",
            "op:broadcastto",
            "op:cast",
            "op:concatenate",
            "op:converttotensor",
        ),
        *("op:copy", "op:expanddims", "op:getitem", "op:identity", "op:mean"),
        *("op:moveaxis", "op:negative", "op:repeat", "op:reshape", "op:split"),
        *("op:squeeze", "op:stack", "op:stopgradient", "op:subtract", "op:sum"),
        *("op:swapaxes", "op:take", "op:transpose"),
    )
)
_SCALING = ("Multiply", "op:multiply", "op:divide", "op:truedivide")


@dataclass(frozen=True, eq=False)
class Stream:
    """Coupled units that normalisations run over.

    Attributes:
        group: The units.
        norms: The normalisations, by the key of their call.
        behind: For each tensor on the stream the key of the normalisation that it
            comes out of; `None` for one that no gain lies on.
        reads: For each place in which a weight reads the stream, the tensor.
        reason: Why the stream cannot be rotated; empty if it can.
    """

    group: Group
    norms: Mapping[str, Norm]
    behind: Mapping[Tensor, str | None]
    reads: Mapping[Member, Tensor]
    reason: str = ""

    @property
    def size(self) -> int:
        """The number of units."""
        return self.group.num_units

    @property
    def centred(self) -> bool:
        """Whether a normalisation takes the mean off."""
        return any(norm.centred for norm in self.norms.values())

    @property
    def norm_paths(self) -> set[str]:
        """The paths of the normalisations."""
        return {norm.call.path for norm in self.norms.values()}


def streams_of(graph: ChannelGraph) -> list[Stream]:
    """Find the streams of a model that can be made narrower.

    What writes a stream has one entry per unit: dimensions of heads that are turned in
    pairs, over which a normalisation may run too, are none.

    Args:
        graph: The model's channel graph, with `approximate=True`.

    Returns:
        The streams, in the order of computation.
    """
    streams = []
    for group in graph.groups:
        owner = graph.owners([group])
        keys = {
            meeting.call
            for meeting in graph.mixings
            if (owner[graph.units_of(meeting.labels)] == 0).any()
        }
        calls = [call for call in graph.graph.calls if call.name in keys]
        alone = all(member.positions.shape[1] == 1 for member in group.producers)
        if calls and alone:
            streams.append(_Walk(graph, group, calls).stream())
    return streams


class _Unfit(Exception):
    """Says why a stream cannot be rotated."""


@dataclass(eq=False)
class _Walk:
    """Follows a group of units through a model, from call to call."""

    graph: ChannelGraph
    group: Group
    calls: list[Call]
    norms: dict[str, Norm] = field(default_factory=dict)
    behind: dict[Tensor, str | None] = field(default_factory=dict)
    reads: dict[Member, Tensor] = field(default_factory=dict)

    def stream(self) -> Stream:
        """Read the stream, as far as it can be rotated."""
        self.owner = self.graph.owners([self.group])
        self.known = {call.key for call in self.calls}
        self.members: dict[str, list[Member]] = {}
        for member in self.group.members:
            self.members.setdefault(member.path, []).append(member)
        reasons = []
        for call in self.calls:  # all of them, for what is measured of them
            norm = read_norm(call, self.graph.arrays.get(call.path, {}))
            if isinstance(norm, str):
                reasons.append(norm)
                continue
            self.norms[call.key] = norm
            if norm.shift is not None and not norm.centred:
                reasons.append(f"{call.path} adds an offset, and takes no mean off")
        try:
            for call in () if reasons else self.graph.graph.calls:
                self._follow(call)
        except _Unfit as unfit:
            reasons.append(str(unfit))
        return Stream(
            self.group, self.norms, self.behind, self.reads, "".join(reasons[:1])
        )

    def _follow(self, call: Call) -> None:
        taken = [tensor for tensor in call.inputs if self._on(tensor)]
        made = [tensor for tensor in call.outputs if self._on(tensor)]
        if not taken and not made:
            return
        if call.key in self.known:
            (tensor,) = taken
            if before := self.behind[tensor]:
                raise _Unfit(
                    f"{call.path} normalises what {before} has normalised, so a gain "
                    "lies on the stream itself"
                )
            behind: str | None = call.key
        elif call.path in self.members:
            self._use(call, bool(taken), bool(made))
            behind = None
        else:
            behind = self._hand_on(call, taken)
        self.behind.update(dict.fromkeys(made, behind))

    def _on(self, tensor: Tensor) -> bool:
        """Return whether a tensor holds the units; they must stand in their order."""
        held = self.graph.axes[tensor].kept
        found = []
        for labels in held.values():
            units = self.graph.units_of(labels)
            if (self.owner[units] == 0).any():
                found.append(units)
        if not found:
            return False
        (units, *others) = found
        ordered = np.resize(self.group.roots, len(units))
        if others or not np.array_equal(units, ordered):
            maker = self.graph.graph.producer_of[tensor].path
            raise _Unfit(f"{maker} mixes the order of the stream's units")
        return True

    def _use(self, call: Call, reads: bool, writes: bool) -> None:
        """Look at a layer whose weights hold the units."""
        members = self.members[call.path]
        roles = {member.role for member in members}
        if call.kind in _TABLES:
            if reads and not writes and call.layer.tie_weights:
                raise _Unfit(
                    f"{call.path} is tied: its table also makes the words, and the "
                    "gain of the last normalisation cannot be folded into it"
                )
        elif call.kind not in (*_DENSE, *_ATTENTION) and not _is_table(call):
            raise _Unfit(f"{call.path} ({call.kind}) treats the entries apart")
        elif getattr(call.layer, "groups", 1) != 1:
            raise _Unfit(f"{call.path} reads the stream in groups")
        if writes and "out" not in roles:
            raise _Unfit(f"{call.path} ({call.kind}) treats the entries apart")
        if writes and call.kind in _DENSE and not is_linear(call):
            raise _Unfit(f"the activation of {call.path} lies on the stream")
        for member in members:
            if member.role == "channel" and not member.name.endswith("bias"):
                raise _Unfit(f"{call.path} scales the entries apart")
            if member.role == "in" and reads:
                tensor = self._read_by(call, member.name)
                known = self.reads.setdefault(member, tensor)
                if self.behind[known] != self.behind[tensor]:
                    raise _Unfit(f"{call.path} is used behind different normalisations")

    def _read_by(self, call: Call, name: str) -> Tensor:
        """Find the tensor that a weight of a layer reads."""
        if call.kind not in _ATTENTION:
            return call.inputs[0]
        given = call.arguments(call.inputs)
        part = name.partition("/")[0]
        found = given.get(part, given["query"])
        tensor: Tensor = given["value"] if found is None else found
        return tensor

    def _hand_on(self, call: Call, taken: Sequence[Tensor]) -> str | None:
        """Look at a call without weights on the stream."""
        behind = {self.behind[tensor] for tensor in taken}
        if len(behind) > 1:
            names = [name or "the stream" for name in behind]
            raise _Unfit(
                f"{call.path} joins what comes out of {' and '.join(sorted(names))}, "
                "so a gain lies on the stream itself"
            )
        if call.kind in _SCALING:
            shapes = [
                shape
                for tensor, shape in zip(call.inputs, call.input_shapes, strict=True)
                if tensor not in taken
            ]
            one_each = [*call.arrays(), *shapes]
            fits = len(taken) == 1 and all(s[-1:] in ((), (1,)) for s in one_each)
        else:
            fits = call.kind in _COMMUTING
        if not fits:
            raise _Unfit(f"{call.path} ({call.kind}) treats the entries apart")
        return behind.pop()


def _is_table(call: Call) -> bool:
    """Return whether a user's layer gives out its one weight, whatever goes in."""
    own = call.kind.startswith("custom:") and len(call.inputs) == 1
    return own and table_given(call.layer, call.input_shapes[0]) is not None
