"""`check_rule`: whether what a rule says of a layer is what the layer does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, SEED, Integer, ListOf, checked
from tf_spline_prune.compat import (
    kind_of,
    model_around,
    require_layer,
    trace,
    traced_macs,
)
from tf_spline_prune.errors import RuleError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._cost import layer_costs
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.checks._verify import Comparison


@checked(
    input_shapes=ListOf(COUNT, "sizes, the batch axis left out", 0),
    num_trials=Integer(1, 100_000),
    seed=SEED,
)
def check_rule(
    layer: Any, *input_shapes: Sequence[int], num_trials: int = 3, seed: int = 0
) -> float:
    """Test the rule of a layer numerically.

    What the rule says of multiply-accumulates is compared with those that the layer
    makes when it is traced. Then the layer is put between layers that produce units and
    one that reads what comes out. Random units go, cut as the rule says; the smaller
    model must compute what the whole one computes when nobody reads them, with
    random weights.

    Args:
        layer: A layer with a `get_config` from which it can be made again. It is
            copied, never changed.
        *input_shapes: Shape of each input without the batch axis; the last axis
            holds the units.
        num_trials: How many random choices of weights and units to test. Defaults to
            `3`.
        seed: Seed of the choices. Defaults to `0`.

    Returns:
        The largest relative error seen.

    Raises:
        FlavourError: If `layer` is no Keras layer.
        RuleError: If the rule is wrong, counts other multiply-accumulates than the
            layer makes, or lets no unit go.
        ValueError: If no shape is given, or one has no units.

    Example:

    ```python
    @tsp.register_rule(MyScale)
    def my_scale(call, inputs, recorder):
        (value,) = inputs
        recorder.vector(call, "gamma", value.labels[-1])
        recorder.resize(call, "dim", value.labels[-1])
        return value

    tsp.check_rule(MyScale(dim=8), (4, 4, 8)) < 1e-5     # True
    ```
    """
    require_layer(layer)
    shapes = [tuple(shape) for shape in input_shapes]
    if not shapes or not all(shape and shape[-1] > 1 for shape in shapes):
        raise ValueError(
            "`check_rule` needs the shape of each input without the batch axis, with "
            f"at least two units on the last axis. Received: {input_shapes}"
        )
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(num_trials):
        model = model_around(layer, shapes, rng)
        worst = max(worst, _trial(model, layer, shapes, rng))
    return worst


def _trial(
    model: Any, layer: Any, shapes: list[tuple[int, ...]], rng: np.random.Generator
) -> float:
    try:
        graph = ChannelGraph(model)
    except RuleError:
        raise
    except Exception as found:  # whatever a user's rule raises
        raise RuleError(
            f"The rule of {kind_of(layer)} fails on {shapes}: "
            f"{type(found).__name__}: {found}"
        ) from found
    if all(group.num_units < 2 for group in graph.groups):
        reasons = "; ".join(sorted({b.reason for b in graph.barriers}))
        if graph.groups:
            reasons = "all units are coupled into one"
        raise RuleError(
            f"The rule of {kind_of(layer)} leaves no unit prunable, so there is "
            f"nothing to test. The reasons: {reasons}"
        )
    _check_uses(graph, layer)
    removed = graph.nothing_removed()
    for group in graph.groups:
        if group.num_units > 1:
            count = int(rng.integers(1, group.num_units))
            removed[rng.choice(group.roots, count, False)] = True
    inputs = [rng.standard_normal((4, *shape)).astype("float32") for shape in shapes]
    try:
        small = build_pruned(graph, removed, graph.arrays)
        compared = Comparison(graph, trace(small), removed, {}, exact=True)
        verdict = compared.verdict_on(inputs)
    except Exception as found:  # whatever a layer of the wrong size raises
        raise RuleError(
            f"A model without some units of {kind_of(layer)} cannot be built as its "
            f"rule says: {type(found).__name__}: {found}"
        ) from found
    if not verdict.excess <= 1:
        raise RuleError(
            f"The rule of {kind_of(layer)} is wrong: a model that is cut as it says "
            f"computes something else. Relative error {verdict.error:.2g}, "
            f"{verdict.excess:.2g} times what rounding explains."
        )
    if verdict.blind:
        raise RuleError(
            f"The rule of {kind_of(layer)} cannot be tested with {shapes}: "
            f"{verdict.blind}."
        )
    return verdict.error


def _check_uses(graph: ChannelGraph, layer: Any) -> None:
    """Compare what a rule says of multiply-accumulates with what a trace counts."""
    calls = [c for c in graph.graph.calls if type(c.layer) is type(layer)]
    costs = layer_costs(graph, graph.nothing_removed())
    for call in calls:
        said = costs[call.path].macs if call.path in costs else 0
        made = traced_macs(call)
        # A layer may multiply entry by entry what another one multiplies as a matrix.
        if said is not None and made and said != made:
            raise RuleError(
                f"The rule of {kind_of(layer)} counts {said:,} multiply-accumulates "
                f"where the layer makes {made:,}, on inputs of "
                f"{[shape[1:] for shape in call.input_shapes]}. Say by `uses=` how "
                "often each entry of a weight is multiplied for one input, and by "
                "`recorder.multiply` what tensors multiply with each other."
            )
