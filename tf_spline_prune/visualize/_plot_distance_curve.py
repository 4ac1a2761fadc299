"""Pictures of an early-bird search: the distances, as a map and as a curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    Array,
    Integer,
    ListOf,
    MapOf,
    Real,
    Text,
    checked,
    received,
)
from tf_spline_prune._files import PathLike
from tf_spline_prune.visualize._figures import (
    ACCENT,
    AXES,
    EPOCH,
    FILE,
    INK,
    axes_or_new,
    colour_bar,
    mark_ticket,
    written,
)


@checked(
    matrix=Array("a square matrix of distances", ndim=2),
    ticket_epoch=EPOCH,
    path=FILE,
    axes=AXES,
    label=Text(),
)
def plot_distance_matrix(
    matrix: np.ndarray,
    ticket_epoch: int | None = None,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    label: str = "fraction of bits that differ",
    learning_rates: Sequence[float] | None = None,
) -> Any:
    """Plot the distances between all epochs as a heat map.

    Args:
        matrix: Array of shape `(epochs, epochs)`, as `distance_matrix` gives it.
        ticket_epoch: The epoch to mark, counted from 0. Defaults to `None`.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.
        label: What the distances are. Defaults to `"fraction of bits that differ"`.
        learning_rates: The rate of each epoch, to draw above the map: where it falls,
            distances fall, whether or not the network has settled. Defaults to `None`.

    Returns:
        The `matplotlib.axes.Axes` of the map; that of the rates is the last of its
        `child_axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the matrix is not square, or the rates are not one number
            of at least 0 an epoch.

    Example:

    ```python
    tsp.visualize.plot_distance_matrix(
        bird.distance_matrix(), bird.ticket_epoch, "map.png"
    )
    ```
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            "Expected a square matrix of distances between epochs. Received: shape "
            f"{matrix.shape}"
        )
    rates = None
    if learning_rates is not None:
        rates = _check_rates(learning_rates, len(matrix))
    axes = axes_or_new(axes, (5.2, 4.4 if rates is None else 5.1))
    edges = np.arange(len(matrix) + 1) + 0.5
    image = axes.pcolormesh(edges, edges, matrix, cmap="viridis_r")
    colour_bar(axes, image, label)
    top = axes if rates is None else _draw_rates(axes, edges, rates)
    if ticket_epoch is not None:
        at = ticket_epoch + 1
        axes.axvline(at, color=ACCENT, linewidth=1, linestyle="--")
        axes.axhline(at, color=ACCENT, linewidth=1, linestyle="--")
        top.set_title(f"early bird after epoch {at}", color=ACCENT, fontsize=10)
    axes.set(xlabel="epoch", ylabel="epoch", aspect="equal")
    written(axes.figure, path)
    return axes


@checked(
    records=MapOf(
        Integer(0),
        ListOf(Real(0, 1), "distances"),
        "a dictionary from epochs to lists of distances",
        hint="Train with the callback first.",
    ),
    threshold=[Real(0, 1), None],
    ticket_epoch=EPOCH,
    path=FILE,
    axes=AXES,
    label=Text(),
)
def plot_distance_curve(
    records: Mapping[int, list[float]],
    threshold: float | None = None,
    ticket_epoch: int | None = None,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    label: str = "fraction of bits that differ",
) -> Any:
    """Plot, epoch by epoch, how far the newest snapshot is from earlier ones.

    Args:
        records: For each epoch, counted from 0, the distances to the snapshots
            of the last epochs, the nearest first: `EarlyBird.records`.
        threshold: The bound to draw. Defaults to `None`.
        ticket_epoch: The epoch to mark, counted from 0. Defaults to `None`.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.
        label: What the distances are. Defaults to `"fraction of bits that differ"`.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no records.

    Example:

    ```python
    tsp.visualize.plot_distance_curve(
        bird.records, bird.threshold, bird.ticket_epoch, "curve.png"
    )
    ```
    """
    axes = axes_or_new(axes, (6.4, 3.6))
    epochs = np.array(sorted(records)) + 1
    lags = max(len(distances) for distances in records.values())
    shades = np.linspace(0.35, 1.0, lags)
    for lag in range(lags):
        values = [
            records[e - 1][lag] if len(records[e - 1]) > lag else np.nan for e in epochs
        ]
        name = "to the epoch before" if lag == 0 else f"to {lag + 1} epochs before"
        axes.plot(
            epochs, values, color=INK, alpha=shades[lag], linewidth=1.4, label=name
        )
    if threshold is not None:
        axes.axhline(threshold, color=ACCENT, linewidth=1, label="threshold")
    mark_ticket(axes, ticket_epoch)
    axes.set(xlabel="epoch", ylabel=label, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    written(axes.figure, path)
    return axes


def _check_rates(rates: Sequence[float], epochs: int) -> np.ndarray:
    try:
        given = np.asarray(rates)
    except Exception:  # whatever a list of unequal lists, or a user's class, raises
        given = np.asarray(None)
    numbers = given.dtype.kind in "fiu" and given.shape == (epochs,)
    if not numbers or not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError(
            f"`learning_rates` must be {epochs} numbers of at least 0, one per epoch. "
            f"Received: {received(rates)}"
        )
    return given


def _draw_rates(axes: Any, edges: np.ndarray, rates: np.ndarray) -> Any:
    strip = axes.inset_axes([0, 1.03, 1, 0.15], sharex=axes)
    strip.stairs(rates, edges, baseline=None, color=INK, linewidth=1.4)
    # Rates fall by factors.
    if rates.min() > 0 and rates.max() > 5 * rates.min():
        strip.set_yscale("log")
    strip.set_ylabel("learning\nrate", fontsize=8)
    strip.tick_params(axis="x", labelbottom=False)
    strip.tick_params(axis="y", labelsize=7)
    strip.spines[["top", "right"]].set_visible(False)
    return strip
