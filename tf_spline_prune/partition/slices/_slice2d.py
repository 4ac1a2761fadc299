"""`slice2d`: cut a plane of the input space into the regions of a network."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    LAYERS,
    Flag,
    Integer,
    Interval,
    ListOf,
    Options,
    checked,
)
from tf_spline_prune.compat import Progress, arranged, check_inputs, say
from tf_spline_prune.errors import RegionLimitError
from tf_spline_prune.partition._affine_network import AffineNetwork
from tf_spline_prune.partition.codes._knots import asked_layers
from tf_spline_prune.partition.slices._polygons import Polygons, cut
from tf_spline_prune.partition.slices._slice import TOLERANCE, Slice
from tf_spline_prune.partition.slices._sliced_network import SlicedNetwork

# What an argument must be that `SliceRecorder` takes too.
CLASSES: Options = [
    ListOf(Integer(0), "different outputs, counted from 0", 2, 2),
    None,
]
# After so many seconds it can be told how long the whole takes; from so many minutes
# on it is.
_SOON, _LONG = 3.0, 1.0


@checked(
    extent=Interval(), layers=LAYERS, classes=CLASSES, max_regions=COUNT, partial=Flag()
)
def slice2d(
    model: Any,
    anchors: Any,
    extent: tuple[float, float] = (0.0, 1.0),
    *,
    layers: Iterable[str] | None = None,
    classes: Sequence[int] | None = None,
    max_regions: int = 1_000_000,
    partial: bool = False,
) -> Slice:
    """Cut a plane of the input space into the exact regions of a network.

    On a region of the layers before, what goes into an activation is affine. So the
    network itself is evaluated, in float64, at the corners of all regions, and those
    are cut in two at whose corners a value is on both sides of its knot. That takes
    nothing but forward passes, and holds for chains, residual additions,
    concatenations, BatchNormalization, pooling, nested and subclassed models of both
    flavours. It is checked on some regions of each layer that the network is affine
    there. Each layer is run once: at the corners that a cut makes, all tensors that
    later layers read lie between those at the ends of the edge.

    Two values that differ by less than 1e-12 of the largest in their layer are equal:
    a corner that lies on a knot, and a unit whose line is another's, cut nothing off.
    Regions thinner than that are not told apart.

    The parts of a region stand side by side in the slice. How they are ordered is not
    promised.

    Args:
        model: A built model with one input and one output.
        anchors: Array of shape `(3, *input shape)`: three inputs that span the plane
            `x(u, v) = a0 + u (a1 - a0) + v (a2 - a0)`.
        extent: The least and the greatest u and v. Defaults to `(0.0, 1.0)`.
        layers: Names of layers with knots. The plane is cut by all layers up to the
            last of them in the order of computation, for only then are its regions
            exact. Defaults to `None`, which cuts by all.
        classes: Two outputs whose tie is the boundary. Defaults to `None`, which takes
            the ties of the largest two.
        max_regions: The most regions to hold. Defaults to `1_000_000`.
        partial: Whether more than that end the work at the last layer that is complete;
            otherwise they are an error. Defaults to `False`.

    Returns:
        The slice.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, has several inputs or
            outputs, weights that are not finite, or is not piecewise affine.
        RegionLimitError: If there are more than `max_regions` regions.
        ValueError: If the anchors do not fit the model or lie on one line, or
            another argument is out of range.

    Example:

    ```python
    s = tsp.slice2d(model, x_test[:3], extent=(-0.5, 1.5))
    s.num_regions, s.boundary.shape
    ```

    Source: the regions are those of Humayun et al., "SplineCam", CVPR 2023; the
    method is our own.
    """
    low, high = map(float, extent)
    affine = AffineNetwork(model)
    corners = _check_anchors(anchors, affine.graph.inputs)
    network = SlicedNetwork(affine, corners, (low, high))
    stops = _stops(network.stops, layers)
    pair = _check_classes(classes, network.num_outputs)
    square = Polygons.square(low, high)
    polygons, counts = _cut_deep(network, square, stops, max_regions)
    done = stops[: len(counts)]
    if done != stops:
        if not partial:
            raise RegionLimitError(
                f"There are more than {max_regions} regions. Take a smaller `extent`, "
                "a larger `max_regions`, or `partial=True` for what is exact so far. "
                f"Received: {(1, *counts)[-1]} regions before layer "
                f"{stops[len(done)]!r}, number {len(done) + 1} of {len(stops)}"
            )
        # Some lots were cut by more layers than others.
        polygons, counts = _cut_deep(network, square, done, max_regions)
    complete = done == network.stops
    if complete:
        network.check(polygons)
    through = dict(zip(done, counts, strict=True))
    return Slice(done, complete, through, pair, corners, polygons, network)


@dataclass(frozen=True, eq=False)
class _Lot:
    """Some polygons on their way through the layers.

    Attributes:
        polygons: The polygons.
        number: The number of the layer that cuts them next.
        since: The layer before which their values are, `None` for the inputs.
    """

    polygons: Polygons
    number: int
    since: str | None


def _cut_deep(
    network: SlicedNetwork, square: Polygons, stops: Sequence[str], most: int
) -> tuple[Polygons, list[int]]:
    """Cut by the knots of some layers, one lot of polygons after the other.

    A lot goes through all layers before the next one is begun, so that the tensors
    at the corners of few polygons have to be held.

    Returns:
        The polygons, and their number after each layer. If there are more than
        `most`, only the numbers are right, and end before the first layer with more.
    """
    counts = [0] * len(stops)
    done: list[Polygons] = []
    progress = Progress(100, "percent")
    whole, cleared = float(square.areas().sum()) * len(stops) / 100, 0.0
    lots = [_Lot(network.start(square), 0, None)]
    begun, told = time.monotonic(), False
    while lots:
        if not told and done and time.monotonic() - begun > _SOON:
            told = True
            _say_how_long(
                cleared / (100 * whole),
                sum(map(len, done)),
                float(sum(part.areas().sum() for part in done) / square.areas().sum()),
                time.monotonic() - begun,
                most,
            )
        lot = lots.pop()
        number = lot.number
        if number >= len(counts):
            done.append(lot.polygons.holding())
            continue
        stop = stops[number]
        polygons, functions = network.carry(lot.polygons, lot.since, stop)
        tolerance = TOLERANCE * network.sizes[stop]
        # All that wait are to be cut by this layer, or one before it.
        room = most - counts[number] - sum(len(other.polygons) for other in lots)
        settled, again = cut(polygons, functions, tolerance, number, room)
        if len(settled) + len(again) > room:
            # How many there are through the layers before is still to be counted.
            del counts[number:]
            lots.append(lot)
            continue
        counts[number] += len(settled)
        before, cleared = cleared, cleared + float(settled.areas().sum())
        progress.step(int(cleared / whole) - int(before / whole))
        fresh = [_Lot(part, number + 1, stop) for part in network.lots(settled)]
        fresh += [_Lot(part, number, stop) for part in network.lots(again)]
        lots.extend(reversed(fresh))
    if stops and (rest := 100 - int(cleared / whole)):  # rounding, or a limit
        progress.step(rest)
    return Polygons.joined(done), counts


def _say_how_long(
    cleared: float, regions: int, area: float, seconds: float, most: int
) -> None:
    """Warn of a slice that will take minutes, and of what bounds it.

    Args:
        cleared: Which fraction of the work is done.
        regions: How many regions are complete.
        area: Which fraction of the plane they cover.
        seconds: How long that took.
        most: The most regions to hold.
    """
    expected = regions / area
    minutes = seconds / max(cleared, regions / most) / 60
    if minutes < _LONG:
        return
    time_left = f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.0f} h"
    ends = "" if expected <= most else f", of which {most:,} (max_regions) are the most"
    digits = 10 ** (len(str(int(expected))) - 1)
    say(
        f"The slice takes about {time_left}: about "
        f"{round(expected / digits) * digits:,} regions are to be expected{ends}. A "
        "smaller extent, fewer layers or a smaller max_regions bound it."
    )


def _check_anchors(anchors: Any, inputs: Sequence[Any]) -> np.ndarray:
    (array,) = check_inputs(anchors, inputs, "anchors", ValueError)
    if len(array) != 3:
        raise ValueError(
            "A plane is spanned by three anchors. Received: "
            f"an array of shape {array.shape}"
        )
    exact = np.asarray(arranged(anchors, inputs, "anchors", ValueError)[0], "float64")
    spread = np.linalg.svd((exact[1:] - exact[0]).reshape(2, -1), compute_uv=False)
    if len(spread) < 2 or spread[1] <= 1e-9 * spread[0]:
        raise ValueError(
            "The three anchors lie on one line, so they span no plane. Take another "
            f"third one. Received: differences of singular values {spread}"
        )
    return exact


def _check_classes(
    classes: Sequence[int] | None, outputs: int
) -> tuple[int, int] | None:
    if classes is None:
        return None
    given = tuple(classes)
    if given[0] == given[1] or max(given) >= outputs:
        raise ValueError(
            f"`classes` must be two different ones of the {outputs} outputs, counted "
            f"from 0. Received: classes={classes}"
        )
    return given[0], given[1]


def _stops(stops: tuple[str, ...], layers: Iterable[str] | None) -> tuple[str, ...]:
    if layers is None:
        return stops
    return stops[: max(map(stops.index, asked_layers(layers, stops))) + 1]
