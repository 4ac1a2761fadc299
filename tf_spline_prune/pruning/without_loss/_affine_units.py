"""Which units are affine for all inputs that may come, or on data, and which map.

A ReLU whose input is never negative hands it on: the unit is linear there. Others are
affine on other pieces, such as ReLU6 between its two knots.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    Tensor,
    activation_name,
    call_layer,
    call_tapped,
    is_layer,
    kind_of,
    run_eagerly,
    to_numpy,
)
from tf_spline_prune.graph import ChannelGraph, channel_axis, norm_axis
from tf_spline_prune.graph._unit_path import batchnorm_factor, is_linear, norms_behind
from tf_spline_prune.graph.rules._elementwise import is_known
from tf_spline_prune.pruning.without_loss._bounds import (
    Bounds,
    after,
    scaled,
    slope_below,
)

Arrays = Mapping[str, Mapping[str, np.ndarray]]

_INF = math.inf


@dataclass(frozen=True)
class Piece:
    """A stretch between knots, on which an activation is `slope * z + offset`."""

    low: float
    high: float
    slope: float = 1.0
    offset: float = 0.0


_LINE = Piece(-_INF, _INF)
_POSITIVE = Piece(0.0, _INF)
# By the name Keras serialises; the first is where new units are put.
_PIECES: dict[str, tuple[Piece, ...]] = {
    "linear": (_LINE,),
    "relu": (_POSITIVE,),
    "relu6": (Piece(0.0, 6.0),),
    "elu": (_POSITIVE,),
    "celu": (_POSITIVE,),
    "abs": (_POSITIVE, Piece(-_INF, 0.0, -1.0)),
    "hard_tanh": (Piece(-1.0, 1.0),),
    "hard_sigmoid": (Piece(-3.0, 3.0, 1 / 6, 0.5),),
    "hard_sigmoid_2.5": (Piece(-2.5, 2.5, 0.2, 0.5),),
}
_BY_CLASS = {"ELU": (_POSITIVE,), "PReLU": (_POSITIVE,), "op:relu6": _PIECES["relu6"]}
_ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "op:relu", *_BY_CLASS)


def activations_of(graph: Graph) -> list[Call]:
    """List the calls that are activations and nothing else."""
    return [call for call in graph.calls if call.kind in _ACTIVATIONS]


def pieces_of(call: Call) -> tuple[Piece, ...]:
    """List the pieces on which the activation in or at a call is known to be affine."""
    layer = call.layer
    if call.kind == "op:relu":
        return _of_relu(layer, vars(layer))
    if call.kind in _ACTIVATIONS and call.kind != "Activation":
        return _of_layer(layer)
    function = getattr(layer, "activation", None)
    if function is None:
        return _PIECES["linear"]
    if is_layer(function):
        return _of_layer(function)
    name = activation_name(function)
    if not is_known(function):
        return ()
    return _leaky(function) if name == "leaky_relu" else _PIECES.get(name, ())


def _of_layer(layer: Any) -> tuple[Piece, ...]:
    kind = kind_of(layer)
    if kind == "ReLU":
        return _of_relu(layer, layer.get_config())
    return _leaky(layer) if kind == "LeakyReLU" else _BY_CLASS.get(kind, ())


def _leaky(layer: Any, above: Piece = _POSITIVE) -> tuple[Piece, ...]:
    slope = slope_below(layer, above.low)
    below = Piece(-_INF, above.low, slope, -slope * above.low)
    return (above, below) if slope else (above,)


def _of_relu(layer: Any, config: Mapping[str, Any]) -> tuple[Piece, ...]:
    top, slope = config.get("max_value"), config.get("negative_slope")
    threshold = float(config.get("threshold") or 0.0)
    above = Piece(threshold, _INF if top is None else float(top))
    return _leaky(layer, above) if slope else (above,)


@dataclass(frozen=True, eq=False)
class Stage:
    """A linear layer, and what treats its units one by one behind it.

    Attributes:
        call: The call of the layer.
        norms: The BatchNormalizations behind it.
        activation: The call with the activation, which may be `call` itself; `None`
            if there is none.
        behind: The BatchNormalizations behind the activation.
        axis: The axis of its units in its output.
        tail: What comes out of all that.
    """

    call: Call
    norms: tuple[Call, ...]
    activation: Call | None
    behind: tuple[Call, ...]
    axis: int
    tail: Tensor

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces on which its activation is affine."""
        return (_LINE,) if self.activation is None else pieces_of(self.activation)

    @property
    def calls(self) -> list[Call]:
        """All of these calls, in order."""
        apart = [] if self.activation in (None, self.call) else [self.activation]
        return [self.call, *self.norms, *apart, *self.behind]

    def affine(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return what the activation is given: `scale * (x @ kernel) + offset`.

        Args:
            arrays: The weights by layer path and name.

        Returns:
            Two arrays of shape `(units,)`, or one entry that stands for all, float64.
        """
        bias = arrays[self.call.path].get("bias", np.zeros(1))
        return _through(self.norms, arrays, np.asarray(bias, "float64"))

    def gains(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return by what each activation is multiplied behind it, and what is added."""
        return _through(self.behind, arrays, np.zeros(1))


def _through(
    norms: Sequence[Call], arrays: Arrays, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follow `x + offset` through BatchNormalizations: a scale and an offset of x."""
    scale = np.ones(1)
    for norm in norms:
        held = {n: a.astype("float64") for n, a in arrays[norm.path].items()}
        factor = batchnorm_factor(norm.layer, held)
        offset = factor * (offset - held["moving_mean"]) + held.get("beta", 0.0)
        scale = factor * scale
    return scale, offset


def stage_of(graph: Graph, call: Call) -> Stage:
    """Follow the output of a linear layer to its activation, and what is behind."""
    rank = len(call.output_shapes[0])
    axis = channel_axis(call, rank)
    norms = tuple(norms_behind(graph, call))
    tail = (norms or (call,))[-1].outputs[0]
    activation: Call | None = call
    if is_linear(call):
        activation = next(graph.chain(tail), None)
        if activation is None or activation.kind not in _ACTIVATIONS:
            return Stage(call, norms, None, (), axis, tail)
        tail = activation.outputs[0]
    behind: list[Call] = []
    for norm in graph.chain(tail):
        if norm.kind != "BatchNormalization" or norm_axis(norm, rank) != axis:
            break
        behind.append(norm)
    tail = behind[-1].outputs[0] if behind else tail
    return Stage(call, norms, activation, tuple(behind), axis, tail)


@dataclass(frozen=True, eq=False)
class AffineUnits:
    """The units of a layer that are affine, and the maps that they are.

    Attributes:
        found: Array of shape `(units,)`, bool.
        slope: Array of shape `(units,)`: where `z` is what the activation is given,
            `slope * z + offset` is what comes out of the stage.
        offset: Array of shape `(units,)`.
        certified: Array of shape `(units,)`, bool: those that are so by their bounds.
        exact: Array of shape `(units,)`, bool: those, and what is so at all data.
    """

    found: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    certified: np.ndarray
    exact: np.ndarray


class Evidence:
    """What is known of the inputs of activations, by bounds and from data.

    Args:
        graph: The channel graph.
        bounds: The bounds of what goes into each call, by the call's name and the
            input's index.
        data: Inputs at which units may be affine instead. Defaults to `None`.
        tolerance: The fraction of data at which they may be otherwise. Defaults to
            `0.0`.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        bounds: Mapping[tuple[str, int], Bounds],
        data: Calibration | None = None,
        tolerance: float = 0.0,
    ) -> None:
        self.graph = graph
        self.bounds = bounds
        self.data = data
        self.tolerance = tolerance
        self._moments: dict[str, _Moments] = {}
        self._found: dict[str, AffineUnits] = {}

    def look_at(self, stages: Iterable[Stage]) -> None:
        """Run the data, if there are any, and note what goes into activations."""
        if self.data is None:
            return
        sites = {}
        for stage in stages:
            if stage.activation is not None and stage.pieces:
                made = _Moments(stage.pieces)
                self._moments[stage.activation.name] = made
                sites[stage.activation.name] = (stage.axis, made.add)
        self._run(sites)

    def of(self, stage: Stage) -> AffineUnits:
        """Find the affine units of a layer."""
        name = stage.call.name
        if name not in self._found:
            self._found[name] = self._of(stage)
        return self._found[name]

    def _of(self, stage: Stage) -> AffineUnits:
        size = int(stage.call.output_shapes[0][stage.axis] or 0)
        kernel = self.graph.arrays[stage.call.path]["kernel"]
        made = scaled(
            self.bounds_of(stage, kernel, size), *stage.affine(self.graph.arrays)
        )
        low, high = made.low, made.high
        pieces = stage.pieces
        slope, offset = np.zeros(size), np.zeros(size)
        certified = np.zeros(size, bool)
        for piece in pieces:
            inside = ~certified & (low >= piece.low) & (high <= piece.high)
            slope[inside], offset[inside] = piece.slope, piece.offset
            certified |= inside
        found, exact = certified, certified
        moments = self._moments.get(stage.activation.name) if stage.activation else None
        if moments is not None:
            parts, fitted = moments.fractions(), moments.fitted()
            best, fraction = parts.argmax(axis=0), parts.max(axis=0)
            always = ~certified & (fraction == 1)
            for index, piece in enumerate(pieces):
                here = always & (best == index)
                slope[here], offset[here] = piece.slope, piece.offset
            nearly = ~certified & ~always & (fraction >= 1 - self.tolerance)
            nearly &= self.tolerance > 0
            slope[nearly], offset[nearly] = fitted[0][nearly], fitted[1][nearly]
            exact = certified | always
            found = exact | nearly
        scale, shift = stage.gains(self.graph.arrays)
        slope, offset = scale * slope, scale * offset + shift
        return AffineUnits(found & (slope != 0), slope, offset, certified, exact)

    def bounds_of(self, stage: Stage, kernel: np.ndarray, size: int) -> Bounds:
        """Bound `x @ kernel` of a layer with a kernel in the place of its own.

        Args:
            stage: The layer.
            kernel: The kernel, of any number of units.
            size: How many units these are.

        Returns:
            Bounds of shape `(size,)`.
        """
        call = stage.call
        values = [self.bounds[call.name, i] for i in range(len(call.inputs))]
        shape = list(call.output_shapes[0])
        shape[stage.axis] = size
        arrays = {"kernel": kernel}
        made = after(call, values, call.input_shapes, tuple(shape), arrays, bare=True)
        others = [axis for axis in range(len(shape) - 1) if axis != stage.axis - 1]
        made = made.joined(others, keepdims=False)
        return made.map(lambda bound: np.broadcast_to(bound, size))

    def ranges(
        self, wanted: Sequence[tuple[Stage, np.ndarray, np.ndarray]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Measure on the data between which values mixtures of units lie.

        Args:
            wanted: Stages with an activation; units of theirs, `(a,)`; and mixtures
                of what the activation is given of these, `(a, m)`.

        Returns:
            For each the lowest and the highest values, of shape `(m,)`.
        """
        found = [
            (np.full(mix.shape[1], _INF), np.full(mix.shape[1], -_INF))
            for _, _, mix in wanted
        ]

        def adder(place: int) -> Any:
            _, units, mix = wanted[place]

            def add(z: np.ndarray, _: np.ndarray) -> None:
                made = z[:, units] @ mix
                low, high = found[place]
                np.minimum(low, made.min(axis=0), out=low)
                np.maximum(high, made.max(axis=0), out=high)

            return add

        self._run(
            {
                stage.activation.name: (stage.axis, adder(place))
                for place, (stage, _, _) in enumerate(wanted)
                if stage.activation is not None
            }
        )
        return found

    def _run(self, sites: Mapping[str, tuple[int, Any]]) -> None:
        """Run the data; hand on `(rows, units)` before and behind each activation."""

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call.name not in sites:
                return call_layer(call, args, kwargs)
            axis, add = sites[call.name]
            if call.kind in _ACTIVATIONS:
                leaves = keras.tree.flatten((args, kwargs))
                z = next(leaf for leaf in leaves if hasattr(leaf, "shape"))
                output = call_layer(call, args, kwargs)
            else:
                output, z = call_tapped(call, args, kwargs)
            add(*(_rows(tensor, axis) for tensor in (z, output)))
            return output

        if not sites or self.data is None:
            return
        for inputs, _ in self.data.batches(32):
            run_eagerly(self.graph.graph, inputs, apply)


def _rows(tensor: Any, axis: int) -> np.ndarray:
    array = np.moveaxis(to_numpy(tensor), axis, -1)
    return array.reshape(-1, array.shape[-1]).astype("float64")


class _Moments:
    """How often an activation is given values of each piece, and its best line."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._count = 0
        self._inside: Any = 0
        self._sums: Any = 0

    def add(self, z: np.ndarray, made: np.ndarray) -> None:
        """Take in rows of what goes in and what comes out, `(n, units)`."""
        self._count += len(z)
        inside = [((z >= p.low) & (z <= p.high)).sum(axis=0) for p in self.pieces]
        self._inside = self._inside + np.array(inside)
        sums = [one.sum(axis=0) for one in (z, made, z * z, z * made)]
        self._sums = self._sums + np.array(sums)

    def fractions(self) -> np.ndarray:
        """Return how large a part of the data lies in each piece, `(pieces, units)`."""
        return np.asarray(self._inside / self._count)

    def fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return slope and offset of the line nearest to the activation, per unit."""
        z, made, squares, products = self._sums / self._count
        variance = squares - z * z
        covariance = products - z * made
        moves = variance > 1e-12 * squares
        slope = np.where(moves, covariance / np.where(moves, variance, 1.0), 0.0)
        return slope, made - slope * z
