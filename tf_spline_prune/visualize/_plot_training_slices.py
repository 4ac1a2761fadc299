"""Pictures of a partition while it is trained: a strip, and an animation."""

import importlib
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, Instance, Integer, Path, checked
from tf_spline_prune._files import PathLike, atomic_file, with_ending
from tf_spline_prune.callbacks import SliceRecorder
from tf_spline_prune.compat import Progress
from tf_spline_prune.visualize._figures import (
    ACCENT,
    AXES,
    FILE,
    INK,
    axes_or_new,
    new_figure,
    written,
)
from tf_spline_prune.visualize._plot_slice import plot_slices

# In inches: the side of a slice, the height of the curve, and what is between.
_SLICE, _CURVE, _GAP = 1.6, 1.5, 0.35


@checked(recorder=Instance(SliceRecorder), path=FILE, axes=AXES, most=COUNT)
def plot_training_slices(
    recorder: SliceRecorder,
    path: PathLike | None = None,
    *,
    axes: Any = None,
    most: int = 7,
) -> Any:
    """Plot how a partition moves in training: slices over the loss curve.

    Args:
        recorder: A `SliceRecorder` that has seen a training.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` for the loss curve, with room for the slices
            above. Defaults to `None`, which makes a figure.
        most: The most slices to draw; of more, such as lie evenly among them, the first
            and the last included. Defaults to `7`.

    Returns:
        The `matplotlib.axes.Axes` of the curve; those of the slices are its
        `child_axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `recorder` is no `SliceRecorder`.
        ValueError: If it holds no slice, or `most` is less than 1.

    Example:

    ```python
    recorder = tsp.SliceRecorder(anchors, (-2.0, 2.0), epochs=10)
    model.fit(train, epochs=100, callbacks=[recorder])
    tsp.visualize.plot_training_slices(recorder, "strip.png")
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning", TMLR
    2022, figure 4.
    """
    _check(recorder)
    steps = list(recorder.slices)
    places = np.linspace(0, len(steps) - 1, min(most, len(steps)))
    steps = [steps[int(place)] for place in places.round()]
    count = len(steps)
    axes = axes_or_new(axes, (_SLICE * count + 2.6, _SLICE + _CURVE + 1.7))
    _draw_losses(axes, recorder, steps)
    above = _inches_above(axes)
    panels = []
    for place, step in enumerate(steps):
        box = [(place + 0.03) / count, _GAP, 0.94 / count, _SLICE]
        panels.append(axes.inset_axes(box, transform=above, anchor="S"))
        axes.annotate(
            "",
            xy=(step, _loss_at(recorder, step)),
            xytext=((place + 0.5) / count, _GAP - 0.05),
            textcoords=above,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6},
            annotation_clip=False,
        )
    _draw_slices(recorder, steps, panels)
    for panel in panels:
        panel.set(xticks=[], yticks=[], xlabel="", ylabel="")
    written(axes.figure, path)
    return axes


@checked(
    recorder=Instance(SliceRecorder),
    path=Path(),
    frames_per_second=Integer(1, 1000),
    dots_per_inch=Integer(1, 2400),
)
def animate_slices(
    recorder: SliceRecorder,
    path: PathLike,
    *,
    frames_per_second: int = 4,
    dots_per_inch: int = 100,
) -> None:
    """Write an animation of how a partition moves in training.

    The last slice stays for a second longer, and the animation begins again.

    Args:
        recorder: A `SliceRecorder` that has seen a training.
        path: The file, which ends in `.gif`; it appears whole or not at all.
        frames_per_second: Slices a second. Defaults to `4`.
        dots_per_inch: The resolution of the picture, which is 5 x 4.8 inches. Defaults
            to `100`.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If the file cannot be written.
        TypeError: If `recorder` is no `SliceRecorder`.
        ValueError: If it holds no slice, the ending is another, or a number is
            less than 1.

    Example:

    ```python
    recorder = tsp.SliceRecorder(anchors, (-2.0, 2.0), epochs=10)
    model.fit(train, epochs=100, callbacks=[recorder])
    tsp.visualize.animate_slices(recorder, "training.gif")
    ```
    """
    _check(recorder)
    target = with_ending(path, ".gif")
    figure = new_figure((5.0, 4.8))
    parts = figure.subfigures(2, height_ratios=[3, 1])
    top, bottom = (part.subplots() for part in parts)
    writer = importlib.import_module("matplotlib.animation").PillowWriter(
        fps=frames_per_second
    )
    steps = list(recorder.slices)
    progress = Progress(len(steps), "slice")
    with (
        atomic_file(target) as temporary,
        writer.saving(figure, temporary, dots_per_inch),
    ):
        for step in steps:
            top.clear()
            bottom.clear()
            _draw_slices(recorder, [step], [top])
            _draw_losses(bottom, recorder, [step])
            writer.grab_frame()
            # The first frame finds the places, and the others keep them.
            figure.set_layout_engine("none")
            progress.step()
        for _ in range(frames_per_second):
            writer.grab_frame()


def _check(recorder: SliceRecorder) -> None:
    if not recorder.slices:
        raise ValueError(
            "The recorder holds no slices yet. Train with the callback first."
        )


def _inches_above(axes: Any) -> Any:
    """Count x along the axes, from 0 to 1, and y in inches from their upper edge."""
    transforms = importlib.import_module("matplotlib.transforms")
    inches = axes.figure.dpi_scale_trans
    edge = transforms.ScaledTranslation(0, 1, axes.transAxes)
    return transforms.blended_transform_factory(axes.transAxes, inches + edge)


def _draw_slices(recorder: SliceRecorder, steps: list[int], panels: list[Any]) -> None:
    done = recorder.epochs_done
    titles = [f"step {step}, epoch {done[step]}" for step in steps]
    slices = [recorder.slices[step] for step in steps]
    plot_slices(dict(zip(titles, slices, strict=True)), axes=panels)
    for panel in panels:
        panel.title.set_fontsize(8)


def _draw_losses(axes: Any, recorder: SliceRecorder, steps: list[int]) -> None:
    at, values = list(recorder.losses), list(recorder.losses.values())
    axes.plot(at, values, color=INK, linewidth=1.4, label="training loss")
    losses = [_loss_at(recorder, step) for step in steps]
    axes.plot(steps, losses, "o", color=ACCENT, markersize=5, label="slice")
    axes.set(xlabel="optimizer steps", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _loss_at(recorder: SliceRecorder, step: int) -> float:
    """Return the loss at a slice; before the first step the earliest that is known."""
    known = recorder.losses
    return float(np.interp(step, list(known), list(known.values()))) if known else 0.0
