"""What the normalisations of a stream give on data: principal axes, and importance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    Values,
    Watcher,
    numpy_of,
    watch,
)
from tf_spline_prune.pruning.width._streams import Stream

_BATCH = 32


@dataclass(eq=False)
class Seen:
    """What was seen of a stream.

    Attributes:
        stream: The stream.
        moments: Array of shape `(d, d)`: the sum of `n n^T` over all normalised vectors
            `n`, before gains and offsets.
        squares: By the key of a normalisation, array of shape `(d,)`: the sum over
            inputs of the squared mean, over positions, of what it gives in size.
    """

    stream: Stream
    moments: np.ndarray
    squares: dict[str, np.ndarray]

    @property
    def importance(self) -> np.ndarray:
        """Array of shape `(d,)`: how large each unit is behind the normalisations."""
        return np.asarray(sum(np.sqrt(one) for one in self.squares.values()))

    def energy(self, basis: np.ndarray) -> float:
        """Return which part of the squares lies in a basis, of shape `(d, k)`."""
        inside = np.einsum("dk,de,ek->", basis, self.moments, basis, optimize=True)
        return float(inside / np.trace(self.moments))

    def principal(self, count: int) -> np.ndarray:
        """Return the directions of largest moments, as columns.

        Where a mean is taken off they are orthogonal to the vector of ones.
        """
        size = len(self.moments)
        inside = np.eye(size)
        if self.stream.centred:
            inside = orthogonal_to_ones(size)
        _, axes = np.linalg.eigh(inside.T @ self.moments @ inside)
        return np.asarray(inside @ axes[:, ::-1][:, :count])


def orthogonal_to_ones(size: int) -> np.ndarray:
    """Return an orthonormal basis of the vectors of sum zero, `(size, size - 1)`."""
    mirror = np.ones(size) / np.sqrt(size)
    mirror[0] += 1.0
    # The reflection that takes the first axis to the ones takes the others there.
    basis = np.eye(size) - np.outer(mirror, mirror) / mirror[0]
    return basis[:, 1:]


def look_at(graph: Graph, streams: Sequence[Stream], data: Calibration) -> list[Seen]:
    """Run data through a model, and look at what its streams are.

    Args:
        graph: The model, traced.
        streams: The streams.
        data: The data.

    Returns:
        What was seen, one per stream.
    """
    found = []
    watchers = []
    for stream in streams:
        seen = Seen(stream, np.zeros((stream.size, stream.size)), {})

        def visit(call: Call, values: Values, seen: Seen = seen) -> None:
            norm = seen.stream.norms[call.key]
            x = norm.normalised(numpy_of(values, call.inputs[0]))
            rows = x.reshape(-1, x.shape[-1])
            seen.moments += rows.T @ rows
            given = np.abs(x * norm.gain + norm.offset)
            mean = given.reshape(len(given), -1, given.shape[-1]).mean(axis=1)
            squares = np.square(mean).sum(axis=0)
            seen.squares[call.key] = seen.squares.get(call.key, 0.0) + squares

        watchers.append(Watcher(list(stream.norms), visit))
        found.append(seen)
    watch(graph, data, _BATCH, watchers)
    return found
