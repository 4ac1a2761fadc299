"""The picture of a plan: every unit of every layer, kept or removed."""

import importlib
from collections import Counter
from typing import Any

import numpy as np

from tf_spline_prune._checks import Instance, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.visualize._figures import (
    AXES,
    BLUE,
    FILE,
    GREY,
    ORANGE,
    axes_or_new,
    written,
)

# The cells of a layer of more units are too narrow to be set apart.
_MOST_CELLS = 80
_KEPT, _REMOVED, _BARRED = range(3)
_MEANINGS = {_KEPT: "kept", _REMOVED: "pruned", _BARRED: "unprunable"}


@checked(plan=Instance(PruningPlan), path=FILE, axes=AXES)
def plot_plan(
    plan: PruningPlan, path: PathLike | None = None, *, axes: Any = None
) -> Any:
    """Plot which units a plan keeps and which it prunes, one row per layer.

    Each layer fills the whole width, its units from left to right in the order of
    the original model. Layers none of whose units may go are grey.

    Args:
        plan: What `tsp.plan` gave.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `plan` is no `PruningPlan`.
        ValueError: If no layer of its model makes units.

    Example:

    ```python
    plan = tsp.plan(model, sparsity=0.5)
    tsp.visualize.plot_plan(plan, "plan.png")
    ```
    """
    if not plan.units:
        raise ValueError(
            "There is nothing to draw: no layer of the model produces units. Received: "
            f"a plan for {plan.model!r}"
        )
    names = list(plan.units)
    axes = axes_or_new(axes, (7.2, 1.5 + 0.22 * len(names)))
    matplotlib = importlib.import_module("matplotlib")
    look = matplotlib.colors.ListedColormap([BLUE, ORANGE, GREY])
    fates = _fates(plan)
    for row, name in enumerate(names):
        axes.imshow(
            fates[name][None],
            extent=(0, 100, row + 0.42, row - 0.42),
            cmap=look,
            vmin=_KEPT,
            vmax=_BARRED,
            aspect="auto",
            # Where several units share a pixel, their colours are mixed.
            interpolation="antialiased",
            interpolation_stage="rgba",
        )
        count = len(fates[name])
        if count <= _MOST_CELLS:
            edges = 100 * np.arange(1, count) / count
            axes.vlines(edges, row - 0.45, row + 0.45, color="white", linewidth=0.6)
    counts = [f"{old} → {new}  ({new / old:.0%})" for old, new in plan.units.values()]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), counts, fontsize=7)
    right.set_ylabel("units before → after", fontsize=8)
    for side in (axes, right):
        side.tick_params(axis="y", length=0)
        side.spines[:].set_visible(False)
    axes.set_xlabel("units of the layer, from the first to the last (%)")
    axes.set_title(_title(plan), fontsize=10, pad=22)
    seen = sorted(set(np.concatenate(list(fates.values())).tolist()))
    patch = importlib.import_module("matplotlib.patches").Patch
    axes.legend(
        handles=[patch(color=look(fate), label=_MEANINGS[fate]) for fate in seen],
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        borderaxespad=0.2,
    )
    written(axes.figure, path)
    return axes


def _fates(plan: PruningPlan) -> dict[str, np.ndarray]:
    barred: Counter[str] = Counter()
    for barrier in plan.barriers:
        barred[barrier.layer] += barrier.units
    fates = {}
    for name, (count, _) in plan.units.items():
        # Which ones must stay is known only where all must.
        fate = np.full(count, _BARRED if barred[name] >= count else _KEPT)
        fate[list(plan.removed.get(name, ()))] = _REMOVED
        fates[name] = fate
    return fates


def _title(plan: PruningPlan) -> str:
    before = sum(old for old, _ in plan.units.values())
    after = sum(new for _, new in plan.units.values())
    title = f"{plan.criterion}: {after:,} of {before:,} units kept"
    if plan.before.macs and plan.after.macs is not None:
        title += f", {plan.after.macs / plan.before.macs:.0%} of the MACs"
    return title
