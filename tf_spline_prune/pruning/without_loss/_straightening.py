"""`Straightening`: layers made smaller, or one, where their units are affine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    coarsest_dtype,
    predict,
    rebuild,
    trace,
    warn_of_lost_training,
    without_calls,
)
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.recovery._least_squares import refit
from tf_spline_prune.pruning.recovery._recording import Recording
from tf_spline_prune.pruning.without_loss._affine_units import (
    Evidence,
    activations_of,
    pieces_of,
    stage_of,
)
from tf_spline_prune.pruning.without_loss._bounds import Bounds
from tf_spline_prune.pruning.without_loss._composing import LAYERS, Composed, composed
from tf_spline_prune.pruning.without_loss._rank import (
    Changes,
    Kept,
    Replacement,
    replacement_of,
    sole_stage,
    span_by_bounds,
    write,
)

_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
# What one step may take of it, and on how many of the data that is looked at.
_PART, _COMPARED = 0.25, 256
# How strongly consumers are held to the lines nearest to the activations.
_RIDGE = 1e-6


class Straightening:
    """Replaces affine units by as many as they have rank, and layers in a row by one.

    Args:
        points: Inputs to compare on where all is certified.
        data: Calibration data, if there are any.
        tolerance: At which fraction of the data units may be otherwise; `None` where
            only bounds count.
        seed: Seed of what is drawn of the data.

    Attributes:
        certified: Whether all that was done holds on all of the box.
        exact: Whether all that was done holds at least at all of the data.
        kept: For groups with affine units that stay, a sentence that says why.
    """

    def __init__(
        self,
        points: list[np.ndarray],
        data: Calibration | None,
        tolerance: float | None,
        seed: int,
    ) -> None:
        self.points = points
        self.data = None if tolerance is None else data
        self.tolerance = tolerance or 0.0
        self.seed = seed
        self.certified = self.exact = True
        self.kept: dict[str, str] = {}
        self._refused: set[tuple[type, str]] = set()
        self._singly = False

    def step(
        self, graph: ChannelGraph, bounds: Mapping[tuple[str, int], Bounds]
    ) -> Any | None:
        """Build a model in which some layers are smaller, or fewer.

        Args:
            graph: The model.
            bounds: The bounds of what goes into each call, by the call's name and the
                input's index.

        Returns:
            The new model; `None` if there is nothing more to do.
        """
        evidence = Evidence(graph, bounds, self.data, self.tolerance)
        evidence.look_at(
            stage_of(graph.graph, call)
            for call in graph.graph.calls
            if call.kind in LAYERS
        )
        found = self._replacements(graph, evidence)
        widths = {
            one.stage.call.path: len(one.affine.found) - int(one.gone.sum())
            for one in found
        }
        rows = composed(graph, evidence, widths)
        while True:
            small = None
            together = self._allowed(rows)
            if together:
                small = self._composed(graph, together)
                if self._accepts(graph, small, together):
                    return small
                continue
            apart = self._allowed(_apart(found))
            if not apart:
                return None
            small = self._replaced(graph, evidence, apart)
            if small is not None and self._accepts(graph, small, apart):
                return small

    def _allowed(self, found: Sequence[Any]) -> list[Any]:
        """Take those that were not tried in vain, one at a time after a failure."""
        allowed = [one for one in found if (type(one), one.name) not in self._refused]
        return allowed[:1] if self._singly else allowed

    def _refuse(self, one: Composed | Replacement, reason: str) -> None:
        self._refused.add((type(one), one.name))
        self._keep(one.name, reason)

    def _keep(self, name: str, reason: object) -> None:
        self.kept[name] = f"Affine units of {name} are kept: {reason}"

    def _accepts(self, graph: ChannelGraph, small: Any, done: Sequence[Any]) -> bool:
        """Compare what was built with what it was built from, and remember its kind."""
        exact = all(one.exact for one in done)
        certified = all(one.certified for one in done)
        if exact:
            inputs = self.points
            if not certified and self.data is not None:
                inputs = self.data.drawn(_COMPARED, self.seed).inputs
            error, most = error_of(graph.graph.model, small, inputs)
            if not error <= _PART * most:  # large numbers that cancel each other
                if len(done) == 1:
                    self._refuse(done[0], "rounding would show")
                self._singly = True
                return False
        self.exact &= exact
        self.certified &= certified
        return True

    def _replacements(
        self, graph: ChannelGraph, evidence: Evidence
    ) -> list[Replacement]:
        """Find what can be replaced, from the last layer to the first."""
        barred = graph.nothing_removed()
        for meeting in (*graph.contractions, *graph.mixings):
            barred[graph.units_of(meeting.labels)] = True
        found = []
        for group in reversed(graph.groups):
            if barred[group.roots].any() or not group.consumers:
                continue
            try:
                stage = sole_stage(graph, group)
                made = replacement_of(graph, group, evidence, stage)
            except Kept as reason:
                if _is_affine(graph, group, evidence):
                    self._keep(group.name, reason)
                continue
            if made is not None:
                found.append(made)
        return found

    def _composed(self, graph: ChannelGraph, chosen: Sequence[Composed]) -> Any:
        """Build the model in which layers in a row are the last of them."""
        gone = [name for one in chosen for name in one.gone]
        changed: Changes = {}
        for one in chosen:
            for path, arrays in one.arrays.items():
                changed.setdefault(path, {}).update(arrays)
        small = rebuild(
            without_calls(graph.graph, dict.fromkeys(gone, 0)),
            {one.path: one.config for one in chosen},
            lambda path: {**graph.arrays[path], **changed.get(path, {})},
        )
        warn_of_lost_training(graph.graph.model, small)
        return small

    def _replaced(
        self, graph: ChannelGraph, evidence: Evidence, chosen: list[Replacement]
    ) -> Any | None:
        """Build the model with fewer affine units; refuses those for which it cannot.

        Those left are in `chosen` afterwards.
        """
        exact = all(one.exact for one in chosen)
        changed: Changes = {}
        removed = graph.nothing_removed()
        spans = self._spans(evidence, chosen)
        for one, span in list(zip(chosen, spans, strict=True)):
            try:
                # Where consumers are solved, they find the constants themselves.
                changes = write(graph, one, span, fold=exact)
            except Kept as reason:
                self._refuse(one, str(reason))
                chosen.remove(one)
                continue
            for path, arrays in changes.items():
                changed.setdefault(path, {}).update(arrays)
            removed[one.group.roots[one.gone]] = True
        if not chosen:
            return None
        small = build_pruned(graph, removed, changed)
        if not exact and self.data is not None:
            cut = trace(small)
            recording = Recording(graph, self.data, seed=self.seed)
            refit(graph, cut, removed, recording, ridge=_RIDGE)
        return small

    def _spans(self, evidence: Evidence, chosen: Sequence[Replacement]) -> list[Bounds]:
        """Bound the linear parts of new units, by the box or on the data."""
        by_data = [
            one
            for one in chosen
            if not one.certified and one.stage.activation is not None
        ]
        measured = evidence.ranges(
            [(one.stage, one.columns, one.of_inputs) for one in by_data]
        )
        ends = {}
        for one, (low, high) in zip(by_data, measured, strict=True):
            above = one.offset @ one.of_inputs
            ends[one.name] = Bounds(low - above, high - above)
        return [
            ends[one.name] if one.name in ends else span_by_bounds(evidence, one)
            for one in chosen
        ]


def _apart(found: Sequence[Replacement]) -> list[Replacement]:
    """Choose replacements of one kind that share no layer, the exact ones first."""
    exact = any(one.exact for one in found)
    chosen: list[Replacement] = []
    for one in found:
        touches = any(one.touched & other.touched for other in chosen)
        if one.exact == exact and not touches:
            chosen.append(one)
    return chosen


def _is_affine(graph: ChannelGraph, group: Group, evidence: Evidence) -> bool:
    """Return whether an activation is certified affine for some units of a group."""
    for member in group.producers:
        for call in graph.graph.uses[member.path] if member.name == "kernel" else ():
            stage = stage_of(graph.graph, call) if call.kind in LAYERS else None
            if stage is not None and stage.activation is call:
                if evidence.of(stage).certified[member.positions].any():
                    return True
    owner = graph.owners([group])
    for call in activations_of(graph.graph):
        value = graph.inputs_of(call)[0]
        for axis, labels in value.kept.items():
            units = np.flatnonzero(owner[graph.units_of(labels)] == 0)
            bounds = evidence.bounds[call.name, 0]
            others = [one for one in range(bounds.low.ndim) if one != axis - 1]
            ends = bounds.joined(others, keepdims=False)
            size = int(value.shape[axis] or 0)
            low, high = (np.broadcast_to(e, size)[units] for e in (ends.low, ends.high))
            for piece in pieces_of(call):
                line = np.isinf([piece.low, piece.high]).all()
                if not line and ((low >= piece.low) & (high <= piece.high)).any():
                    return True
    return False


def error_of(model: Any, small: Any, inputs: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference of two models, and how much of it rounding is.

    Args:
        model: A model.
        small: One that should compute the same.
        inputs: One array per input.

    Returns:
        The largest difference of an output, relative to the largest output, or to one;
        and what may be.
    """
    pairs = zip(predict(model, inputs), predict(small, inputs), strict=True)
    errors = [
        float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))
        for one, other in pairs
    ]
    return float(np.max(errors)), _TOLERANCE.get(coarsest_dtype(model), 5e-2)
