"""`prune_at_init`: a sparse network, or a small one, before any training."""

import numbers
from typing import Any, Literal, get_args

from tf_spline_prune._checks import SEED, SELECTOR, Function, Integer, OneOf, checked
from tf_spline_prune.compat import (
    Calibration,
    CurrentWeights,
    check_finite,
    mask_slots,
    optimizer_steps,
    require_flavour,
    trace,
)
from tf_spline_prune.criteria.finding import CRITERION
from tf_spline_prune.criteria.gates import LOSS
from tf_spline_prune.errors import InitializationWarning, warn
from tf_spline_prune.graph import cost
from tf_spline_prune.initialization.connection_scoring import with_loss
from tf_spline_prune.initialization.early_masks import (
    EmptyLayers,
    RoundSchedule,
    early_masks,
)
from tf_spline_prune.initialization.masked_copy import refuse_masks
from tf_spline_prune.masking.wrapping import wrap_with_masks
from tf_spline_prune.pruning import plan, prune_in_rounds
from tf_spline_prune.pruning.budget import SHARES, as_number
from tf_spline_prune.pruning.selection import Selector


@checked(
    criterion=[*CRITERION[:2], Function("a function of what is scored")],
    loss=LOSS,
    sparsity=[*SHARES, None],
    rounds=[Integer(1, 10_000), None],
    schedule=OneOf(*get_args(RoundSchedule)),
    granularity=OneOf("weight", "unit"),
    layers=SELECTOR,
    empty_layers=OneOf(*get_args(EmptyLayers)),
    seed=SEED,
)
def prune_at_init(
    model: Any,
    criterion: Any = "snip",
    sparsity: float | None = None,
    *,
    data: Any = None,
    loss: Any = None,
    rounds: int | None = None,
    schedule: RoundSchedule = "exponential",
    granularity: Literal["weight", "unit"] = "weight",
    layers: Selector = None,
    empty_layers: EmptyLayers = "raise",
    seed: int = 0,
    **settings: Any,
) -> Any:
    """Prune a network that was not trained yet.

    Single weights are ranked over the whole network, and masks hold them at zero
    while the result is trained. Exactly `round((1 - sparsity) * weights)` stay; biases,
    normalisations and depthwise kernels all stay and are not counted. Whole units are
    removed as by `plan`, and the result is a small plain model.

    Args:
        model: A built model of either flavour, not trained. It is not changed.
        criterion: `"snip"`, `"force"`, `"grasp"`, `"synflow"` or an instance of these
            classes; `"magnitude"`, `"lamp"`, `"random"`, or a function of the name and
            the weights of a tensor; `"erk"` and `"smart_ratio"`, random weights at
            densities that follow from the shapes. For units, any criterion of `plan`.
        sparsity: Share of the weights, or of the units, to remove, in [0, 1).
        data: Inputs and labels for criteria that read any: about ten of each class
            are enough. Inputs alone where the loss needs no labels.
        loss: As in `compile`; `"uniform"`, `"raw"` or `"softmax"` to go without
            labels; `None` takes what the model was compiled with.
        rounds: In how many rounds the sparsity is reached, each on what the ones before
            have left; `None` takes the criterion's own number (SynFlow 100, FORCE 60,
            others 1), and 1 for units.
        schedule: Whether the share that stays falls by equal factors or equal steps.
        granularity: `"weight"` or `"unit"`.
        layers: Which layers take part, as in `wrap_with_masks` or `plan`.
        empty_layers: What is done about a layer that would lose all its weights:
            `"raise"` an error, `"keep"` its best weight, or `"allow"` it. Units have
            `min_units` for this.
        seed: Seed of what is random.
        **settings: For units, what `plan` takes besides: `target_macs` or
            `target_params` in place of `sparsity`, `min_units`, `round_to` and so on.

    Returns:
        A masked copy of the model, compiled as it is; train it on, and take the masks
        off with `strip_masks`. Of units, a small model, uncompiled.

    Raises:
        FlavourError: If `model` is no Keras model, or on a backend without gradients.
        ModelError: If it is unbuilt, cannot be traced, has weights that are not
            finite, has masks already, or nothing to mask.
        BudgetError: If a layer would lose all its weights, or the budget is out of
            reach.
        CalibrationError: If inputs or labels are missing or do not fit.
        CriterionError: If the loss or a score is not finite.
        TypeError: If there are settings of units without units.
        ValueError: If an argument is out of range.

    Example:

    ```python
    masked = tsp.prune_at_init(model, "snip", 0.9, data=(x_train[:512], y_train[:512]))
    masked.fit(train, epochs=10)                     # the masks hold
    wide = tsp.prune_at_init(wide, "snip", data=x, loss="uniform", granularity="unit",
                             target_params=0.25)  # sculpting, without labels
    ```

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks at
    Initialization", ICLR 2020; Hayou et al., "Robust Pruning at Initialization", ICLR
    2021; and the sources of the criteria.
    """
    require_flavour(model)
    sparsity = as_number(sparsity, "sparsity")
    graph = trace(model)
    for path, weights in CurrentWeights(graph).items():
        check_finite(path, weights)
    if optimizer_steps(model):
        warn(
            "This model has been trained. Criteria for untrained networks ask what "
            "training can make of one; for a trained one take `tsp.plan` or "
            f"`tsp.prune_once`. Received: model {model.name!r} after "
            f"{optimizer_steps(model)} steps",
            InitializationWarning,
        )
    if data is not None:
        data = Calibration.of(data, graph)
    criterion = with_loss(criterion, loss)
    if granularity == "unit":
        if empty_layers != "raise":
            raise ValueError(
                "`empty_layers` is about single weights; units have `min_units`. "
                f"Received: empty_layers={empty_layers!r}"
            )
        settings = {"layers": layers, "seed": seed, "data": data, **settings}
        return _small(model, criterion, sparsity, rounds, schedule, settings)
    if settings:
        raise TypeError(
            "These arguments belong to `granularity='unit'`. Received: "
            f"{sorted(settings)}"
        )
    if not isinstance(sparsity, (int, float)) or not 0 <= sparsity < 1:
        raise ValueError(
            "`sparsity` must be a number, at least 0 and less than 1. Received: "
            f"sparsity={sparsity!r}"
        )
    refuse_masks(model, "Take the model that was masked, or `tsp.strip_masks(model)`")
    masked = wrap_with_masks(model, layers)
    slots = mask_slots(masked)
    masks = early_masks(
        model,
        slots,
        criterion,
        float(sparsity),
        data,
        rounds,
        schedule,
        empty_layers,
        seed,
    )
    for slot, keep in zip(slots, masks, strict=True):
        slot.assign(keep)
    return masked


def _small(
    model: Any,
    criterion: Any,
    sparsity: float | None,
    rounds: int | None,
    schedule: RoundSchedule,
    settings: dict[str, Any],
) -> Any:
    """Remove whole units, at once or in rounds."""
    if sparsity is not None:
        settings = {"sparsity": sparsity, **settings}
    if not rounds or rounds == 1:
        return plan(model, criterion, **settings).apply(model)
    left = 1 - sparsity if isinstance(sparsity, numbers.Real) else 1.0
    full = cost(model, settings.get("weight_dtype"))
    for kind in ("macs", "params", "bytes"):
        target = settings.get(f"target_{kind}")
        if target is not None:
            target = as_number(target, f"target_{kind}")
            left = target if isinstance(target, float) else target / getattr(full, kind)
    way: Any = "linear"
    if schedule == "exponential" and 0 < left < 1:
        way = [(1 - left ** ((k + 1) / rounds)) / (1 - left) for k in range(rounds)]
        way[-1] = 1.0
    small, _ = prune_in_rounds(
        model, criterion, rounds=rounds, schedule=way, recover=None, **settings
    )
    return small
