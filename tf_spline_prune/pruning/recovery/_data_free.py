"""`refit_data_free`: the consumers are refitted without any data."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, SEED, checked
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    copied,
    fixed_size,
    read_weights,
    sample_inputs,
    trace,
    with_weights,
)
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning._remove_units import PLAN, sliced
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan
from tf_spline_prune.pruning.recovery._least_squares import check_small, refit
from tf_spline_prune.pruning.recovery._recalibrate_batchnorm import recalibrate
from tf_spline_prune.pruning.recovery._recording import Recording

_NORM = "BatchNormalization"


@checked(plan=PLAN, num_inputs=COUNT, seed=SEED)
def refit_data_free(
    model: Any, small: Any, plan: PruningPlan, *, num_inputs: int = 256, seed: int = 0
) -> Any:
    """Refit every layer that lost inputs by least squares, without any data.

    What BatchNormalization layers have seen in training stands in for data. Inputs of
    the kind that the model takes are drawn at random: smooth pictures, ids, numbers in
    the range that a Rescaling expects. In a copy of the model each BatchNormalization
    is given the statistics of these, so that every unit behind it has the mean and
    the variance that it has on real data, those of its offset and scale. On this copy
    `least_squares` finds how the weights have to change.

    It gives back less than a few hundred real inputs do, and most of the way where
    there are none. What lies before the first BatchNormalization is refitted on the
    drawn inputs as they are.

    Args:
        model: The model that the plan was made for. It is not changed.
        small: What `plan.apply(model)` gave, before any training.
        plan: The plan.
        num_inputs: How many inputs are drawn. Defaults to `256`.
        seed: Seed of the inputs. Defaults to `0`.

    Returns:
        A copy of `small` with new weights, uncompiled.

    Raises:
        PlanError: If the plan was made for another structure, or `small` is not what
            it makes.
        CalibrationError: If the model has no BatchNormalization.
        ValueError: If an argument is out of range.

    Example:

    ```python
    small = plan.apply(model)
    small = tsp.refit_data_free(model, small, plan)
    ```

    Source: data from the statistics of BatchNormalization as in Yin et al., "Dreaming
    to Distill", CVPR 2020; here the statistics follow the data instead.
    """
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    check_small(graph, removed, small)
    check_statistics(graph.graph)
    mended = with_weights(small, {})
    refit_on_drawn(graph, graph.traced(mended), removed, seed, num_inputs)
    return mended


def check_statistics(graph: Graph) -> None:
    """Refuse a model from which nothing is to be learnt without data.

    Args:
        graph: The model, traced.

    Raises:
        CalibrationError: If no BatchNormalization holds statistics of its data.
    """
    if not any(call.kind == _NORM for call in graph.calls):
        raise CalibrationError(
            "Without data, refitting goes by what BatchNormalization layers have seen "
            "in training, and the model has none. Give it inputs: "
            f"`data=x_train[:512]`. Received: model {graph.model.name!r}"
        )


def refit_on_drawn(
    graph: ChannelGraph,
    cut: Graph,
    removed: np.ndarray,
    seed: int = 0,
    num_inputs: int = 256,
) -> None:
    """Do what `refit_data_free` does, in place.

    Args:
        graph: The original model's channel graph.
        cut: The smaller model, traced; its weights change.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        seed: As in `refit_data_free`.
        num_inputs: See there.
    """
    inputs = sample_inputs(graph.graph, num_inputs, seed)
    data = Calibration(inputs, at_once=fixed_size(graph.graph.inputs))
    twin = trace(copied(graph.graph))
    recalibrate(twin, data)
    whole = ChannelGraph(twin.model, approximate=graph.approximate)
    gone = whole.removal(graph.indices(removed))
    norms = {call.path for call in twin.calls if call.kind == _NORM}
    statistics = {path: sliced(whole, gone, path, whole.arrays[path]) for path in norms}
    small = trace(copied(cut, statistics))
    before = {path: dict(read_weights(layer)) for path, layer in small.layers.items()}
    refit(whole, small, gone, Recording(whole, data, seed=seed))
    for path, layer in cut.layers.items():
        after = read_weights(small.layers[path])
        changes = [after[name] - old for name, old in before[path].items()]
        if any(change.any() for change in changes):
            weights = read_weights(layer).values()
            layer.set_weights([w + c for w, c in zip(weights, changes, strict=True)])
