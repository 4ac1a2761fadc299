"""`slice2d`: cut a plane of the input space into the regions of a network."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import Progress, check_inputs
from tf_spline_prune.errors import RegionLimitError
from tf_spline_prune.partition.affine_network import require_one_map
from tf_spline_prune.partition.cutting import cut
from tf_spline_prune.partition.knots import asked_layers
from tf_spline_prune.partition.polygon_slice import TOLERANCE, Slice
from tf_spline_prune.partition.polygons import Polygons
from tf_spline_prune.partition.sliced_network import SlicedNetwork


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
    there. Each layer with knots is a run from the inputs up to it: for a deep network
    the time grows with the square of the depth.

    Two values that differ by less than 1e-12 of the largest in their layer are equal:
    a corner that lies on a knot, and a unit whose line is another's, cut nothing off.
    Regions thinner than that are not told apart.

    Args:
        model: A built model with one input and one output.
        anchors: Array of shape `(3, *input shape)`: three inputs that span the plane
            `x(u, v) = a0 + u (a1 - a0) + v (a2 - a0)`.
        extent: The least and the greatest u and v.
        layers: Names of layers with knots. The plane is cut by all layers up to the
            last of them in the order of computation, for only then are its regions
            exact. `None` cuts by all.
        classes: Two outputs whose tie is the boundary; `None` takes the ties of the
            largest two.
        max_regions: The most regions to hold.
        partial: Whether more than that end the work at the last layer that is
            complete; otherwise they are an error.

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
    low, high = check_limits(extent, max_regions)
    graph = require_one_map(model)
    corners = _check_anchors(anchors, graph.inputs)
    network = SlicedNetwork(model, corners)
    stops = _stops(network.stops, layers)
    pair = _check_classes(classes, network.num_outputs)
    polygons = Polygons.square(low, high)
    counts: dict[str, int] = {}
    progress = Progress(len(stops) + 1, "layer")
    for number, stop in enumerate(stops):
        network.check(polygons, stop)
        finer = _cut_layer(network, polygons, stop, number, max_regions)
        if len(finer) > max_regions:
            if partial:
                done = stops[:number]
                return Slice(done, False, counts, pair, corners, polygons, network)
            raise RegionLimitError(
                f"There are more than {max_regions} regions. Take a smaller `extent`, "
                "a larger `max_regions`, or `partial=True` for what is exact so far. "
                f"Received: {len(polygons)} regions before layer {stop!r}, number "
                f"{number + 1} of {len(stops)}, and at least {len(finer)} with it"
            )
        polygons, counts[stop] = finer, len(finer)
        progress.step()
    complete = stops == network.stops
    if complete:
        network.check(polygons, None)
    progress.step()
    return Slice(stops, complete, counts, pair, corners, polygons, network)


def check_limits(extent: tuple[float, float], max_regions: int) -> tuple[float, float]:
    """Check how far a slice goes.

    Args:
        extent: The least and the greatest u and v.
        max_regions: The most regions to hold.

    Returns:
        The extent.

    Raises:
        ValueError: If one is out of range.
    """
    low, high = map(float, extent)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "`extent` must be two finite numbers, the smaller first. Received: "
            f"extent={extent}"
        )
    if max_regions < 1:
        raise ValueError(
            f"`max_regions` must be at least 1. Received: max_regions={max_regions}"
        )
    return low, high


def _cut_layer(
    network: SlicedNetwork,
    polygons: Polygons,
    stop: str,
    number: int,
    most: int,
) -> Polygons:
    """Cut by the knots of one layer, or until there are too many polygons."""
    done: list[Polygons] = []
    lots = list(network.lots(polygons))
    while lots and sum(map(len, done + lots)) <= most:
        lot = lots.pop()
        functions = network.functions(stop, lot.points)
        tolerance = TOLERANCE * max(float(np.abs(f).max()) for f in functions)
        room = most - sum(map(len, done + lots))
        settled, again = cut(lot, functions, tolerance, number, room)
        done.append(settled)
        lots.extend(network.lots(again))
    return Polygons.joined(done + lots)


def _check_anchors(anchors: Any, inputs: Sequence[Any]) -> np.ndarray:
    (array,) = check_inputs([anchors], inputs, "anchors", ValueError)
    if len(array) != 3:
        raise ValueError(
            "A plane is spanned by three anchors. Received: "
            f"an array of shape {array.shape}"
        )
    exact = np.asarray(anchors, "float64")
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
    fits = len(set(given)) == len(given) == 2
    if not fits or not all(0 <= one < outputs for one in given):
        raise ValueError(
            f"`classes` must be two different ones of the {outputs} outputs, counted "
            f"from 0. Received: classes={classes}"
        )
    return int(given[0]), int(given[1])


def _stops(stops: tuple[str, ...], layers: Iterable[str] | None) -> tuple[str, ...]:
    if layers is None:
        return stops
    return stops[: max(map(stops.index, asked_layers(layers, stops))) + 1]
