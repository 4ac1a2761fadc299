"""The picture of local complexity: how many knots lie near data, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import Text, checked, received
from tf_spline_prune._files import PathLike
from tf_spline_prune.visualize._figures import (
    AXES,
    BLUE,
    EPOCH,
    FILE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    SKY,
    axes_or_new,
    mark_ticket,
    written,
)

# What the callback puts before the names of its curves in the logs.
_PREFIX = "local_complexity/"
_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, INK, GREY)


@checked(ticket_epoch=EPOCH, path=FILE, axes=AXES, label=Text())
def plot_local_complexity(
    curves: Mapping[str, Sequence[float]],
    ticket_epoch: int | None = None,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    label: str = "local complexity",
) -> Any:
    """Plot, epoch by epoch, how finely the input space is cut near some inputs.

    Args:
        curves: For the name of each curve its values, one per epoch, NaN where none
            was measured; or what `fit` keeps as `history.history`, of which the
            entries are drawn whose names begin with `local_complexity/`.
        ticket_epoch: The epoch of the early bird to mark, counted from 0. Defaults to
            `None`.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.
        label: What the values are. Defaults to `"local complexity"`.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `curves` is no mapping.
        ValueError: If there are no curves, more than can be told apart, or one is
            no sequence of numbers.

    Example:

    ```python
    history = model.fit(train, epochs=50, callbacks=[complexity, bird])
    tsp.visualize.plot_local_complexity(
        history.history, bird.ticket_epoch, "complexity.png"
    )
    ```

    Source: Humayun et al., "Deep Networks Always Grok and Here is Why", ICML 2024.
    """
    found = _curves_of(curves)
    axes = axes_or_new(axes, (6.4, 3.6))
    for place, (name, values) in enumerate(found.items()):
        measured = np.flatnonzero(np.isfinite(values))
        axes.plot(
            measured + 1,
            values[measured],
            color=_COLOURS[place],
            marker="osD^vPX"[place],
            markersize=3.5,
            # Of many epochs some bear the mark.
            markevery=max(1, len(measured) // 12),
            linewidth=1.4,
            label=name,
        )
    mark_ticket(axes, ticket_epoch)
    axes.set(xlabel="epoch", ylabel=label, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    written(axes.figure, path)
    return axes


def _curves_of(given: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    if not isinstance(given, Mapping) or not all(isinstance(n, str) for n in given):
        raise TypeError(
            "Expected a mapping from names to curves, such as `history.history`. "
            f"Received: {received(given)}"
        )
    logged = {n: values for n, values in given.items() if n.startswith(_PREFIX)}
    curves = {}
    for name, values in (logged or given).items():
        try:
            curve = np.asarray(values, "float64")
        except Exception:  # whatever a user's class raises
            curve = np.array(np.nan)
        if curve.ndim != 1 or not np.isfinite(curve).any():
            raise ValueError(
                "A curve must be a sequence of numbers, one per epoch. Received: "
                f"{name!r} with {received(values)}"
            )
        curves[name.removeprefix(_PREFIX)] = curve
    if not 1 <= len(curves) <= len(_COLOURS):
        raise ValueError(
            f"Expected 1 to {len(_COLOURS)} curves, which can be told apart. Received: "
            f"{len(curves)}"
        )
    return curves
