"""Figures and files of pictures; matplotlib comes with the extra `viz`."""

import importlib
from typing import Any

from tf_spline_prune.files import PathLike, atomic_file

INK, ACCENT = "#333333", "#c0392b"


def new_axes(size: tuple[float, float]) -> tuple[Any, Any]:
    """Make a figure of its own, without matplotlib's global state.

    Args:
        size: Width and height in inches.

    Returns:
        The figure and its axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        figure_module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with "
            '`pip install "tf-spline-prune[viz]"`.'
        ) from error
    figure = figure_module.Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def finished(figure: Any, path: PathLike | None) -> Any:
    """Write a figure to a file, if one is wanted, and hand it back."""
    if path is not None:
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return figure
