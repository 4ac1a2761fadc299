"""Figures and files of pictures; matplotlib comes with the extra `viz`."""

import importlib
from typing import Any

from tf_spline_prune._checks import Having, Integer, Options, Path
from tf_spline_prune._files import PathLike, atomic_file

INK, ACCENT = "#333333", "#c0392b"
# Of Okabe and Ito: to be told apart by the colour-blind too.
BLUE, ORANGE, GREEN, PINK, SKY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"
GREY = "#9a9a9a"

# What the checks of arguments want of what all pictures take.
FILE: Options = [Path(), None]
SOME_AXES = Having("figure", "plot", what="axes of matplotlib")
AXES: Options = [SOME_AXES, None]
EPOCH: Options = [Integer(0, 2**31 - 1), None]


def axes_or_new(axes: Any, size: tuple[float, float]) -> Any:
    """Return the axes to draw on.

    Args:
        axes: A `matplotlib.axes.Axes` of the caller's, or `None` for one that is
            alone in a figure of its own, without matplotlib's global state.
        size: Width and height of the new figure in inches.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    return new_figure(size).add_subplot() if axes is None else axes


def new_figure(size: tuple[float, float]) -> Any:
    """Make a figure, without matplotlib's global state.

    Args:
        size: Width and height in inches.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with "
            '`pip install "tf-spline-prune[viz]"`.'
        ) from error
    return module.Figure(figsize=size, layout="constrained")


def colour_bar(axes: Any, image: Any, label: str) -> None:
    """Draw beside a map, and as high as it, what its colours mean."""
    beside = axes.inset_axes([1.03, 0, 0.045, 1])
    axes.figure.colorbar(image, cax=beside, label=label)


def written(figure: Any, path: PathLike | None) -> None:
    """Write a figure to a file, if one is wanted."""
    if path is not None:
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=150)


def mark_ticket(axes: Any, ticket_epoch: int | None) -> None:
    """Mark the epoch of the early bird, counted from 0, if there is one."""
    if ticket_epoch is not None:
        axes.axvline(ticket_epoch + 1, color=ACCENT, linewidth=1, linestyle="--")
        title = f"early bird after epoch {ticket_epoch + 1}"
        axes.set_title(title, color=ACCENT, fontsize=10)
