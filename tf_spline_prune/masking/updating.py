"""Setting masks without a callback: at once, or from one's own training loop."""

from collections.abc import Mapping
from typing import Any, get_args

from tf_spline_prune._checks import (
    COUNT,
    FRACTION,
    SEED,
    SELECTOR,
    Data,
    Function,
    Instance,
    ListOf,
    MapOf,
    OneOf,
    Options,
    Text,
    checked,
)
from tf_spline_prune.compat import MaskSlot
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.errors import NothingPrunedWarning, warn
from tf_spline_prune.masking.granularity import Granularity, Pooling
from tf_spline_prune.masking.mask_update import MaskUpdate, Shares
from tf_spline_prune.masking.slots import chosen_layers, matching, require_slots
from tf_spline_prune.masking.targets import remember_nothing
from tf_spline_prune.masking.wrapping import wrap_with_masks
from tf_spline_prune.pruning.scopes import SCOPE
from tf_spline_prune.pruning.selection import Selector

SPARSITY: Options = [
    FRACTION,
    MapOf(
        Text("a name"), FRACTION, "a dictionary from names of layers to such numbers"
    ),
]
GRANULARITY: Options = [
    Text("'weight', 'unit', a pattern such as '2:4'"),
    ListOf(COUNT, "sizes, (inputs, outputs)", 2, 2),
    Instance(Granularity),
]
MASK_CRITERION: Options = [
    Text("the name of a criterion"),
    Instance(Criterion, what="an instance of `criteria.Criterion`"),
    Function("a function of the name and the weights of a tensor"),
]
"""What the checks of arguments want of a criterion of weights or units."""


@checked(
    sparsity=SPARSITY,
    criterion=MASK_CRITERION,
    granularity=GRANULARITY,
    scope=SCOPE,
    data=[Data(), None],
    layers=SELECTOR,
    pooling=OneOf(*get_args(Pooling)),
    seed=SEED,
)
def update_masks(
    model: Any,
    sparsity: Shares,
    criterion: Any = "magnitude",
    granularity: Any = "weight",
    scope: Any = "layer",
    *,
    layers: Selector = None,
    pooling: str = "mean",
    data: Any = None,
    seed: int = 0,
) -> None:
    """Set the masks of a model, and what they remove to zero.

    This is what `MaskPruning` does at the firing steps of its schedule; call it from
    a training loop of your own. The optimizer then holds the zeros. Masks only
    ever grow: below the sparsity that is there, nothing happens. Where nothing is
    masked although something was asked for, a `NothingPrunedWarning` says why.

    Args:
        model: A masked model of either flavour. Its masks and weights change.
        sparsity: Share to remove, in [0, 1): of the weights, or of the units where
            whole units go; or a dictionary from layer names or regular expressions
            to shares; other layers stay as they are then.
        criterion: What is worth keeping. For weights `"magnitude"`, `"lamp"`,
            `"random"`, or a function `(name, array) -> array` of the same shape; for
            units any criterion of `plan`.
        granularity: `"weight"`: single weights. `(4, 1)`: blocks of so many
            consecutive inputs and outputs; this one hits the fast Dense kernel of
            LiteRT. `"2:4"`: two zeros in every four consecutive inputs. `"unit"`:
            whole units, in all weights that make or read them.
        scope: What is ranked together: `"layer"` each weight array, `"global"` all;
            for units also the other scopes of `plan`.
        layers: Which of the masked layers take part, as in `wrap_with_masks`.
        pooling: How the worth of a block comes from its weights: `"mean"` or `"max"`.
        data: Inputs, or `(inputs, labels)`, for criteria that read any.
        seed: Seed of whatever is random.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks.
        BudgetError: If the sparsity is out of reach.
        ValueError: If an argument is out of range.

    Example:

    ```python
    for step, batch in enumerate(train):
        train_step(masked, batch)
        if step % 100 == 0:
            tsp.update_masks(masked, sparsity=min(0.8, step / 5000))
    ```
    """
    if isinstance(sparsity, Mapping) and scope != "layer" and granularity != "unit":
        raise ValueError(
            "Shares of single layers leave nothing for `scope` to decide. Leave it "
            f"out, or give one share. Received: scope={scope!r}"
        )
    slots = slots_of(model, layers)
    shares = shares_by_path(slots, sparsity)
    if isinstance(shares, Mapping):
        slots = [slot for slot in slots if slot.path in shares]
    update = MaskUpdate(
        model, slots, criterion, granularity, scope, pooling, data, seed
    )
    update(shares)
    if why := update.why_nothing(shares):
        remember_nothing(update.slots, why)
        warn(f"Nothing is masked, because {why}.", NothingPrunedWarning)


def apply_masks(model: Any) -> None:
    """Set the weights that masks remove to zero, should something have moved them.

    The optimizer does so after each of its updates. Call this after weights were
    written in another way: `set_weights`, an average of weights, another framework.

    Args:
        model: A masked model of either flavour. Its weights change.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks.

    Example:

    ```python
    masked.set_weights(weights)     # from a file, an average, another model
    tsp.apply_masks(masked)
    ```
    """
    for slot in require_slots(model):
        slot.apply()


@checked(sparsity=SPARSITY)
def prune_once(model: Any, sparsity: Shares, **settings: Any) -> Any:
    """Mask a model at once, without any training.

    Args:
        model: A built model of either flavour, masked or not. It is not changed.
        sparsity: As in `update_masks`.
        **settings: As in `update_masks`: `criterion`, `granularity`, `scope`,
            `layers`, `pooling`, `data`, `seed`.

    Returns:
        A masked copy: train it on, or take the masks off with `strip_masks`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, or has nothing to mask.
        BudgetError: If the sparsity is out of reach.
        ValueError: If an argument is out of range.

    Example:

    ```python
    sparse = tsp.strip_masks(tsp.prune_once(model, 0.8))
    ```
    """
    masked = wrap_with_masks(model, settings.get("layers"))
    update_masks(masked, sparsity, **settings)
    return masked


def slots_of(model: Any, layers: Selector = None) -> list[MaskSlot]:
    """List the masked weights of the layers that a selector means."""
    slots = require_slots(model)
    paths = chosen_layers({slot.path: slot.layer for slot in slots}, layers, {})
    return [slot for slot in slots if slot.path in paths]


def shares_by_path(slots: list[MaskSlot], sparsity: Shares) -> Shares:
    """Translate names and regular expressions into paths; a number stays one."""
    if not isinstance(sparsity, Mapping):
        return sparsity
    paths = [slot.path for slot in slots]
    shares: dict[str, float] = {}
    for pattern, share in sparsity.items():
        for path in matching(pattern, paths):
            if shares.setdefault(path, share) != share:
                raise ValueError(
                    f"The layer {path!r} is given two shares. Received: {sparsity}"
                )
    return shares
