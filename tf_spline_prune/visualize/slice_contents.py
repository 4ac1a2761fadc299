"""What pictures of slices show beside lines: filled regions, data, the anchors."""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import Array, OneOf, Options, check
from tf_spline_prune.partition import Slice
from tf_spline_prune.visualize.figures import INK

Filling = Literal["area", "slope", "class"]
FILL: Options = [OneOf(*get_args(Filling)), None]
# The colours of classes: the muted ones of Paul Tol, made for the colour-blind.
_CLASSES = (
    *("#332288", "#ddcc77", "#117733", "#cc6677", "#88ccee"),
    *("#999933", "#aa4499", "#44aa99", "#882255", "#888888"),
)
_MARKS = "osD^v"
# The scale of colours covers the regions that fill this share of the plane; slivers
# beyond it would stretch the scale until the others look alike.
_SHARE = 0.99
# More shapes than this are pixels also in a vector file.
_MOST_SHAPES = 5000


def check_contents(
    slices: Mapping[str, Slice], fill: Any, points: Any, labels: Any, images: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Make sure that slices can be drawn as is asked.

    Args:
        slices: The slices by name.
        fill: What the colours of regions are to tell.
        points: Data to show.
        labels: Their classes.
        images: Whether the anchors are to be shown as images.

    Returns:
        Arrays of the points and of their classes.

    Raises:
        TypeError: If one of `slices` is no `Slice`.
        ValueError: If there is none, or another argument is out of range.
    """
    shape = next(iter(slices.values())).anchors.shape[1:]
    if images and not (len(shape) == 2 or len(shape) == 3 and shape[2] in (1, 3, 4)):
        raise ValueError(
            "`images=True` needs anchors that are images: (height, width) or (height, "
            f"width, 1, 3 or 4 channels). Received: anchors of shape {shape}"
        )
    if points is None:
        if labels is not None:
            raise ValueError("`labels` are those of `points`. Received: no points")
        return None, None
    points = check("points", points, Array(empty=True))
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            "`points` must be of shape (n, 2), in (u, v); `s.coordinates(inputs)` "
            f"gives those of inputs. Received: shape {points.shape}"
        )
    if labels is None:
        return points, None
    labels = np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != points.shape[:1] or not whole or labels.min(initial=0) < 0:
        raise ValueError(
            "`labels` must be one class a point, whole numbers from 0 on. Received: "
            f"shape {labels.shape}, dtype {labels.dtype}, for {len(points)} points"
        )
    return points, labels


def as_pixels(count: int) -> bool:
    """Tell whether so many shapes are to be pixels in a vector file."""
    return count > _MOST_SHAPES


def draw_fills(panels: Mapping[Any, Slice], fill: Filling | None) -> dict[str, Any]:
    """Fill the regions of slices with colours on one scale.

    Args:
        panels: The slices by the axes to draw on.
        fill: What the colours tell.

    Returns:
        What the legend shows, by name. A scale goes beside the axes.
    """
    if fill is None:
        return {}
    if fill == "class":
        return _fill_classes(panels)
    colours = importlib.import_module("matplotlib.colors")
    values = {
        axes: s.areas if fill == "area" else np.linalg.norm(s.affine[0], axis=(1, 2))
        for axes, s in panels.items()
    }
    seen = np.concatenate([_large(values[axes], s.areas) for axes, s in panels.items()])
    scale = colours.LogNorm if fill == "area" else colours.Normalize
    norm = scale(seen.min(), seen.max(), clip=True)
    # Light, for the lines are to be seen on it; the small and the steep are darker.
    greys = importlib.import_module("matplotlib").colormaps["Greys"]
    shades = colours.ListedColormap(greys(np.linspace(0.0, 0.55, 256)))
    shades = shades.reversed() if fill == "area" else shades
    for axes, s in panels.items():
        look = {"array": values[axes], "norm": norm, "cmap": shades}
        drawn = _fill(axes, s.points, s.offsets, **look)
    label = "area of a region" if fill == "area" else "norm of the slope in (u, v)"
    axes.figure.colorbar(
        drawn, ax=list(panels), label=label, location="bottom", shrink=0.7, aspect=40
    )
    return {}


def draw_points(
    axes: Any, points: np.ndarray, labels: np.ndarray | None
) -> dict[str, Any]:
    """Draw data, each class with a colour and a mark of its own.

    Args:
        axes: What to draw on.
        points: Array of shape `(n, 2)`.
        labels: Array of shape `(n,)`, or `None`.

    Returns:
        What the legend shows, by name.
    """
    look = {"s": 9, "linewidths": 0.4, "edgecolors": "white", "zorder": 2.7}
    if labels is None:
        return {"data": axes.scatter(*points.T, color=INK, **look)}
    return {
        f"class {k}": axes.scatter(
            *points[labels == k].T,
            color=_CLASSES[k % len(_CLASSES)],
            marker=_MARKS[k % len(_MARKS)],
            **look,
        )
        for k in np.unique(labels)
    }


def draw_anchors(axes: Any, anchors: np.ndarray) -> None:
    """Show the three anchors, which are images, beside their places."""
    boxes = importlib.import_module("matplotlib.offsetbox")
    low, high = anchors.min(), anchors.max()
    images = (anchors - low) / (high - low)
    for image, (u, v) in zip(images, ((0, 0), (1, 0), (0, 1)), strict=True):
        pixels = image[..., 0] if image.shape[2:] == (1,) else image
        box = boxes.OffsetImage(pixels, zoom=26 / len(pixels), cmap="gray_r")
        box.get_children()[0].set_clim(0, 1)
        # A corner of the image is at its place, and the image inside the picture.
        axes.add_artist(
            boxes.AnnotationBbox(
                box,
                (u, v),
                box_alignment=(u, v),
                pad=0.15,
                bboxprops={"edgecolor": INK},
                zorder=4,
            )
        )
        axes.plot(u, v, "o", color=INK, markersize=4, zorder=5)


def _fill_classes(panels: Mapping[Any, Slice]) -> dict[str, Any]:
    patches = importlib.import_module("matplotlib.patches")
    won = set()
    for axes, s in panels.items():
        points, offsets, classes = s.decisions
        colours = np.array(_CLASSES)[classes % len(_CLASSES)]
        _fill(axes, points, offsets, facecolors=colours, alpha=0.4)
        won |= set(classes.tolist())
    return {
        f"class {k}": patches.Patch(color=_CLASSES[k % len(_CLASSES)], alpha=0.4)
        for k in sorted(won)
    }


def _fill(axes: Any, points: np.ndarray, offsets: np.ndarray, **look: Any) -> Any:
    collections = importlib.import_module("matplotlib.collections")
    polygons = np.split(points, offsets[1:-1])
    drawn = collections.PolyCollection(
        polygons,
        zorder=1,
        linewidths=0,
        antialiaseds=False,  # or the joints between neighbours would shine through
        rasterized=as_pixels(len(polygons)),
        **look,
    )
    axes.add_collection(drawn, autolim=False)
    return drawn


def _large(values: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Take the values of the largest regions, which fill most of the plane."""
    order = np.argsort(-areas)
    count = np.searchsorted(np.cumsum(areas[order]), _SHARE * areas.sum()) + 1
    return np.asarray(values[order[:count]])
