"""A stream in another basis: how it is chosen, and what that makes of the weights.

Written in a basis, a stream `x` becomes `x M`, where `M` of shape `(d, k)` has
orthonormal columns. What writes `W` writes `W M`. Normalised vectors `z` become vectors
`y` with `z = y T`, where `T` holds the gain and the offset; what reads by `W` reads by
`T W`. Nothing else changes: the model is that in which every normalisation looks at
the part of the stream that lies in the basis.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Call,
    Ends,
    Graph,
    Tensor,
    Values,
    call_layer,
)
from tf_spline_prune.graph import ChannelGraph, Member
from tf_spline_prune.pruning.width._looking import Seen, orthogonal_to_ones
from tf_spline_prune.pruning.width._norms import Norm
from tf_spline_prune.pruning.width._streams import Stream

Arrays = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Basis:
    """The basis in which a stream is written, and what stays of its size.

    Attributes:
        stream: The stream.
        matrix: `M`, of shape `(d, k)`.
        energy: Which part of the normalised squares lies in it.
    """

    stream: Stream
    matrix: np.ndarray
    energy: float

    @property
    def size(self) -> int:
        """The number of units that stay."""
        return self.matrix.shape[1]

    @property
    def projection(self) -> np.ndarray:
        """Array of shape `(d, d)`: leaves of a stream what lies in the basis."""
        return np.asarray(self.matrix @ self.matrix.T)

    def back(self, norm: Norm | None) -> np.ndarray:
        """Return `T`: from what stands behind a normalisation to what stood there.

        Where a mean is taken off, what is normalised is orthogonal to the vector of
        ones, so this direction is free, and holds the offset.

        Args:
            norm: The normalisation; `None` for the stream itself.

        Returns:
            Array of shape `(k, d)`.
        """
        back = self.matrix.T
        if norm is None:
            return back
        if norm.centred:
            back = back - back.mean(axis=0)
        scale = np.sqrt(self.energy * self.stream.size / self.size)
        found = scale * back * norm.gain
        if norm.shift is not None:
            found = found + norm.offset / self.size
        return np.asarray(found)


def basis_of(seen: Seen, size: int) -> Basis:
    """Choose the basis of largest moments, of so many vectors.

    Where a mean is taken off, one of them is the vector of ones: of the narrow stream
    the same mean is taken off then.
    """
    stream = seen.stream
    if not stream.centred:
        matrix = seen.principal(size)
        return Basis(stream, matrix, seen.energy(matrix))
    inside = seen.principal(size - 1)
    ones = np.full((stream.size, size), 1 / np.sqrt(stream.size * size))
    matrix = inside @ orthogonal_to_ones(size).T + ones
    return Basis(stream, matrix, seen.energy(inside))


def rotated(graph: ChannelGraph, basis: Basis, changed: Arrays) -> None:
    """Write a stream in a basis: its first units hold it, the others nothing.

    Args:
        graph: The model's channel graph.
        basis: The basis.
        changed: The weights that change, by path and name; those of this stream are
            put there.
    """
    stream = basis.stream
    by_place = {
        member: basis.back(_norm_behind(stream, member)) for member in stream.reads
    }
    norms = stream.norm_paths
    for member in stream.group.members:
        if member.path in norms:
            continue
        array = _held(graph, changed, member.path, member.name)
        back = by_place.get(member)
        turned = _along(array, member, basis.matrix.T if back is None else back)
        changed[member.path][member.name] = turned
    for norm in stream.norms.values():
        path, ones = norm.call.path, np.ones(stream.size)
        if norm.scale is not None:
            held = _held(graph, changed, path, norm.scale)
            changed[path][norm.scale] = (ones * norm.one).astype(held.dtype)
        if norm.shift is not None:
            held = _held(graph, changed, path, norm.shift)
            changed[path][norm.shift] = ones.astype(held.dtype)


def _norm_behind(stream: Stream, member: Member) -> Norm | None:
    key = stream.behind[stream.reads[member]]
    return None if key is None else stream.norms[key]


def _held(graph: ChannelGraph, changed: Arrays, path: str, name: str) -> np.ndarray:
    arrays = changed.setdefault(path, {})
    return arrays.get(name, graph.arrays[path][name])


def _along(array: np.ndarray, member: Member, matrix: np.ndarray) -> np.ndarray:
    """Multiply the units on an axis of an array by a matrix, of shape `(k, d)`."""
    rows = np.moveaxis(array, member.axis, 0)
    found = np.zeros_like(rows)
    for places in member.positions.T:
        turned = np.tensordot(matrix, rows[places].astype("float64"), 1)
        found[places[: len(matrix)]] = turned.astype(array.dtype)
    return np.ascontiguousarray(np.moveaxis(found, 0, member.axis))


def epsilons(basis: Basis) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield for each normalisation what its config says of a narrower stream.

    Of fewer entries the mean of the squares is larger.
    """
    for norm in basis.stream.norms.values():
        by = basis.stream.size / basis.size
        yield norm.call.path, {"epsilon": norm.epsilon * by}


def run_in_bases(
    graph: Graph, bases: Sequence[Basis], inputs: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Run a model in which only what lies in the bases is read of its streams.

    Args:
        graph: The model, traced.
        bases: The bases, of different streams.
        inputs: One tensor per input.

    Returns:
        As `run_to_ends`.
    """
    values: Values = dict(zip(graph.input_tensors, inputs, strict=True))
    ends = Ends(graph)

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = call_layer(call, args, kwargs)
        for basis in bases:
            if call.key in basis.stream.norms:  # a part of a vector is shorter
                offset = _like(given, basis.stream.norms[call.key].offset)
                return (given - offset) * float(np.sqrt(basis.energy)) + offset
        return given

    for call in graph.calls:
        seen = dict(values)
        for basis in bases:
            for tensor in _looked_at(basis.stream, call):
                whole, part = values[tensor], basis.projection
                rows = keras.ops.reshape(whole, (-1, len(part)))
                left = keras.ops.matmul(rows, _like(whole, part))
                seen[tensor] = keras.ops.reshape(left, keras.ops.shape(whole))
        ends.run(call, seen, apply)
        values.update({t: value for t, value in seen.items() if t not in values})
    return [values[tensor] for tensor in graph.output_tensors], ends.of(values)


def _looked_at(stream: Stream, call: Call) -> list[Tensor]:
    """List the tensors of a stream that a call normalises, or reads as they are."""
    if call.key in stream.norms:
        return list(call.inputs)
    paths = {member.path for member in stream.reads}
    if call.path not in paths:
        return []
    return [t for t in call.inputs if t in stream.behind and stream.behind[t] is None]


def _like(tensor: Any, array: np.ndarray) -> Any:
    """Make a tensor of an array, of the dtype of another tensor."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.ops.convert_to_tensor(array, dtype)
