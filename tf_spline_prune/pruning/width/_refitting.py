"""What reads and writes a rotated stream is solved for what it gave before."""

from collections.abc import Sequence

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    read_weights,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.recovery._least_squares import (
    Product,
    solve_in_order,
)
from tf_spline_prune.pruning.recovery._linear_views import LinearView, linear_views
from tf_spline_prune.pruning.recovery._output_tail import output_tail
from tf_spline_prune.pruning.recovery._recording import Recorded, Recording
from tf_spline_prune.pruning.width._rotation import Basis

_RIDGE = 1e-3
_RELU_STEPS = 2


def refit_rotated(
    graph: ChannelGraph,
    bases: Sequence[Basis],
    cut: Graph,
    data: Calibration,
    seed: int = 0,
) -> None:
    """Solve the layers of a model with narrow streams, in place.

    What reads a stream is solved for what it gave; what writes one, for what it gave as
    the basis shows it, and for what the stream lacks besides.

    Args:
        graph: The original model's channel graph.
        bases: The bases in which its streams are written in the narrow model.
        cut: The narrow model, traced; its weights change.
        data: The data.
        seed: Seed of the draw.
    """
    recording = Recording(graph, data, seed=seed)
    for basis in bases:
        for path in basis.stream.norm_paths:  # whose gains stand in their readers
            recording.of[path] = []
    recording.run()
    writers = {
        (member.path, member.name): basis
        for basis in bases
        for member in basis.stream.group.producers
    }
    readers = {member.path for basis in bases for member in basis.stream.reads}
    products = []
    for key in graph.graph.branch_by_branch:
        call = graph.graph.call_of[key]
        if key != recording.last[call.path]:
            continue
        views = linear_views(cut.call_of[key])
        for old, view in zip(recording.of[call.path], views, strict=False):
            if old is None:
                continue
            if written := writers.get((call.path, view.kernels[-1])):
                _turn(old, written.matrix)
            lost = call.path in readers
            products.append(_product(cut, cut.call_of[key], old, view, lost))
    solve_in_order(products, cut, recording, _RIDGE, _RELU_STEPS)


def _turn(old: Recorded, matrix: np.ndarray) -> None:
    """Write what was recorded of a writer in a basis."""
    for there in old.seen:
        there.targets = (there.targets @ matrix).astype(there.targets.dtype)
        if there.addends is not None:
            there.addends = (there.addends @ matrix).astype(there.addends.dtype)


def _product(
    cut: Graph, call: Call, old: Recorded, view: LinearView, lost: bool
) -> Product:
    """Find a product in the narrow model."""
    matrix = view.arrangement.matrix(view.joined(read_weights(call.layer)))
    outputs = len(matrix) * matrix.shape[-1]
    tail = output_tail(cut, call, view, outputs)
    held = old.seen[0].states
    states = np.arange(0 if held is None else held.shape[1])
    kept = np.ones(outputs, bool)
    return Product(old, view, cut.uses[call.path], kept, states, 1.0, tail, lost)
