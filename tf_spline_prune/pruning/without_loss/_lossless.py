"""`lossless`: removing what does not matter, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    FRACTION,
    SEED,
    Array,
    Either,
    ListOf,
    MapOf,
    Options,
    Real,
    Text,
    checked,
)
from tf_spline_prune.compat import (
    Calibration,
    Call,
    predict,
    require_flavour,
    sample_inputs,
    warn_of_lost_training,
    with_weights,
)
from tf_spline_prune.errors import (
    InexactWarning,
    NothingPrunedWarning,
    VerificationError,
    warn,
)
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph._readings import Reading, readings
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.planning._ranking import reasons
from tf_spline_prune.pruning.without_loss._bounds import Bounds, after
from tf_spline_prune.pruning.without_loss._rank import place_of_constants
from tf_spline_prune.pruning.without_loss._straightening import Straightening, error_of

# Layers that compute nothing of their input but sums of it times their weights.
_ZERO = ("Dense", "EinsumDense", "Conv", "SeparableConv")


@dataclass(frozen=True, eq=False)
class _Constants:
    """The units of a group that never change where they are read.

    Attributes:
        found: Array of shape `(units,)`, bool: those whose constants can be folded.
        values: For each consumer's path, its reading and an array of shape
            `(units, m)`: the constant at each position.
    """

    found: np.ndarray
    values: dict[str, tuple[Reading, np.ndarray]] = field(default_factory=dict)


class Folds:
    """Gathers changes of weights that take the place of constant units.

    Args:
        graph: The channel graph.
        bounds: The bounds of what goes into each call, by the call's name and the
            input's index.

    Attributes:
        changed: New arrays by layer path and weight name.
    """

    def __init__(
        self, graph: ChannelGraph, bounds: Mapping[tuple[str, int], Bounds]
    ) -> None:
        self.graph = graph
        self.bounds = bounds
        self.changed: dict[str, dict[str, np.ndarray]] = {}
        self._uses = graph.graph.uses

    def constants_of(self, group: Group) -> _Constants:
        """Find the units of a group whose constants can be folded."""
        found = np.ones(group.num_units, bool)
        values: dict[str, tuple[Reading, np.ndarray]] = {}
        taken = readings(self.graph, group)
        paths = {member.path for member in group.consumers}
        calls = {call.name: call for p in paths for call in self._uses.get(p, ())}
        if {reading.call for reading in taken} != set(calls):
            return _Constants(np.zeros_like(found))
        for reading in taken:
            call = calls[reading.call]
            path = call.path
            fixed, constant = self._at(reading, call)
            found &= fixed
            if not call.kind.startswith(_ZERO):
                return _Constants(np.zeros_like(found))
            if place_of_constants(self.graph, call) is None:
                found &= (constant == 0).all(axis=1)
            if path in values:  # a layer that is used twice has one bias
                other, before = values[path]
                same = other.positions.shape == reading.positions.shape
                if not same or (other.positions != reading.positions).any():
                    return _Constants(np.zeros_like(found))
                found &= (before == constant).all(axis=1)
            values[path] = (reading, constant)
        return _Constants(found, values)

    def _at(self, reading: Reading, call: Call) -> tuple[np.ndarray, np.ndarray]:
        """Find which units never change at a reading, and their constants."""
        bounds = self.bounds[reading.call, reading.input]
        axis = reading.axis - 1  # bounds have no batch axis
        shape = list(bounds.low.shape)
        # Units of other groups may lie beside these.
        shape[axis] = int(call.input_shapes[reading.input][reading.axis] or 0)
        rows = [
            np.moveaxis(np.broadcast_to(bound, shape), axis, -1).reshape(
                -1, shape[axis]
            )
            for bound in (bounds.low, bounds.high)
        ]
        first = rows[0][:1]
        fixed = ((rows[0] == first) & (rows[1] == first)).all(axis=0)
        fixed &= np.isfinite(first[0])
        constant = np.where(fixed, first[0], 0.0)
        return fixed[reading.positions].all(axis=1), constant[reading.positions]

    def fold(self, constants: _Constants, gone: np.ndarray) -> None:
        """Move the constants of the units that go into their consumers' weights."""
        for path, (reading, values) in constants.values.items():
            if not gone.any() or not values[gone].any():
                continue
            place = place_of_constants(self.graph, self._uses[path][0])
            if place is None:
                continue  # only zeros go then
            kernel = self.graph.arrays[path]["kernel"].astype("float64")
            kernel = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
            added = values[gone].ravel() @ kernel[reading.positions[gone].ravel()]
            target, name, sign = place
            arrays = self.changed.setdefault(target, {})
            old = arrays.get(name, self.graph.arrays[target][name])
            arrays[name] = (old + sign * added).astype(old.dtype)


Pair = tuple[Any, Any]
Box = Pair | Mapping[str, Pair]
_PAIR = ListOf(
    Either(Real(), Array("an array of finite numbers")),
    "ends, the lowest and the highest input",
    2,
    2,
)
_BOX: Options = [
    _PAIR,
    MapOf(Text("the name of an input"), _PAIR, "a dictionary from inputs to such"),
    None,
]

_NUM_POINTS = 64


@checked(box=_BOX, tolerance=[FRACTION, None], seed=SEED)
def lossless(
    model: Any,
    data: Any = None,
    *,
    box: Box | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> Any:
    """Remove units without changing what the model computes.

    Three kinds of units are pruned, and with them units that only they needed:

    - unused units: all weights that consume them are zero;
    - constant units: all weights that produce them are zero, so that they are a
      constant of bias, normalisation and activation. What they add moves into the
      consumers' biases, or into the BatchNormalization behind a consumer that has none;
    - with a `box` of inputs, units whose activation is constant on it, such as a ReLU
      whose input is never positive. This is certified by interval arithmetic through
      dense, convolution, BatchNormalization, activation, pooling, reshaping, adding,
      multiplying and concatenating layers. Behind any other layer nothing is certified.

    A constant other than zero moves into a Dense layer, or into a convolution without
    padding; otherwise the unit is kept.

    With a `box`, units that are affine on it are replaced, such as a ReLU whose input
    is never negative, or any unit without an activation. From the inputs of their layer
    to all its consumers they are one linear map, and as many new units as its rank do
    the same: forty before five outputs become five. Before a convolution with padding
    it takes one more, which is constant. This needs a Dense layer or a convolution
    that alone produces the units, and such layers, also EinsumDense and transposed
    convolutions, to consume them; between may be one activation, BatchNormalization
    before and behind it, and dropout, average pooling, padding, upsampling, reshaping
    and concatenating. Other affine units, such as those of residual sums, are kept.

    Where all units of a layer are affine, the layer goes, and the next one does the
    work of both, if that costs no more multiply-accumulates; so do several in a row, as
    in an inverted residual. For convolutions the kernels must fit together, and padding
    must not see the difference.

    The new weights are dense, whatever zeros were in the old ones. For new units, the
    statistics of BatchNormalization are guessed; as measured they would be others, so
    in training, and once they are recalibrated, the model computes something else.

    Interval bounds are wide: deep in a network they certify little. With `tolerance`
    units count as affine also if they are so on the data, at all but this fraction of
    the inputs (and positions). **The result is then exact only on these data, with
    `tolerance=0`; or not at all**: then the consumers are solved by least squares, and
    an `InexactWarning` says how much the outputs differ on the data.

    Args:
        model: A built model of either flavour. It is not changed.
        data: Inputs on which the result is compared with the model, shape `(n, *input
            shape)`. They certify nothing, for other inputs may come. Defaults to
            `None`.
        box: The lowest and the highest input, as numbers or arrays that broadcast to
            the input's shape, for all inputs of the model; or such a pair by input
            name. Outside the box the result may compute something else. Defaults to
            `None`.
        tolerance: The fraction of the data at which a unit that is replaced may be
            otherwise, in [0, 1). Other inputs are then given up on. Defaults to `None`,
            which takes only what is certified.
        seed: Seed of the random inputs that the result is compared on, and of a draw
            from the data. Defaults to `0`.

    Returns:
        A new, plain, uncompiled model of the same flavour. Layers keep their names.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        CalibrationError: If the data do not fit the model.
        VerificationError: If the result computes something else.
        ValueError: If the box is none, or there is a `tolerance` without data.

    Example:

    ```python
    small = tsp.lossless(model, box=(0.0, 1.0))     # for images scaled to [0, 1]
    ```

    Source: Serra, Kumar, Ramalingam, "Lossless compression of deep neural networks",
    CPAIOR 2020 (stably inactive and stably active units); Moore, Kearfott, Cloud,
    "Introduction to interval analysis", SIAM 2009.
    """
    require_flavour(model)
    if tolerance is not None and data is None:
        raise ValueError(
            "`tolerance` is a fraction of the data, so it needs some: give `data`. "
            f"Received: tolerance={tolerance}, data=None"
        )
    graph = ChannelGraph(model)
    boxes = _boxes(graph, box)
    if data is not None:
        data = Calibration.of(data, graph.graph)
    points = _points(graph, box, boxes, seed)
    work = Straightening(points, data, tolerance, seed)
    # Without these, affine units are those of linear layers, which somebody wants.
    affine = box is not None or tolerance is not None
    small = model
    while True:
        bounds = _at_inputs(graph, boxes)
        removed, folds = _decide(graph, bounds)
        if removed.any():
            small = build_pruned(graph, removed, folds.changed)
        else:
            made = work.step(graph, bounds) if affine else None
            if made is None:
                break
            small = made
        graph = ChannelGraph(small)
    if small is model:
        where = "" if box is None else " over the box"
        kept = "".join(f" {reason}." for reason in work.kept.values())
        warn(
            "Nothing is pruned, because no prunable unit is unused or "
            f"constant{where}.{kept} Unprunable units: {reasons(graph.barriers)}",
            NothingPrunedWarning,
        )
        copy = with_weights(model, {})
        warn_of_lost_training(model, copy)
        return copy
    if work.certified:
        _require_same(model, small, points)
    if data is not None:
        if work.exact:
            _require_same(model, small, data.inputs)
        else:
            _say_how_near(model, small, data.inputs)
    return small


def _decide(
    graph: ChannelGraph, bounds: Mapping[tuple[str, int], Bounds]
) -> tuple[np.ndarray, Folds]:
    """Find the units that go, and what becomes of their constants."""
    folds = Folds(graph, bounds)
    barred = graph.nothing_removed()
    for meeting in (*graph.contractions, *graph.mixings):
        barred[graph.units_of(meeting.labels)] = True
    removed = graph.nothing_removed()
    for group in graph.groups:
        if barred[group.roots].any() or not group.consumers:
            continue
        unread = _unread(graph, group)
        constants = folds.constants_of(group)
        gone = unread | constants.found
        while True:  # one at least stays of every layer
            removed[group.roots] = gone
            if not graph.emptied(removed) or not gone.any():
                break
            gone[np.flatnonzero(gone)[-1]] = False
        folds.fold(constants, gone & ~unread)
    return removed, folds


def _unread(graph: ChannelGraph, group: Group) -> np.ndarray:
    """Return for each unit whether all weights that consume it are zero."""
    sizes = [graph.lengths(member, 1) for member in group.consumers]
    return np.asarray(np.sum(sizes, axis=0) == 0)


def _at_inputs(
    graph: ChannelGraph, boxes: list[Bounds]
) -> dict[tuple[str, int], Bounds]:
    """Bound what goes into every call, by the call's name and the input's index."""
    found: dict[tuple[str, int], Bounds] = {}
    bounds = dict(zip(graph.graph.input_tensors, boxes, strict=True))
    for call in graph.graph.calls:
        values = [bounds[tensor] for tensor in call.inputs]
        found.update({(call.name, i): value for i, value in enumerate(values)})
        outputs = [graph.axes[tensor].shape for tensor in call.outputs]
        made = [Bounds.unknown(shape) for shape in outputs]
        if len(outputs) == 1:
            arrays = graph.arrays.get(call.path, {})
            made = [after(call, values, call.input_shapes, outputs[0], arrays)]
        bounds.update(zip(call.outputs, made, strict=True))
    return found


def _boxes(graph: ChannelGraph, box: Box | None) -> list[Bounds]:
    """Bound the model's inputs."""
    entries = graph.graph.inputs
    pairs = box if isinstance(box, Mapping) else {e.name: box for e in entries}
    unknown = set(pairs) - {entry.name for entry in entries}
    if unknown:
        raise ValueError(
            f"`box` names no input of the model. Expected some of "
            f"{[entry.name for entry in entries]}. Received: {sorted(unknown)}"
        )
    return [_bounded(entry.shape, pairs.get(entry.name)) for entry in entries]


def _bounded(shape: tuple[int | None, ...], pair: Any) -> Bounds:
    if pair is None:
        return Bounds.unknown(shape)
    sizes = [1 if size is None else size for size in shape[1:]]
    try:
        low, high = (np.asarray(end, "float64") for end in pair)
        for end in (low, high):
            np.broadcast_to(end, sizes)
            if not np.isfinite(end).all():
                raise ValueError("an end is not finite")
        if (low > high).any():
            raise ValueError("the lowest input is above the highest")
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`box` is the lowest and the highest input, two finite numbers or arrays "
            f"that broadcast to {tuple(shape[1:])}. What is wrong: {error}. "
            f"Received: {pair!r}"
        ) from error
    ends = [
        end.reshape([1] * (len(sizes) - end.ndim) + [*end.shape]) for end in (low, high)
    ]
    low, high = np.broadcast_arrays(*ends)
    return Bounds(low, high)


def _points(
    graph: ChannelGraph, box: Box | None, boxes: list[Bounds], seed: int
) -> list[np.ndarray]:
    """Draw inputs to compare on: from the box, corners too, or normal ones."""
    drawn = sample_inputs(graph.graph, _NUM_POINTS, seed)
    rng = np.random.default_rng(seed)
    for place, bounds in enumerate(boxes):
        if box is not None and np.isfinite(bounds.low).all():
            x = drawn[place]
            along = rng.random(x.shape)
            along[: len(along) // 2] = np.round(along[: len(along) // 2])
            inside = bounds.low + along * (bounds.high - bounds.low)
            drawn[place] = inside.astype(x.dtype)
    return drawn


def _require_same(model: Any, small: Any, inputs: list[np.ndarray]) -> None:
    error, tolerance = error_of(model, small, inputs)
    if not error <= tolerance:
        raise VerificationError(
            "The smaller model computes something else than the original: relative "
            f"error {error:.2g}, at most {tolerance:g} expected. Data that lie "
            "outside the box can be the reason; otherwise it is a bug of this "
            "pass. The original model is untouched."
        )


def _say_how_near(model: Any, small: Any, inputs: list[np.ndarray]) -> None:
    """Warn by how much two models differ on the data."""
    pairs = list(zip(predict(model, inputs), predict(small, inputs), strict=True))
    largest = max(float(np.abs(a - b).max() / (np.abs(a).max() or 1)) for a, b in pairs)
    typical = max(
        float(np.sqrt(((a - b) ** 2).mean()) / (a.std(axis=0).mean() or 1))
        for a, b in pairs
    )
    warn(
        "With `tolerance` the result is not exact: on the data its outputs differ from "
        f"the model's by {typical:.2g} of their spread, as a root mean square, and by "
        f"{largest:.2g} of the largest output at most. On other inputs it may be more.",
        InexactWarning,
    )
