"""The picture of a criterion: bundles of units that are close to one another."""

import importlib
from typing import Any

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune._checks import FRACTION, Text, checked
from tf_spline_prune._files import PathLike
from tf_spline_prune.compat import Calibration
from tf_spline_prune.criteria import AnyCriterion, PairCriterion
from tf_spline_prune.criteria._get import CRITERION
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning import PruningPlan, plan as make_plan
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.visualize._figures import (
    ACCENT,
    AXES,
    BLUE,
    FILE,
    ORANGE,
    axes_or_new,
    colour_bar,
    written,
)

# The numbers of more units than this cannot be read.
_MOST_NUMBERS = 48


@checked(
    layer=Text("the name of a layer or group"),
    plan=[PLAN, None],
    path=FILE,
    sparsity=[FRACTION, None],
    criterion=CRITERION,
    axes=AXES,
)
def plot_redundancy(
    model: Any,
    layer: str,
    plan: PruningPlan | None = None,
    path: PathLike | None = None,
    *,
    sparsity: float | None = None,
    criterion: AnyCriterion = "spline",
    data: Any = None,
    axes: Any = None,
) -> Any:
    """Plot how far apart the units of a layer are, and which of them are pruned.

    A **bundle** is a kept unit and the pruned units to which it is the nearest kept
    one. Units are ordered so that bundles stand together, frames mark those of several
    units, and bundles that are alike stand side by side.

    Args:
        model: A built model of either flavour.
        layer: Name of a layer whose units may be pruned, or of a group.
        plan: What `tsp.plan` decided for this model. Defaults to `None`.
        path: File for the picture; its ending chooses the format. Defaults to `None`.
        sparsity: In the place of a plan, the fraction of the layer's units to prune.
            Defaults to `None`.
        criterion: What measures the distances, and decides where `sparsity` is given:
            `"spline"`, or another criterion of pairs. Defaults to `"spline"`.
        data: Inputs for criteria that read any, as for `tsp.plan`. Defaults to `None`.
        axes: A `matplotlib.axes.Axes` to draw on. Defaults to `None`, which makes a
            figure.

    Returns:
        The `matplotlib.axes.Axes`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ImportError: If matplotlib is not installed.
        PlanError: If the plan was made for another model.
        TypeError: If the criterion measures no pairs, or `plan` is no plan.
        ValueError: If there is no such layer, or not one of `plan` and `sparsity`.

    Example:

    ```python
    tsp.visualize.plot_redundancy(model, "conv2d_3", sparsity=0.5, path="units.png")
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning", TMLR
    2022, section 3: of a bundle of redundant units one remains.
    """
    measure = criteria.get(criterion)
    if not isinstance(measure, PairCriterion):
        raise TypeError(
            "Distances need a criterion of pairs of units, such as `Spline`. "
            f"Received: criterion={criterion!r}"
        )
    if (plan is None) == (sparsity is None):
        raise ValueError(
            "Give either `plan` or `sparsity`, which says what to prune. Received: "
            f"plan={plan!r}, sparsity={sparsity!r}"
        )
    if plan is None:
        producer = _group_of(ChannelGraph(model), layer).makers[0]
        fractions: dict[str, Any] = {producer: sparsity}
        plan = make_plan(model, measure, sparsity=fractions, data=data)
    graph = plan.graph_of(model)
    group = _group_of(graph, layer)
    inputs = None if data is None else Calibration.of(data, graph.graph)
    measure.prepare(graph, data=inputs)
    distances = measure.pairs(group).rows(np.arange(group.num_units))
    kept = ~graph.removal(dict(plan.removed))[group.roots]
    bundles = _bundles(distances, kept)
    axes = axes_or_new(axes, (5.6, 5.0))
    _draw(axes, distances, kept, bundles, measure.name)
    axes.set_title(
        f"{group.name}: {kept.sum()} of {len(kept)} units kept", fontsize=10, pad=34
    )
    written(axes.figure, path)
    return axes


def _group_of(graph: ChannelGraph, layer: str) -> Group:
    named = [group for group in graph.groups if group.name == layer]
    found = named or [group for group in graph.groups if layer in group.makers]
    if len(found) == 1:
        return found[0]
    if found:
        why = f"they are several groups: {[group.name for group in found]}"
    else:
        why = graph.explain(layer)  # refuses a layer that makes no units
    raise ValueError(
        "Distances are those of units that may be pruned and are used alike. Name "
        f"another layer or a group. Received: layer={layer!r}; {why}"
    )


def _bundles(distances: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
    """Gather for each unit that stays those that it stands in for.

    Returns:
        Arrays of units, the one that stays first, then the others, the nearest
        first; each next to the bundle that is closest to those before it.
    """
    stay, go = np.flatnonzero(kept), np.flatnonzero(~kept)
    nearest = stay[distances[np.ix_(go, stay)].argmin(axis=1)]
    found = []
    for unit in _in_line(distances[np.ix_(stay, stay)]):
        others = go[nearest == stay[unit]]
        order = distances[others, stay[unit]].argsort(kind="stable")
        found.append(np.concatenate([[stay[unit]], others[order]]))
    return found


def _in_line(distances: np.ndarray) -> list[int]:
    """Order units so that each is the closest to one of those before it.

    It is the order in which Prim's algorithm grows a shortest tree; what hangs
    together at any distance stays together. It begins at one end.
    """
    line = [int(distances.max(axis=1).argmax())]
    reach = distances[line[0]].copy()
    while len(line) < len(distances):
        reach[line] = np.inf
        line.append(int(reach.argmin()))
        reach = np.minimum(reach, distances[line[-1]])
    return line


def _draw(
    axes: Any,
    distances: np.ndarray,
    kept: np.ndarray,
    bundles: list[np.ndarray],
    name: str,
) -> None:
    order = np.concatenate(bundles)
    count = len(order)
    image = axes.imshow(distances[np.ix_(order, order)], cmap="viridis_r")
    colour_bar(axes, image, f"distance ({name})")
    patches = importlib.import_module("matplotlib.patches")
    line_width = float(np.clip(60 / count, 0.4, 1.5))
    start = 0
    for bundle in bundles:
        if len(bundle) > 1:
            corner = (start - 0.5, start - 0.5)
            frame = patches.Rectangle(corner, len(bundle), len(bundle))
            frame.set(fill=False, edgecolor=ACCENT, linewidth=line_width)
            axes.add_patch(frame)
        start += len(bundle)
    colours = importlib.import_module("matplotlib.colors").ListedColormap(
        [ORANGE, BLUE]
    )
    strip = axes.inset_axes([0, 1.015, 1, 0.03], sharex=axes)
    strip.imshow(kept[order][None], cmap=colours, vmin=0, vmax=1, aspect="auto")
    strip.set_axis_off()
    axes.legend(
        handles=[
            patches.Patch(color=BLUE, label="kept"),
            patches.Patch(color=ORANGE, label="pruned"),
            patches.Patch(fill=False, edgecolor=ACCENT, label="bundle"),
        ],
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.05),
        borderaxespad=0.2,
    )
    if count <= _MOST_NUMBERS:
        small = 7 if count <= 32 else 5
        axes.set_xticks(range(count), order, fontsize=small, rotation=90)
        axes.set_yticks(range(count), order, fontsize=small)
        axes.set(xlabel="unit", ylabel="unit")
    else:
        axes.set(xlabel="units, in bundles", ylabel="units, in bundles")
