"""Carrying a decision out: slicing weights, folding twins, building the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import Flag, Having, checked
from tf_spline_prune.compat import (
    NotMade,
    copied,
    difference_of,
    rebuild,
    warn_of_lost_training,
)
from tf_spline_prune.errors import NothingPrunedWarning, PlanError, warn
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._channel_graph import UNITS
from tf_spline_prune.pruning._classes import Classes

Weights = Mapping[str, Mapping[str, np.ndarray]]

PLAN = Having(
    "graph_of",
    "removed",
    what="a `PruningPlan`, as `tsp.plan` returns it",
    hint="Read a stored one with `PruningPlan.load`.",
)
"""What the checks of arguments want of a plan."""


@checked(units=UNITS, approximate=Flag())
def remove_units(
    model: Any,
    units: Mapping[str, Sequence[int]],
    *,
    approximate: bool = False,
) -> Any:
    """Prune the given units of layers.

    A unit that lives in a group with units of other layers takes them along.

    Args:
        model: A built model of either flavour. It is not changed.
        units: For each layer's path, the indices of the units to remove; for a
            layer with several kinds of units also the kind: `"attention/heads"`.
            Where it names none a `NothingPrunedWarning` says so.
        approximate: Whether units under a LayerNormalization or its like may be pruned,
            which changes its statistics. Defaults to `False`.

    Returns:
        A new, plain, uncompiled model of the same flavour.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        ValueError: If a path or index is wrong, a unit may not be removed, or a
            layer would be left without units.

    Example:

    ```python
    small = tsp.remove_units(model, {"conv2d_3": [0, 7]})
    ```
    """
    graph = ChannelGraph(model, approximate=approximate)
    removed = graph.removal({path: list(map(int, i)) for path, i in units.items()})
    if not removed.any():
        warn("Nothing is pruned, because `units` names no unit.", NothingPrunedWarning)
    return build_pruned(graph, removed, graph.arrays)


def build_pruned(
    graph: ChannelGraph,
    removed: np.ndarray,
    weights: Weights | None,
    entries: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """Build the model without the removed units.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        weights: The weights to slice, by path and name: all, or those that are not
            the model's own; `None` keeps fresh ones.
        entries: By path, entries of the layers' configs that change besides. Defaults
            to `None`.

    Returns:
        A new model.
    """
    changes = graph.changes(removed)
    for path, changed in (entries or {}).items():
        changes.setdefault(path, {}).update(changed)
    given = weights or {}

    def array(path: str) -> dict[str, np.ndarray]:
        held = {**graph.arrays[path], **given.get(path, {})}
        return sliced(graph, removed, path, held)

    classes = Classes(graph, removed)
    while True:
        try:
            small = rebuild(
                graph.source,
                changes,
                array,
                fresh=weights is None,
                classes=classes.values,
                read=graph.graph,
            )
        except NotMade as error:
            if not classes.values:
                raise
            classes.give_up(error.path, error.why)
            continue
        if not classes.values:
            break
        difference = difference_of(graph.graph, changes, graph.traced(small))
        if difference is None:
            break
        classes.give_up(*difference)
    warn_of_lost_training(graph.graph.model, small)
    return small


def sliced(
    graph: ChannelGraph,
    removed: np.ndarray,
    path: str,
    arrays: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Cut the removed units out of a layer's weights."""
    sliced = {}
    for name, array in arrays.items():
        fact = graph.weights.get((path, name))
        keep = [np.arange(size) for size in array.shape]
        for axis, labels in enumerate(fact.axes if fact else ()):
            if labels is not None:
                keep[axis] = np.flatnonzero(~removed[graph.units_of(labels)])
        # All axes at once: no copy between the first cut and the last.
        whole = tuple(map(len, keep)) == array.shape
        sliced[name] = array if whole else array[np.ix_(*keep)]
    for rescale in graph.rescales:
        if rescale.path == path:
            fraction = (~removed[graph.units_of(rescale.labels)]).mean()
            array = sliced[rescale.name]
            sliced[rescale.name] = (array * fraction**rescale.exponent).astype(
                array.dtype
            )
    return sliced


@checked(plan=PLAN)
def merge(model: Any, plan: Any) -> Any:
    """Fold the units that a plan prunes into their twins' outgoing weights.

    Where a removed unit is a positive multiple of its twin, the result computes
    the same function as the model once the unit is gone: nothing is lost. Where
    it only resembles its twin, the fold is an approximation. Units are folded
    only where a single layer makes them and all that follows, up to the layers
    that read them, hands positive scales on.

    Args:
        model: The model that the plan was made for. It is not changed.
        plan: A plan of a pair criterion, such as `"spline"`.

    Returns:
        A model of the same shape, with changed outgoing weights; apply the plan
        to it.

    Raises:
        PlanError: If the plan was made for another structure.

    Example:

    ```python
    small = plan.apply(tsp.merge(model, plan))    # what tsp.prune does
    ```
    """
    graph = plan.graph_of(model)
    return copied(graph.graph, folded(graph, plan.merges))


def folded(
    graph: ChannelGraph, merges: Mapping[str, Sequence[tuple[int, int, float]]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights that change where units are folded, by layer path and name.

    Args:
        graph: The model's channel graph.
        merges: As in a plan.

    Raises:
        PlanError: If the model has no such units.
    """
    changed: dict[str, dict[str, np.ndarray]] = {}
    for path, triples in merges.items():
        groups = [g for g in graph.groups if [m.path for m in g.producers] == [path]]
        if not groups:
            raise PlanError(
                f"The plan merges units of {path!r}, which cannot be merged in this "
                "model. Make the plan again."
            )
        places = [
            {int(p): i for i, p in enumerate(group.producers[0].positions[:, 0])}
            for group in groups
        ]
        if not all(
            any({unit, twin} <= place.keys() for place in places)
            for unit, twin, _ in triples
        ):
            raise PlanError(
                f"The plan merges units of {path!r} that are not used alike in this "
                "model. Make the plan again. Received: merges of other units than "
                f"{[sorted(place) for place in places]}"
            )
        for group, place in zip(groups, places, strict=True):
            mine = [
                (place[unit], place[twin], scale)
                for unit, twin, scale in triples
                if unit in place
            ]
            for consumer in group.consumers:
                arrays = changed.setdefault(consumer.path, {})
                array = arrays.get(consumer.name)
                if array is None:
                    array = graph.arrays[consumer.path][consumer.name].copy()
                    arrays[consumer.name] = array
                rows = np.moveaxis(array, consumer.axis, 0)  # a view: edits `array`
                for unit, twin, scale in mine:
                    source = consumer.positions[unit]
                    rows[consumer.positions[twin]] += scale * rows[source]
    return changed


def check_same(
    expected: Mapping[str, Any], found: Mapping[str, Any], name: str
) -> None:
    """Raise `PlanError` unless two fingerprints agree, naming what differs."""
    if dict(expected) == dict(found):
        return
    missing = [path for path in expected if path not in found]
    added = [path for path in found if path not in expected]
    changed = [p for p in expected if p in found and expected[p] != found[p]]
    raise PlanError(
        "The plan was made for a model of another structure. Make a plan for this "
        f"one. Received: model {name!r}; layers it lacks: {missing[:5]}; layers the "
        f"plan lacks: {added[:5]}; layers that differ: {changed[:5]}"
    )
