"""Affine units replaced by as many as the map has rank that they are together.

Between the inputs of their layer and all that consumes them, the affine units `A` of a
layer are one matrix, `W1[:, A] W2[A, :] = L R`. So as many units as that has rank do,
put where their activation is affine too; what they are shifted by for that goes into
the biases of the consumers, or comes back from one unit that is constant.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import Call, Tensor
from tf_spline_prune.graph import ChannelGraph, Group, channel_axis
from tf_spline_prune.pruning.without_loss._affine_units import (
    AffineUnits,
    Evidence,
    Piece,
    Stage,
    stage_of,
)
from tf_spline_prune.pruning.without_loss._bounds import Bounds

Changes = dict[str, dict[str, np.ndarray]]

PRODUCERS = ("Dense", "Conv1D", "Conv2D", "Conv3D")
# They sum what each unit gives times its own weights, whatever the positions.
_CONSUMERS = (*PRODUCERS, "EinsumDense", *(f"Conv{n}DTranspose" for n in (1, 2, 3)))
# They treat all units of a tensor alike, and are linear; a constant stays what it is.
_CONSTANT_KEPT = frozenset(
    "AlphaDropout Concatenate Cropping1D Cropping2D Cropping3D Dropout Flatten "
    "GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalAveragePooling3D Identity Permute Reshape SpatialDropout1D SpatialDropout2D "
    "SpatialDropout3D UpSampling1D UpSampling2D UpSampling3D op:identity".split()
)
# Here the border sees less of a constant than the middle does.
_LINEAR = frozenset(
    "AveragePooling1D AveragePooling2D AveragePooling3D ZeroPadding1D ZeroPadding2D "
    "ZeroPadding3D".split()
)
_NORM_WEIGHTS = {"gamma", "beta", "moving_mean", "moving_variance"}
# Rounding of the weights makes singular values of about this many epsilons.
_ROUNDING = 4.0
# How far new units keep from a knot, relative to the width of their range.
_MARGIN = 1e-3


class Kept(Exception):
    """Raised where affine units cannot be replaced; says why, to follow their name."""


def pads(call: Call) -> bool:
    """Return whether a layer puts zeros around what it is given."""
    layer = call.layer
    whole = getattr(layer, "padding", "valid") == "valid"
    return not whole and set(layer.kernel_size) != {1}


def place_of_constants(graph: ChannelGraph, call: Call) -> tuple[str, str, int] | None:
    """Find the weight that takes up what a constant adds to a layer's output.

    Args:
        graph: The channel graph.
        call: A call of the layer.

    Returns:
        A path, the name of a weight and a sign; `None` where there is none, or where
        padding would see less of the constant.
    """
    plain = call.kind in PRODUCERS and getattr(call.layer, "groups", 1) == 1
    if not plain or pads(call):
        return None
    if "bias" in graph.arrays[call.path]:
        return call.path, "bias", 1
    uses = graph.graph.uses
    norms = stage_of(graph.graph, call).norms
    alone = all(len(uses[one.path]) == 1 for one in (call, *norms[:1]))
    return (norms[0].path, "moving_mean", -1) if norms and alone else None


@dataclass(frozen=True, eq=False)
class Replacement:
    """Affine units of a group, and what takes their place.

    Attributes:
        group: The group.
        stage: The layer that produces it.
        units: Array of shape `(a,)`: the units, indices of the group.
        affine: What the units of the layer are.
        columns: Array of shape `(a,)`: the same units among those of the layer.
        factor: Array of shape `(a,)`: what `x @ kernel` is multiplied by in each.
        offset: Array of shape `(a,)`: what is added before the activation.
        inward: Array of shape `(a, n)`: the linear parts.
        mix: Array of shape `(a, rank)`: the new units, as mixtures of the old ones'
            linear parts.
        rows: Array of shape `(rank, d)`: the consumers' weights for them, one consumer
            beside the other.
        constant: Array of shape `(d,)`: what the old units add besides.
        folds: Whether a constant moves into the consumers, and takes no unit.
        touched: Paths of the layers whose weights may change.
    """

    group: Group
    stage: Stage
    units: np.ndarray
    affine: AffineUnits
    columns: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    inward: np.ndarray
    mix: np.ndarray
    rows: np.ndarray
    constant: np.ndarray
    folds: bool
    touched: set[str]

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.group.name

    @property
    def exact(self) -> bool:
        """Whether the units are affine on all that is known, not only nearly."""
        return bool(self.affine.exact[self.columns].all())

    @property
    def certified(self) -> bool:
        """Whether they are affine on all of the box."""
        return bool(self.affine.certified[self.columns].all())

    @property
    def count(self) -> int:
        """How many units take their place."""
        return len(self.rows) + (not self.folds)

    @property
    def gone(self) -> np.ndarray:
        """Array of shape `(units of the group,)`, bool: those that go."""
        gone = np.zeros(self.group.num_units, bool)
        gone[self.units[self.count :]] = True
        return gone

    @property
    def of_inputs(self) -> np.ndarray:
        """Array of shape `(a, rank)`: the new units by what the activation is given."""
        return np.asarray(self.affine.slope[self.columns, None] * self.mix)

    @property
    def linear(self) -> np.ndarray:
        """Array of shape `(rank, n)`: the linear parts of the new units."""
        return np.asarray(self.mix.T @ self.inward)


def replacement_of(
    graph: ChannelGraph, group: Group, evidence: Evidence, stage: Stage
) -> Replacement | None:
    """Find what takes the place of the affine units of a group.

    Args:
        graph: The channel graph.
        group: A group of it.
        evidence: What is known of the inputs of activations.
        stage: The layer that produces the group, as `sole_stage` gives it.

    Returns:
        The replacement; `None` where it would take as many units.

    Raises:
        Kept: If there are affine units that cannot be replaced.
    """
    made = group.producers[0].positions[:, 0]
    affine = evidence.of(stage)
    units = np.flatnonzero(affine.found[made])
    if len(units) < 2:
        return None
    columns = made[units]
    folds = _folds(graph, group, stage)
    scale, offset = (
        np.broadcast_to(one, len(affine.found))[columns]
        for one in stage.affine(graph.arrays)
    )
    slope = affine.slope[columns]
    inward = graph.rows(group.producers[0])[units].astype("float64")
    inward *= (slope * scale)[:, None]
    outward = np.concatenate([graph.rows(m)[units] for m in group.consumers], axis=1)
    outward = outward.astype("float64")
    widths = _widths(graph, evidence, stage, inward.shape[1])
    dtype = graph.arrays[stage.call.path]["kernel"].dtype
    mix, rows = _factored(inward * widths, outward, _ROUNDING * _epsilon(dtype))
    uses = graph.graph.uses
    calls = [call for member in group.consumers for call in uses[member.path]]
    places = filter(None, (place_of_constants(graph, call) for call in calls))
    found = Replacement(
        group=group,
        stage=stage,
        units=units,
        affine=affine,
        columns=columns,
        factor=slope * scale,
        offset=offset,
        inward=inward,
        mix=mix,
        rows=rows,
        constant=(slope * offset + affine.offset[columns]) @ outward,
        folds=folds,
        touched={*(m.path for m in group.members), *(place[0] for place in places)},
    )
    emptied = found.count == 0 and len(units) == group.num_units
    return found if found.count < len(units) and not emptied else None


def sole_stage(graph: ChannelGraph, group: Group) -> Stage:
    """Return the layer that produces the units of a group all by itself.

    Raises:
        Kept: If there is none, or if anything but its normalisation and activation
            holds weights for its units.
    """
    if len(group.producers) != 1 or len(group.makers) != 1:
        raise Kept("several layers produce them together")
    member = group.producers[0]
    (call, *others) = graph.graph.uses[member.path]
    groups = getattr(call.layer, "groups", 1)
    if call.kind not in PRODUCERS or groups != 1 or member.name != "kernel":
        raise Kept(f"a {call.kind.rpartition(':')[2]} layer produces them")
    stage = stage_of(graph.graph, call)
    norms = (*stage.norms, *stage.behind)
    if others or any(len(graph.graph.uses[norm.path]) != 1 for norm in norms):
        raise Kept("the layer that produces them is used more than once")
    for norm in norms:
        if not set(graph.arrays[norm.path]) <= _NORM_WEIGHTS:
            raise Kept(f"{norm.path} holds weights of its own kind")
    own = {call.path, *(norm.path for norm in norms)}
    if stage.activation is not None:
        own.add(stage.activation.path)
    for one in group.members:
        if one.role == "channel" and one.path not in own:
            raise Kept(f"{one.path} treats each of them alone")
    for path in {call.path, *(one.path for one in group.consumers)}:
        layer = graph.layer(path)
        held = [key for key in vars(layer) if key.endswith("kernel_constraint")]
        if any(getattr(layer, key) is not None for key in held):
            raise Kept(f"the weights of {path} are under a constraint")
    return stage


def _folds(graph: ChannelGraph, group: Group, stage: Stage) -> bool:
    """Return whether a constant that all units share moves into the consumers.

    Raises:
        Kept: If the units are not only summed, with weights, at all.
    """
    uses = graph.graph.uses
    paths = {member.path for member in group.consumers}
    calls = [call for path in paths for call in uses[path]]
    for call in calls:
        grouped = getattr(call.layer, "groups", 1) != 1
        if call.kind not in _CONSUMERS or grouped:
            raise Kept(f"a {call.kind.rpartition(':')[2]} layer consumes them")
    if any(member.name != "kernel" for member in group.consumers):
        raise Kept("they are consumed in several ways")
    reached: set[str] = set()
    keeps = _constants_reach(graph, stage.tail, paths, reached)
    if reached != {call.name for call in calls}:
        raise Kept("a consumer is used elsewhere too")
    return keeps and all(place_of_constants(graph, call) for call in calls)


def _constants_reach(
    graph: ChannelGraph, tensor: Tensor, paths: set[str], reached: set[str]
) -> bool:
    """Return whether constants stay what they are on the way to all consumers."""
    keeps = True
    for call in graph.graph.consumers_of[tensor]:
        if call.path in paths:
            reached.add(call.name)
            continue
        linear = call.kind in _CONSTANT_KEPT | _LINEAR and not call.masks
        if not linear or len(call.outputs) != 1:
            raise Kept(f"{call.path} is no linear layer")
        whole = getattr(call.layer, "padding", "valid") == "valid"
        keeps &= call.kind in _CONSTANT_KEPT or ("Average" in call.kind and whole)
        keeps &= _constants_reach(graph, call.outputs[0], paths, reached)
    return keeps


def _widths(
    graph: ChannelGraph, evidence: Evidence, stage: Stage, size: int
) -> np.ndarray:
    """Return how far each input of a layer may move, or one where that is open."""
    call = stage.call
    bounds = evidence.bounds[call.name, 0]
    axis = channel_axis(call, len(call.input_shapes[0])) - 1
    count = int(call.input_shapes[0][axis + 1] or 0)
    others = [one for one in range(bounds.low.ndim) if one != axis]
    joined = bounds.with_zero().joined(others, keepdims=False)
    width = np.broadcast_to(joined.high - joined.low, count)
    if not count or size % count or not np.isfinite(width).all() or not width.any():
        return np.ones(size)
    return np.tile(width, size // count)


def _factored(
    inward: np.ndarray, outward: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Factor a product of matrices by its rank.

    Args:
        inward: Array of shape `(a, n)`.
        outward: Array of shape `(a, m)`.
        rounding: What of a singular value is rounding, relative to the largest, when
            every column of the product has the same length.

    Returns:
        Arrays `mix` of shape `(a, rank)` and `rows` of shape `(rank, m)`, such that
        `inward.T @ mix @ rows` is `inward.T @ outward`.
    """
    left = np.linalg.qr(inward.T, mode="r")  # (min(n, a), a)
    lengths = np.linalg.norm(left @ outward, axis=0)
    lengths[lengths == 0] = 1.0
    basis, right = np.linalg.qr((outward / lengths).T)  # (m, k), (k, a)
    _, sizes, along = np.linalg.svd(left @ right.T)
    rank = int((sizes > rounding * sizes.max(initial=0.0)).sum())
    root = np.sqrt(sizes[:rank])
    mix = right.T @ along[:rank].T / root
    rows = (root[:, None] * along[:rank]) @ basis.T * lengths
    return mix, rows


def _epsilon(dtype: np.dtype) -> float:
    return {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}.get(
        dtype.name, 2.0**-7
    )


def write(
    graph: ChannelGraph, made: Replacement, span: Bounds, fold: bool = True
) -> Changes:
    """Return the weights in which new units stand in the place of the first old ones.

    Args:
        graph: The channel graph.
        made: The replacement.
        span: Between which values the new units' linear parts lie, `(rank,)`.
        fold: Whether what is constant moves into the consumers' biases here. Defaults
            to `True`.

    Returns:
        New arrays by layer path and weight name.

    Raises:
        Kept: If there is no room for what must be added.
    """
    piece = made.stage.pieces[0]
    scale, shift = _into(piece, span)
    rows = made.rows / (piece.slope * scale)[:, None]
    missing = made.constant - (piece.slope * shift + piece.offset) @ rows
    changes: Changes = {}
    if made.folds and fold:
        for path, name, sign, added in _split(graph, made.group, missing):
            _copy(graph, changes, path, name)[...] += sign * added
    if not made.folds:
        rest, value = _at_rest(piece)
        rows = np.concatenate([rows, missing[None] / value])
        scale, shift = np.append(scale, 0.0), np.append(shift, rest)
    slots = made.units[: made.count]
    start = 0
    for member in made.group.consumers:
        view = np.moveaxis(
            _copy(graph, changes, member.path, member.name), member.axis, 0
        )
        shape = view[member.positions[slots]].shape
        stop = start + math.prod(shape[1:])
        view[member.positions[slots]] = rows[:, start:stop].reshape(shape)
        start = stop
    _write_producer(graph, made, changes, scale, shift)
    return changes


def _write_producer(
    graph: ChannelGraph,
    made: Replacement,
    changes: Changes,
    scale: np.ndarray,
    shift: np.ndarray,
) -> None:
    """Let the layer give its activation `scale * (x @ linear part) + shift`."""
    stage, member = made.stage, made.group.producers[0]
    put = shift  # in front of the activation
    linear = np.zeros((len(scale), made.inward.shape[1]))
    linear[: len(made.rows)] = made.linear
    columns = made.columns[: made.count]
    view = np.moveaxis(_copy(graph, changes, member.path, member.name), member.axis, 0)
    shape = view[columns].shape
    view[columns] = (scale[:, None] * linear).reshape(shape)
    count = len(made.rows)
    if stage.norms:
        mean, variance = (np.zeros(len(scale)) for _ in range(2))
        mean[:count], variance[:count] = _statistics(graph, made, before=True)
        mean, variance = scale * mean, scale**2 * variance
        for norm in stage.norms:
            _plain(graph, changes, norm, columns, mean, variance, shift)
            mean, shift = mean + shift, 0.0 * shift
    if stage.behind:
        piece = stage.pieces[0]
        mean, variance = (np.zeros(len(scale)) for _ in range(2))
        mean[:count], variance[:count] = _statistics(graph, made, before=False)
        mean = piece.slope * (scale * mean + put) + piece.offset
        variance = (piece.slope * scale) ** 2 * variance
        for norm in stage.behind:
            _plain(graph, changes, norm, columns, mean, variance, 0.0 * shift)
    if "bias" in graph.arrays[stage.call.path]:
        _copy(graph, changes, stage.call.path, "bias")[columns] = shift
    elif not stage.norms and shift.any():
        raise Kept(f"{stage.call.path} has no bias")


def _plain(
    graph: ChannelGraph,
    changes: Changes,
    norm: Call,
    columns: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    shift: np.ndarray,
) -> None:
    """Let a BatchNormalization do no more to some channels than shift them.

    With the statistics that they are guessed to have it does so in training too, if it
    has a scale and an offset.
    """
    names = graph.arrays[norm.path]
    spread = variance if "gamma" in names else np.float64(1.0 - norm.layer.epsilon)
    values = {
        "moving_mean": mean if "beta" in names else -shift,
        "moving_variance": spread,
        "gamma": np.sqrt(spread + norm.layer.epsilon),
        "beta": mean + shift,
    }
    for name in names:
        _copy(graph, changes, norm.path, name)[columns] = values[name]


def _statistics(
    graph: ChannelGraph, made: Replacement, before: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Guess mean and variance of the new units' linear parts from the old ones'.

    They are taken from the norm before the activation, or from the one behind it. The
    means are those of the old units' mixtures; the variances would be, if these were
    independent. In inference they do not matter, but training goes on from there.
    """
    stage, columns = made.stage, made.columns
    norm = (stage.norms if before else stage.behind)[0]
    held = graph.arrays[norm.path]
    mean, variance = (
        held[name].astype("float64")[columns]
        for name in ("moving_mean", "moving_variance")
    )
    if before:
        own = graph.arrays[stage.call.path]
        mean = mean - (own["bias"][columns] if "bias" in own else 0.0)
        factor = made.factor
    else:
        gain, added = (
            np.broadcast_to(one, len(made.affine.found))[columns]
            for one in stage.gains(graph.arrays)
        )
        constant = (
            made.affine.slope[columns] * made.offset + made.affine.offset[columns]
        )
        mean, factor = mean + (added - constant) / gain, gain
    mix = factor[:, None] * made.mix
    return mean @ mix, variance @ mix**2


def _split(
    graph: ChannelGraph, group: Group, added: np.ndarray
) -> Iterator[tuple[str, str, int, np.ndarray]]:
    """Sum up what is added to each output, and say to which weight, with which sign."""
    start = 0
    for member in group.consumers:
        size = graph.rows(member).shape[1]
        place = place_of_constants(graph, graph.graph.uses[member.path][0])
        outputs = graph.arrays[member.path][member.name].shape[-1]
        part = added[start : start + size].reshape(-1, outputs).sum(axis=0)
        start += size
        if place is not None:
            yield (*place, part)


def _copy(graph: ChannelGraph, changes: Changes, path: str, name: str) -> np.ndarray:
    """Return the array that is to be changed."""
    arrays = changes.setdefault(path, {})
    if name not in arrays:
        arrays[name] = np.array(graph.arrays[path][name])
    return arrays[name]


def _into(piece: Piece, span: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """Return factors and shifts that put values between bounds into a piece."""
    width = span.high - span.low
    scale, offset = np.ones_like(width), np.zeros_like(width)
    if np.isfinite([piece.low, piece.high]).all():
        room = (piece.high - piece.low) * (1 - 2 * _MARGIN)
        scale = room / np.maximum(width, room)
        middle = (piece.low + piece.high) / 2
        offset = middle - scale * (span.low + span.high) / 2
    elif np.isfinite(piece.low):
        offset = piece.low - span.low + _MARGIN * width
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise Kept("nothing bounds what goes into the layer")
    return scale, offset


def _at_rest(piece: Piece) -> tuple[float, float]:
    """Return what the constant unit gives its activation, and what comes out."""
    ends = [end for end in (piece.low, piece.high) if np.isfinite(end)]
    z = ends[0] + 1.0 if len(ends) == 1 else ends[-1] / 2 if ends else 1.0
    return z, piece.slope * z + piece.offset


def span_by_bounds(evidence: Evidence, made: Replacement) -> Bounds:
    """Bound the linear parts of the new units over the box."""
    kernel = evidence.graph.arrays[made.stage.call.path]["kernel"]
    linear = made.linear.reshape(len(made.rows), *kernel.shape[:-1])
    return evidence.bounds_of(made.stage, np.moveaxis(linear, 0, -1), len(linear))
