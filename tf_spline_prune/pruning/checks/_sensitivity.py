"""`sensitivity`: how much each group of units, pruned alone, costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_spline_prune import criteria
from tf_spline_prune._checks import SEED, SELECTOR, Flag, ListOf, Real, checked
from tf_spline_prune.compat import Calibration, Progress, require_flavour, with_weights
from tf_spline_prune.criteria import AnyCriterion
from tf_spline_prune.criteria._get import CRITERION
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.checks._measuring import EVALUATE, Evaluate, measured
from tf_spline_prune.pruning.planning._ranking import candidates, rank, reasons


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` measured.

    Attributes:
        shares: The fractions of units removed, rising.
        metrics: For each group, by the name of the layer that produces its units, the
            number measured at each fraction.
        dense: The number of the whole model.
        units: For each group its number of units.
        criterion: Name of the criterion.

    Example:

    ```python
    result = tsp.sensitivity(model, None, evaluate)
    result.shares                       # (0.1, 0.3, 0.5, 0.7, 0.9)
    len(result.metrics["conv2d_3"])     # 5: one number per fraction
    tsp.visualize.plot_sensitivity(result, "sensitivity.png")
    ```
    """

    shares: tuple[float, ...]
    metrics: Mapping[str, tuple[float, ...]]
    dense: float
    units: Mapping[str, int]
    criterion: str

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain numbers, strings, lists and dicts."""
        return {
            "criterion": self.criterion,
            "dense": self.dense,
            "shares": list(self.shares),
            "units": dict(self.units),
            "metrics": {name: list(values) for name, values in self.metrics.items()},
        }

    def __str__(self) -> str:
        width = max(len("layer"), *map(len, self.metrics))
        lines = [
            f"Each layer pruned alone by {self.criterion}; whole: {self.dense:.4g}",
            "",
            f"{'layer':<{width}}  {'units':>6}"
            + "".join(f"{fraction:>10.0%}" for fraction in self.shares),
        ]
        for name, values in self.metrics.items():
            lines.append(
                f"{name:<{width}}  {self.units[name]:>6}"
                + "".join(f"{value:>10.4g}" for value in values)
            )
        return "\n".join(lines)


@checked(
    evaluate=EVALUATE,
    criterion=CRITERION,
    shares=ListOf(Real(0, 1, closed="neither"), "numbers above 0 and below 1"),
    layers=SELECTOR,
    approximate=Flag(),
    seed=SEED,
)
def sensitivity(
    model: Any,
    data: Any,
    evaluate: Evaluate,
    criterion: AnyCriterion = "auto",
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    layers: Selector = None,
    *,
    approximate: bool = False,
    seed: int = 0,
) -> Sensitivity:
    """Measure the model as each group of units is pruned alone, more and more.

    Units are cut without merging or any other recovery, so the numbers tell what is
    lost at first; at least one unit of a group always stays. A model is measured
    once for each number of units that goes.

    Args:
        model: A built model of either flavour. It is not changed, and not measured
            itself: a copy is.
        data: Inputs for criteria that read any, as in `plan`; may be `None`.
        evaluate: Takes a small, uncompiled model and returns a number.
        criterion: How units are ranked: a name such as `"spline"` or `"magnitude"`, an
            instance of `criteria.Criterion`, or a function `(graph, group) -> array of
            shape (units,)`, higher means keep. Defaults to `"auto"`: `"reconstruction"`
            with `data`, `"spline"` without.
        shares: Fractions of units to prune, each above 0 and below 1. Defaults to
            `(0.1, 0.3, 0.5, 0.7, 0.9)`.
        layers: Layers to look at: a name, a regular expression, a list of these, or a
            function of the layer. Defaults to `None`, which means all.
        approximate: Whether units under a LayerNormalization or its like may be pruned,
            which changes its statistics. Defaults to `False`.
        seed: Seed of whatever is random. Defaults to `0`.

    Returns:
        The numbers; printing them gives a table.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        CalibrationError: If the data do not fit the model.
        TypeError: If `evaluate` is no function, or gives no number.
        ValueError: If a fraction is out of range, or no group may be pruned.

    Example:

    ```python
    def evaluate(small):
        return (small.predict(x, verbose=0).argmax(-1) == y).mean()

    print(tsp.sensitivity(model, None, evaluate, "magnitude"))
    ```

    Source: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017,
    section 3.2.
    """
    require_flavour(model)
    asked = tuple(sorted(set(shares)))
    graph = ChannelGraph(model, approximate=approximate)
    criterion = criteria.get(criterion, data is not None)
    if data is not None:
        data = Calibration.of(data, graph.graph)
    criterion.prepare(graph, data=data, seed=seed)
    groups, barriers = candidates(graph, criterion, layers)
    if not groups:
        raise ValueError(
            f"No units may be pruned by {criterion.name!r}, so there is nothing to "
            f"measure. Unprunable units: {reasons(barriers)}. Received: "
            f"layers={layers!r}"
        )
    counts = {
        g.name: [_count(g.num_units, fraction) for fraction in asked] for g in groups
    }
    progress = Progress(sum(len(set(c) - {0}) for c in counts.values()) + 1, "model")
    dense = measured(evaluate, with_weights(model, {}))
    progress.step()
    metrics = {}
    for group in groups:
        order = rank(criterion, group).order
        known = {0: dense}
        for count in counts[group.name]:
            if count not in known:
                removed = graph.nothing_removed()
                removed[group.roots[order[:count]]] = True
                small = build_pruned(graph, removed, graph.arrays)
                known[count] = measured(evaluate, small)
                progress.step()
        metrics[group.name] = tuple(known[count] for count in counts[group.name])
    return Sensitivity(
        shares=asked,
        metrics=metrics,
        dense=dense,
        units={group.name: group.num_units for group in groups},
        criterion=criterion.name,
    )


def _count(units: int, fraction: float) -> int:
    return min(math.floor(fraction * units + 0.5), units - 1)
