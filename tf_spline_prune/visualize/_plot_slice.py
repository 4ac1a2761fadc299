"""Pictures of slices: the lines of every layer, the boundary, regions and data."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import (
    Array,
    Flag,
    Instance,
    ListOf,
    MapOf,
    OneOf,
    Options,
    check,
    checked,
)
from tf_spline_prune._files import PathLike
from tf_spline_prune.partition import Slice
from tf_spline_prune.visualize._figures import (
    ACCENT,
    AXES,
    FILE,
    INK,
    SOME_AXES,
    new_figure,
    written,
)

Filling = Literal["area", "slope", "class"]
FILL: Options = [OneOf(*get_args(Filling)), None]
# The colours of classes: the muted ones of Paul Tol, made for the colour-blind.
_CLASSES = (
    *("#332288", "#ddcc77", "#117733", "#cc6677", "#88ccee"),
    *("#999933", "#aa4499", "#44aa99", "#882255", "#888888"),
)
_MARKS = "osD^v"
# The scale of colours covers the regions that fill this fraction of the plane; slivers
# beyond it would stretch the scale until the others look alike.
_FRACTION = 0.99
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
            "`labels` must be one class per point, whole numbers from 0 on. Received: "
            f"shape {labels.shape}, dtype {labels.dtype}, for {len(points)} points"
        )
    return points, labels


def as_pixels(count: int) -> bool:
    """Return whether so many shapes are to be pixels in a vector file."""
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
    count = np.searchsorted(np.cumsum(areas[order]), _FRACTION * areas.sum()) + 1
    return np.asarray(values[order[:count]])


# More names of layers than this make the legend longer than the picture.
_MOST_NAMES = 8
# From so many regions on lines become thinner, lest the picture turn black.
_MANY_REGIONS = 1000


@checked(s=Instance(Slice), path=FILE, axes=AXES, fill=FILL, images=Flag())
def plot_slice(
    s: Slice,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    fill: Filling | None = None,
    points: Any = None,
    labels: Any = None,
    images: bool = False,
) -> Any:
    """Plot the regions of a network on a plane of its input space.

    The lines of early layers are dark and thick, those of late ones light and thin.
    On top of them is the decision boundary, where the slice is complete.

    Args:
        s: What `tsp.slice2d` gave; a partial one too.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.
        fill: What the colour of a region tells: `"area"`, `"slope"`, which is the norm
            of its affine map of (u, v), or `"class"`, which wins. Defaults to `None`,
            which leaves them white.
        points: Array of shape `(n, 2)`: data to show, in (u, v). For inputs of the
            model, `s.coordinates(inputs)` are those of the nearest points. Defaults to
            `None`.
        labels: Array of shape `(n,)`: the classes of the points, counted from 0.
            Defaults to `None`.
        images: Whether to show the anchors, which are images, beside their places.
            Defaults to `False`.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `s` is no `Slice`.
        ValueError: If another argument is out of range, or `fill` asks for what only
            complete slices tell.

    Example:

    ```python
    s = tsp.slice2d(model, x_test[:3], extent=(-0.5, 1.5))
    tsp.visualize.plot_slice(s, "slice.png", fill="class", images=True)
    ```

    Source: the pictures of You et al., TMLR 2022, figures 1 to 3, from exact regions,
    and with the ties of the two largest outputs for a boundary.
    """
    (axes,) = plot_slices(
        {"": s},
        path,
        axes=None if axes is None else [axes],
        fill=fill,
        points=points,
        labels=labels,
        images=images,
    )
    return axes


@checked(
    slices=MapOf(Instance(str), Instance(Slice), "a dictionary from names to slices"),
    path=FILE,
    fill=FILL,
    images=Flag(),
)
def plot_slices(
    slices: Mapping[str, Slice],
    path: PathLike | None = None,
    *,
    axes: Iterable[Any] | None = None,
    fill: Filling | None = None,
    points: Any = None,
    labels: Any = None,
    images: bool = False,
) -> np.ndarray:
    """Plot several slices side by side, such as those before and after pruning.

    A layer has the same colour in all of them, and the last has the legend.

    Args:
        slices: The slices by what stands over them.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: As many `matplotlib.axes.Axes`, in an array of any shape, to draw on.
            Defaults to `None`, which makes a figure with one row.
        fill: What the colour of a region shows: `"area"`, `"slope"` or `"class"`; all
            slices have one scale. Defaults to `None`, which leaves them white.
        points: Array of shape `(n, 2)`: data to show on all slices, in (u, v). Defaults
            to `None`.
        labels: Array of shape `(n,)`: the classes of the points, counted from 0.
            Defaults to `None`.
        images: Whether to show the anchors, which are images, beside their places.
            Defaults to `False`.

    Returns:
        The `matplotlib.axes.Axes`, an array of shape `(slices,)`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If one of `slices` is no `Slice`.
        ValueError: If there is none, or another argument is out of range.

    Example:

    ```python
    nets = {"whole": model, "half": tsp.prune(model, target_macs=0.5)}
    tsp.visualize.plot_slices(
        {name: tsp.slice2d(net, x_test[:3]) for name, net in nets.items()}, "pruned.png"
    )
    ```
    """
    points, labels = check_contents(slices, fill, points, labels, images)
    grid = _grid(axes, len(slices), fill in ("area", "slope"))
    layers = list(dict.fromkeys(name for s in slices.values() for name in s.layers))
    panels = dict(zip(grid, slices.values(), strict=True))
    fills = draw_fills(panels, fill)
    data: dict[str, Any] = {}
    handles: dict[str, Any] = {}
    for one, (name, s) in zip(grid, slices.items(), strict=True):
        handles |= _draw_lines(one, s, layers)
        if points is not None:
            data |= draw_points(one, points, labels)
        if images:
            draw_anchors(one, s.anchors)
        low, high = s.points.min(), s.points.max()
        one.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        one.set(xlabel="u", ylabel="v")
        one.label_outer()
        one.set_title(_title(name, s), fontsize=10)
    some = np.linspace(0, len(layers) - 1, min(len(layers), _MOST_NAMES))
    shown = {layers[round(place)] for place in some}
    named = {n: h for n, h in handles.items() if n in shown or n not in layers}
    named |= fills | data
    if named:
        legend = grid[-1].legend(
            named.values(),
            named.keys(),
            frameon=False,
            fontsize=8,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
        for line in legend.get_lines():
            line.set_linewidth(max(line.get_linewidth(), 1.2))
    written(grid[-1].figure, path)
    return grid


def _grid(axes: Iterable[Any] | None, count: int, scale: bool) -> np.ndarray:
    """Return the axes to draw on, in a row, with room below for a scale."""
    if axes is None:
        side = 4.6 if count == 1 else 2.8
        figure = new_figure((side * count + 1.6, side + 0.4 + 0.7 * scale))
        grid = figure.subplots(1, count, squeeze=False)
    else:
        if isinstance(axes, np.ndarray):
            axes = axes.ravel()
        wanted = ListOf(SOME_AXES, "axes of matplotlib, one per slice", 0)
        grid = np.array(check("axes", axes, wanted), object)
    if grid.size != count:
        raise ValueError(
            "There must be as many axes as slices. Received: "
            f"{grid.size} axes and {count} slices"
        )
    return np.asarray(grid.ravel())


def _title(name: str, s: Slice) -> str:
    many = "region" if s.num_regions == 1 else "regions"
    cut = "" if s.complete else f", cut through {s.exact_through or 'no layer'}"
    return f"{name}\n{s.num_regions:,} {many}{cut}".strip()


def _draw_lines(axes: Any, s: Slice, layers: list[str]) -> dict[str, Any]:
    """Draw the lines of the layers, early ones on top, and the boundary on them."""
    collections = importlib.import_module("matplotlib.collections")
    colours = importlib.import_module("matplotlib").colormaps["viridis"]
    fraction = min(1.0, (_MANY_REGIONS / s.num_regions) ** 0.5)
    handles = {}
    for name, segments in s.lines.items():
        place = layers.index(name) / max(1, len(layers) - 1)
        handles[name] = collections.LineCollection(
            segments,
            colors=[colours(0.15 + 0.62 * place)],
            linewidths=fraction * (1.3 - 0.7 * place),
            capstyle="round",
            zorder=2 - place / 2,
            rasterized=as_pixels(len(segments)),
        )
        axes.add_collection(handles[name], autolim=False)
    if s.complete:
        # A white rim sets it off from the lines.
        for colour, width in (("white", 3.6), (ACCENT, 1.9)):
            drawn = collections.LineCollection(
                s.boundary, colors=[colour], linewidths=width, zorder=3
            )
            drawn.set_capstyle("round")
            axes.add_collection(drawn, autolim=False)
        handles["decision boundary"] = drawn
    return handles
