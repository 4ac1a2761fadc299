"""`verify`: whether a shrunk model computes what it should."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import predict, random_inputs, with_weights
from tf_spline_prune.errors import VerificationError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning.pruning_plan import PruningPlan


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
    graph = ChannelGraph(model)
    plan.check(graph)
    reference = _without_readers(graph, plan)
    specs = {str(i): (e.shape, e.dtype) for i, e in enumerate(graph.graph.inputs)}
    inputs = list(random_inputs(specs, num_inputs, seed).values())
    worst = 0.0
    pairs = [(predict(reference, inputs), predict(small, inputs))]
    # Both were rebuilt: a copy must compute what the model itself computes.
    pairs.append((predict(model, inputs), predict(with_weights(model, {}), inputs)))
    outputs = [pair for two in pairs for pair in zip(*two, strict=True)]
    for expected, found in outputs:
        if expected.shape != found.shape:
            raise VerificationError(
                "A shrunk model must keep the shapes of its outputs. Expected: "
                f"{expected.shape}. Received: {found.shape}"
            )
        size = np.abs(expected).max()
        error = np.abs(expected - found).max()
        # Unlike max(), this keeps a NaN.
        worst = float(np.maximum(worst, error / size if size else error))
    return worst


def _without_readers(graph: ChannelGraph, plan: PruningPlan) -> Any:
    removed = graph.removal(dict(plan.removed))
    changed: dict[str, dict[str, np.ndarray]] = {}
    for (path, name), fact in graph.weights.items():
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if role == "in" and labels is not None:
                array = graph.arrays[path][name].copy()
                np.moveaxis(array, axis, 0)[removed[graph.units_of(labels)]] = 0
                changed.setdefault(path, {})[name] = array
    return with_weights(graph.model, changed)


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
