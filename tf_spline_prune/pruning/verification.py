"""`verify`: whether a shrunk model computes what it should."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, SEED, checked
from tf_spline_prune.compat import (
    Call,
    call_layer,
    on_kept,
    predict,
    random_inputs,
    run_eagerly,
    to_numpy,
    trace,
    with_mask,
    with_weights,
)
from tf_spline_prune.errors import VerificationError
from tf_spline_prune.graph import ChannelGraph, Meeting
from tf_spline_prune.pruning.execution import PLAN
from tf_spline_prune.pruning.pruning_plan import PruningPlan


@checked(plan=PLAN, num_inputs=COUNT, seed=SEED)
def verify(
    model: Any,
    small: Any,
    plan: PruningPlan,
    *,
    num_inputs: int = 8,
    seed: int = 0,
) -> float:
    """Compare a shrunk model with the original in which nobody reads the units.

    The reference is the model with every reader's weights for the removed units
    set to zero, which is what removing a unit means, whatever its bias or
    normalisation. Both are run on random inputs. So is an unchanged copy of the
    model, next to the model itself: a fault of copying must not hide.

    Args:
        model: The model that the plan was applied to.
        small: What `plan.apply(model)` gave, before any further training.
        plan: The plan.
        num_inputs: How many random inputs to compare on.
        seed: Seed of the inputs.

    Returns:
        The largest relative error: `max|a - b| / max|b|` over all outputs.

    Raises:
        PlanError: If the plan was made for another structure.
        VerificationError: If the two differ in the shapes of their outputs.

    Example:

    ```python
    tsp.verify(model, plan.apply(model), plan)      # 3e-07
    ```
    """
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    specs = {str(i): (e.shape, e.dtype) for i, e in enumerate(graph.graph.inputs)}
    inputs = list(random_inputs(specs, num_inputs, seed).values())
    # Both were rebuilt: a copy must compute what the model itself computes.
    copied = predict(with_weights(model, {}), inputs)
    return _larger(
        error_after(graph, small, removed, inputs),
        _error(predict(model, inputs), copied),
    )


def error_after(
    graph: ChannelGraph, small: Any, removed: np.ndarray, inputs: list[np.ndarray]
) -> float:
    """Compare a smaller model with the one in which nobody reads the removed units.

    Args:
        graph: The original model's channel graph.
        small: The smaller model.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        inputs: One array an input.

    Returns:
        The largest relative error over all outputs.

    Raises:
        VerificationError: If the two differ in the shapes of their outputs.
    """
    reference = _without_readers(graph, removed)
    return _error(
        _run(reference, small, graph, removed, inputs), predict(small, inputs)
    )


def _error(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise VerificationError(
                "A shrunk model must keep the shapes of its outputs. Expected: "
                f"{one.shape}. Received: {other.shape}"
            )
        size = np.abs(one).max()
        error = np.abs(one - other).max()
        worst = _larger(worst, error / size if size else error)
    return worst


def _larger(first: float, second: float) -> float:
    return float(np.maximum(first, second))  # unlike max(), this keeps a NaN


def _without_readers(graph: ChannelGraph, removed: np.ndarray) -> Any:
    """Copy the model with zeros for whatever reads the removed units."""
    changed: dict[str, dict[str, np.ndarray]] = {}
    for (path, name), fact in graph.weights.items():
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if role == "in" and labels is not None:
                gone = removed[graph.units_of(labels)]
                if gone.any():
                    arrays = changed.setdefault(path, {})
                    array = arrays.get(name)
                    if array is None:
                        array = arrays[name] = graph.arrays[path][name].copy()
                    np.moveaxis(array, axis, 0)[gone] = 0
    return with_weights(graph.model, changed)


def _run(
    reference: Any,
    small: Any,
    graph: ChannelGraph,
    removed: np.ndarray,
    inputs: list[np.ndarray],
) -> list[np.ndarray]:
    """Run the reference, minding the calls that no weight can speak for.

    Where units meet without a weight, one side is multiplied by zeros. Where a
    normalisation runs over units, it runs over the kept ones.
    """
    masks = _by_call(graph, graph.contractions, removed)
    norms = _by_call(graph, graph.mixings, removed)
    if not masks and not norms:
        return predict(reference, inputs)
    traced = trace(reference)
    layers = {call.path: call.layer for call in trace(small).leaves()}

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call.name in norms:
            kept = [
                (meeting.axis, np.flatnonzero(~_gone(graph, meeting, removed)))
                for meeting in norms[call.name]
            ]
            narrow = replace(call, layer=layers.get(call.path, call.layer))
            return on_kept(narrow, args, kwargs, kept)
        for meeting in masks.get(call.name, ()):
            keep = ~_gone(graph, meeting, removed)
            args, kwargs = with_mask(args, kwargs, meeting.input, meeting.axis, keep)
        return call_layer(call, args, kwargs)

    outputs = run_eagerly(traced, inputs, apply)
    return [to_numpy(output).astype("float64") for output in outputs]


def _by_call(
    graph: ChannelGraph, meetings: Iterable[Meeting], removed: np.ndarray
) -> dict[str, list[Meeting]]:
    """Gather by call the meetings of units of which some are gone."""
    found: dict[str, list[Meeting]] = {}
    for meeting in meetings:
        if _gone(graph, meeting, removed).any():
            found.setdefault(meeting.call, []).append(meeting)
    return found


def _gone(graph: ChannelGraph, meeting: Meeting, removed: np.ndarray) -> np.ndarray:
    return np.asarray(removed[graph.units_of(meeting.labels)])


def require_equal(error: float, dtype: str) -> None:
    """Raise unless a relative error is within the rounding of a dtype.

    Raises:
        VerificationError: If it is not.
    """
    tolerance = {"float64": 1e-9, "float32": 1e-4}.get(dtype, 5e-2)
    if not error <= tolerance:
        raise VerificationError(
            "The shrunk model does not compute what the original computes without "
            f"the removed units: relative error {error:.2g}, at most {tolerance:g} "
            "expected. This is a fault of a rule or of a layer's own rule; the "
            "original model is untouched. `verify=False` gives the model as it is."
        )
