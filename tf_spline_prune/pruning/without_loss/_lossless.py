"""`lossless`: removing what does not matter, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
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
    coarsest_dtype,
    predict,
    require_flavour,
    sample_inputs,
    warn_of_lost_training,
    with_weights,
)
from tf_spline_prune.errors import NothingPrunedWarning, VerificationError, warn
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph._readings import Reading, readings
from tf_spline_prune.graph._unit_path import norms_behind
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.planning._ranking import reasons
from tf_spline_prune.pruning.without_loss._bounds import Bounds, after

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
            if self._place(call) is None:
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

    def _place(self, call: Call) -> tuple[str, str, int] | None:
        """Find into which weight a consumer's constants go, and with which sign."""
        plain = call.kind == "Dense" or (
            call.kind in ("Conv1D", "Conv2D", "Conv3D")
            and call.layer.padding == "valid"
            and call.layer.groups == 1
        )
        if not plain:
            return None
        if "bias" in self.graph.arrays[call.path]:
            return call.path, "bias", 1
        norms = norms_behind(self.graph.graph, call)
        alone = all(len(self._uses[one.path]) == 1 for one in (call, *norms[:1]))
        return (norms[0].path, "moving_mean", -1) if norms and alone else None

    def fold(self, constants: _Constants, gone: np.ndarray) -> None:
        """Move the constants of the units that go into their consumers' weights."""
        for path, (reading, values) in constants.values.items():
            if not gone.any() or not values[gone].any():
                continue
            place = self._place(self._uses[path][0])
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
_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@checked(box=_BOX, seed=SEED)
def lossless(
    model: Any, data: Any = None, *, box: Box | None = None, seed: int = 0
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
    padding; otherwise the unit is kept. Units whose ReLU is always active are linear
    but not constant; they are kept. Interval bounds are wide: deep in a network they
    certify little.

    Args:
        model: A built model of either flavour. It is not changed.
        data: Inputs on which the result is compared with the model, shape `(n, *input
            shape)`. They certify nothing, for other inputs may come. Defaults to
            `None`.
        box: The lowest and the highest input, as numbers or arrays that broadcast to
            the input's shape, for all inputs of the model; or such a pair by input
            name. Outside the box the result may compute something else. Defaults to
            `None`.
        seed: Seed of the random inputs that the result is compared on. Defaults to `0`.

    Returns:
        A new, plain, uncompiled model of the same flavour, layer names kept.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        CalibrationError: If the data do not fit the model.
        VerificationError: If the result computes something else.
        ValueError: If the box is none.

    Example:

    ```python
    small = tsp.lossless(model, box=(0.0, 1.0))     # for images scaled to [0, 1]
    ```

    Source: Serra, Kumar, Ramalingam, "Lossless compression of deep neural networks",
    CPAIOR 2020 (stably inactive units); Moore, Kearfott, Cloud, "Introduction to
    interval analysis", SIAM 2009.
    """
    require_flavour(model)
    small, changed = model, False
    while True:
        graph = ChannelGraph(small)
        if small is model:
            boxes = _boxes(graph, box)
            if data is not None:
                data = Calibration.of(data, graph.graph).inputs
            points = _points(graph, box, boxes, seed)
        removed, folds = _decide(graph, boxes)
        if not removed.any():
            break
        weights = {
            path: {**arrays, **folds.changed[path]} if path in folds.changed else arrays
            for path, arrays in graph.arrays.items()
        }
        small, changed = build_pruned(graph, removed, weights), True
    if not changed:
        where = "" if box is None else " over the box"
        warn(
            "Nothing is pruned, because no prunable unit is unused or "
            f"constant{where}. Unprunable units: {reasons(graph.barriers)}",
            NothingPrunedWarning,
        )
        copy = with_weights(model, {})
        warn_of_lost_training(model, copy)
        return copy
    for inputs in (points, data):
        if inputs is not None:
            _require_same(model, small, inputs)
    return small


def _decide(graph: ChannelGraph, boxes: list[Bounds]) -> tuple[np.ndarray, Folds]:
    """Find the units that go, and what becomes of their constants."""
    bounds = _at_inputs(graph, boxes)
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
            emptied = any(removed[graph.makers[name]].all() for name in group.makers)
            if not emptied or not gone.any():
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
    tolerance = _TOLERANCE.get(coarsest_dtype(model), 5e-2)
    for one, other in zip(predict(model, inputs), predict(small, inputs), strict=True):
        error = float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))
        if not error <= tolerance:
            raise VerificationError(
                "The smaller model computes something else than the original: relative "
                f"error {error:.2g}, at most {tolerance:g} expected. Data that lie "
                "outside the box can be the reason; otherwise it is a bug of this "
                "pass. The original model is untouched."
            )
