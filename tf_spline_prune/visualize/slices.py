"""Pictures of slices: the lines of every layer, the boundary, regions and data."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_spline_prune._checks import Flag, Instance, ListOf, MapOf, check, checked
from tf_spline_prune.files import PathLike
from tf_spline_prune.partition import Slice
from tf_spline_prune.visualize.figures import (
    ACCENT,
    AXES,
    FILE,
    SOME_AXES,
    new_figure,
    written,
)
from tf_spline_prune.visualize.slice_contents import (
    FILL,
    Filling,
    as_pixels,
    check_contents,
    draw_anchors,
    draw_fills,
    draw_points,
)

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
    """Draw the regions of a network on a plane of its input space.

    The lines of early layers are dark and thick, those of late ones light and thin.
    On top of them is the decision boundary, where the slice is complete.

    Args:
        s: What `tsp.slice2d` gave; a partial one too.
        path: File for the picture; its ending chooses the format.
        axes: A `matplotlib.axes.Axes` to draw on; `None` makes a figure.
        fill: What the colour of a region tells: `"area"`, `"slope"`, which is the norm
            of its affine map of (u, v), or `"class"`, which wins; `None` leaves them
            white.
        points: Array of shape `(n, 2)`: data to show, in (u, v). For inputs of the
            model, `s.coordinates(inputs)` are those of the nearest points.
        labels: Array of shape `(n,)`: the classes of the points, counted from 0.
        images: Whether to show the anchors, which are images, beside their places.

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
    """Draw several slices side by side, such as those before and after pruning.

    A layer has the same colour in all of them, and the last has the legend.

    Args:
        slices: The slices by what stands over them.
        path: File for the picture; its ending chooses the format.
        axes: As many `matplotlib.axes.Axes`, in an array of any shape, to draw on;
            `None` makes a figure with one row.
        fill: As in `plot_slice`; all have one scale.
        points: As in `plot_slice`; the same on all.
        labels: As in `plot_slice`.
        images: As in `plot_slice`.

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
    """Give the axes to draw on, in a row, with room below for a scale."""
    if axes is None:
        side = 4.6 if count == 1 else 2.8
        figure = new_figure((side * count + 1.6, side + 0.4 + 0.7 * scale))
        grid = figure.subplots(1, count, squeeze=False)
    else:
        if isinstance(axes, np.ndarray):
            axes = axes.ravel()
        wanted = ListOf(SOME_AXES, "axes of matplotlib, one a slice", 0)
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
    share = min(1.0, (_MANY_REGIONS / s.num_regions) ** 0.5)
    handles = {}
    for name, segments in s.lines.items():
        place = layers.index(name) / max(1, len(layers) - 1)
        handles[name] = collections.LineCollection(
            segments,
            colors=[colours(0.15 + 0.62 * place)],
            linewidths=share * (1.3 - 0.7 * place),
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
