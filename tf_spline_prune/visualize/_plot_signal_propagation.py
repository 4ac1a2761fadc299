"""The picture of a diagnosis: signals, gradients and densities through depth."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import Instance, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.initialization import SignalPropagation
from tf_spline_prune.visualize._figures import (
    ACCENT,
    AXES,
    FILE,
    INK,
    axes_or_new,
    written,
)

# So many layers are named; of more, the numbers stand below the picture.
_MOST_NAMES = 24


@checked(diagnosis=Instance(SignalPropagation), path=FILE, axes=AXES)
def plot_signal_propagation(
    diagnosis: SignalPropagation,
    path: PathLike | None = None,
    *,
    axes: Any = None,
) -> Any:
    """Plot what `signal_propagation` measured, layer by layer.

    Curves, on a logarithmic scale: the mean square of the pre-activations and, where
    there were labels, of the gradients. Bars, from 0 to 1: the density, and in it
    the dead units. A value of zero has no place on the scale and leaves a gap.

    Args:
        diagnosis: What `signal_propagation` gave.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on; `None` makes a figure. The bars have
            a second axis on its right. Defaults to `None`.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `diagnosis` is no `SignalPropagation`.

    Example:

    ```python
    found = tsp.initialization.signal_propagation(masked, x, y)
    tsp.visualize.plot_signal_propagation(found, "signal.png")
    ```
    """
    axes = axes_or_new(axes, (7.2, 4.0))
    places = np.arange(1, len(diagnosis.layers) + 1)
    fractions = axes.twinx()
    density, dead = (
        [column[layer] for layer in diagnosis.layers]
        for column in (diagnosis.density, diagnosis.dead_units)
    )
    fractions.bar(places, density, 0.8, color=INK, alpha=0.12, label="density")
    fractions.bar(places, dead, 0.3, color=ACCENT, alpha=0.25, label="dead units")
    fractions.set(ylim=(0, 1), ylabel="fraction")
    curves = [("pre-activations", "o", INK, diagnosis.variance)]
    if diagnosis.gradients is not None:
        curves.append(("gradients", "s", ACCENT, diagnosis.gradients))
    for name, marker, colour, column in curves:
        values = np.array([column[layer] for layer in diagnosis.layers])
        axes.plot(
            places,
            np.where(values > 0, values, np.nan),
            marker=marker,
            markersize=4,
            linewidth=1.4,
            color=colour,
            label=name,
        )
    axes.set(yscale="log", ylabel="mean square", xlabel="layer")
    axes.set_zorder(fractions.get_zorder() + 1)  # curves before bars
    axes.patch.set_visible(False)
    if len(places) <= _MOST_NAMES:
        axes.set_xticks(places, diagnosis.layers, rotation=60, ha="right", fontsize=7)
    if (spectrum := diagnosis.jacobian) is not None:
        title = "singular values {mean:.3g} ± {std:.2g}, condition {condition:.2g}"
        axes.set_title(title.format(**spectrum), fontsize=10)
    from matplotlib.transforms import offset_copy

    # Beyond the numbers and the name of the second axis, however wide the picture is.
    beside = offset_copy(axes.transAxes, axes.figure, x=0.6, units="inches")
    lines, names = axes.get_legend_handles_labels()
    bars, shown = fractions.get_legend_handles_labels()
    axes.legend(
        [*lines, *bars],
        [*names, *shown],
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        bbox_transform=beside,
    )
    written(axes.figure, path)
    return axes
