"""The picture of a sensitivity analysis: a curve per layer, or a heat map."""

import importlib
from typing import Any

import numpy as np

from tf_spline_prune._checks import Instance, Text, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.pruning import Sensitivity
from tf_spline_prune.visualize._figures import AXES, FILE, INK, axes_or_new, written

# More curves than this cannot be told apart.
_MOST_CURVES = 10


@checked(result=Instance(Sensitivity), path=FILE, axes=AXES, label=Text())
def plot_sensitivity(
    result: Sensitivity,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    label: str = "metric",
) -> Any:
    """Plot what each layer, pruned alone, costs.

    Up to ten layers are drawn as curves over the fraction of units removed, beginning
    at the whole model; more as a heat map with one row per layer, the whole
    model in its first column.

    Args:
        result: What `tsp.sensitivity` gave.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.
        label: What was measured. Defaults to `"metric"`.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `result` is no `Sensitivity`.

    Example:

    ```python
    result = tsp.sensitivity(model, None, evaluate)
    tsp.visualize.plot_sensitivity(
        result, "sensitivity.png", label="validation accuracy"
    )
    ```
    """
    draw = _curves if len(result.metrics) <= _MOST_CURVES else _heat_map
    axes = draw(result, axes, label)
    written(axes.figure, path)
    return axes


def _curves(result: Sensitivity, axes: Any, label: str) -> Any:
    axes = axes_or_new(axes, (7.2, 4.0))
    shares = 100 * np.array([0.0, *result.shares])
    count = len(result.metrics)
    # Early layers dark, late ones light; marks help where colours do not.
    shades = _colours(count)
    for place, (name, values) in enumerate(result.metrics.items()):
        axes.plot(
            shares,
            [result.dense, *values],
            color=shades[place],
            marker="osD^vPX<>h"[place],
            markersize=4,
            linewidth=1.4,
            label=f"{name} ({result.units[name]})",
        )
    axes.axhline(result.dense, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="units removed of one layer (%)", ylabel=label, xlim=(0, None))
    axes.set_title(f"each layer pruned alone, {result.criterion}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        fontsize=8,
        title="layer (units)",
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return axes


def _colours(count: int) -> list[Any]:
    maps = importlib.import_module("matplotlib").colormaps
    return [maps["viridis"](x) for x in np.linspace(0.0, 0.9, count)]


def _heat_map(result: Sensitivity, axes: Any, label: str) -> Any:
    names = list(result.metrics)
    axes = axes_or_new(axes, (6.4, 1.2 + 0.2 * len(names)))
    values = np.array([[result.dense, *result.metrics[name]] for name in names])
    image = axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label=label)
    shares = (0.0, *result.shares)
    axes.set_xticks(range(len(shares)), [f"{100 * fraction:g}" for fraction in shares])
    axes.set_yticks(
        range(len(names)), [f"{n} ({result.units[n]})" for n in names], fontsize=7
    )
    axes.set_xlabel("units removed of one layer (%)")
    axes.set_title(
        f"each layer pruned alone, {result.criterion}; whole: {result.dense:.4g}",
        fontsize=10,
    )
    return axes
