"""`prune_once`: masks at once, after training, and what they keep solved again."""

from collections.abc import Mapping
from typing import Any, get_args

from tf_spline_prune._checks import (
    COUNT,
    Integer,
    OneOf,
    Real,
    checked,
)
from tf_spline_prune.compat import Calibration, require_flavour, trace
from tf_spline_prune.errors import CalibrationWarning, warn
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.masking._choosing import Scope
from tf_spline_prune.masking._granularity import Granularity, Pooling
from tf_spline_prune.masking._scoring import FROM_DATA
from tf_spline_prune.masking._targets import ask
from tf_spline_prune.masking._update_masks import (
    CHOICE,
    MASK_SCOPE,
    Fractions,
    MaskUpdate,
    fraction_of,
    slots_and_fractions,
    warn_of_nothing,
)
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks
from tf_spline_prune.masking.one_shot._layer_masks import MaskRule, obs_cost
from tf_spline_prune.masking.one_shot._sequence import LayerByLayer, LinearLayer

_AFFORDABLE = 2e11  # multiplications for the greedy removal of one layer


@checked(
    **{**CHOICE, "scope": [*MASK_SCOPE, None]},
    recover=[OneOf("auto", "least_squares"), None],
    ridge=Real(0),
    batch_size=COUNT,
    max_rows=COUNT,
    max_bytes=Integer(1),
)
def prune_once(
    model: Any,
    sparsity: Fractions,
    criterion: Any = "magnitude",
    granularity: Any = "weight",
    scope: Any = None,
    *,
    layers: Selector = None,
    pooling: Pooling = "mean",
    data: Any = None,
    recover: str | None = "auto",
    ridge: float = 1e-2,
    batch_size: int = 32,
    max_rows: int = 2**15,
    max_bytes: int = 2**29,
    seed: int = 0,
) -> Any:
    """Mask a model at once, without any training.

    With `data`, the weights that the masks keep are solved again: layer after layer,
    each on what its pruned predecessors hand on, so that in the least-squares sense it
    answers what it does in `model`, its bias included (or the mean of the
    BatchNormalization behind it). No labels are needed. So solved, simple masks lose
    several times less, and at 80 % zeros the scope `"global"` counts for more than the
    criterion does.

    Layers that are no matrix product, such as embeddings, are masked by magnitude, and
    what is kept of them keeps its value; a warning names them.

    Args:
        model: A built model of either flavour, masked or not. It is not changed.
        sparsity: As in `update_masks`.
        criterion: As in `update_masks`, or with `data` one of these. `"wanda"`: the
            size of a weight times the length of the input that it multiplies.
            `"obs"`: each output loses one weight after the other, always the one
            without which the others do best; layers that take too long are refused.
            `"sparsegpt"`: the weights of one input after the other, those of later
            inputs making up for them. Defaults to `"magnitude"`.
        granularity: `"weight"`: single weights. `(4, 1)`: blocks of so many consecutive
            inputs and outputs. `"2:4"`: two zeros in every four consecutive inputs.
            `"unit"`: whole units, in all weights that produce or consume them. Defaults
            to `"weight"`.
        scope: What is ranked together: `"layer"` each weight array, `"global"` all,
            `"output"` each output of each array, as the inventors of `"wanda"` do; for
            units as in `plan`. With the three criteria above `"global"` gives each
            layer a fraction, and within the layer they choose. Defaults to `None`:
            `"global"` for these three if there is one sparsity, else `"layer"`.
        layers: Which layers are masked: a path or name, a regular expression, a list of
            these, or a function of the layer. Defaults to `None`, which means all.
        pooling: How the worth of a block comes from its weights: `"mean"` or `"max"`.
            Defaults to `"mean"`.
        data: Inputs, or `(inputs, labels)` for criteria of units that read labels; a
            few hundred. Defaults to `None`.
        recover: `"least_squares"` solves what is kept; `None` does not, and then
            weights keep their values, but for `"obs"` and `"sparsegpt"`, which change
            them as they choose. Defaults to `"auto"`: `"least_squares"` if there are
            `data` and no whole units go.
        ridge: How strongly the present weights are held to when solving, as a
            fraction of the mean square of a layer's inputs. Defaults to `1e-2`.
        batch_size: How many inputs run at a time. Defaults to `32`.
        max_rows: Read about this many rows of a layer, output positions drawn at
            random, but at least eight per input of the layer if there are so many.
            Defaults to `2**15`.
        max_bytes: How much memory intermediate results may take; where they need more,
            they are computed again. Defaults to `2**29`.
        seed: Seed of whatever is random. Defaults to `0`.

    Returns:
        A masked copy: train it on, or take the masks off with `strip_masks`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, or has nothing to mask.
        CalibrationError: If the data are empty, misshapen or not finite.
        BudgetError: If the sparsity is out of reach.
        ValueError: If an argument is out of range, or does not go with another.

    Example:

    ```python
    sparse = tsp.strip_masks(tsp.prune_once(model, 0.8))
    masked = tsp.prune_once(model, 0.8, "wanda", data=x_train[:256])
    ```

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models", ICLR 2024 (`"wanda"`). Frantar and Alistarh, "Optimal Brain Compression",
    NeurIPS 2022 (`"obs"`), and "SparseGPT", ICML 2023.
    """
    require_flavour(model)
    method = (
        criterion if isinstance(criterion, str) and criterion in FROM_DATA else None
    )
    if scope is None:
        whole = method and not isinstance(sparsity, Mapping)
        scope = "global" if whole else "layer"
    if recover == "auto":
        solves = data is not None and granularity != "unit"
        recover = "least_squares" if solves else None
    _check_together(method, granularity, scope, data, recover)
    original = trace(model) if method or recover else None
    if original is not None:
        data = Calibration.of(data, original)
    masked = wrap_with_masks(model, layers)
    slots, fractions = slots_and_fractions(masked, sparsity, scope, granularity, layers)
    how = (granularity, "layer" if method else scope, pooling, data, seed)
    update = MaskUpdate(masked, slots, "magnitude" if method else criterion, *how)
    if not method:
        update(fractions)
    if original is not None:
        in_order = LayerByLayer(
            original,
            trace(masked),
            update.slots,
            data,
            refit=recover is not None,
            ridge=ridge,
            batch_size=batch_size,
            max_rows=max_rows,
            max_bytes=max_bytes,
            seed=seed,
        )
        read = {id(layer.slot.weight) for layer in in_order.layers}
        unread = [slot for slot in update.slots if id(slot.weight) not in read]
        each = [fraction_of(layer.slot, fractions) for layer in in_order.layers]
        rule = None
        if method:
            rule = MaskRule(method, Granularity.of(granularity), scope, pooling)
            _check_affordable(method, in_order.layers)
            if scope == "global":
                each = in_order.allocated(rule, each)
            for slot in slots:
                ask(slot, fraction_of(slot, fractions))
            MaskUpdate(masked, unread, "magnitude", *how)(fractions)
        in_order.run(rule, each)
        if unread:
            warn(
                f"The layers of {len(unread)} weights are no matrix products, so "
                "calibration data say nothing about these: they are masked by what "
                "they are themselves, and what is kept keeps its value. Leave them "
                "out with `layers` if they shall stay dense. This concerns: "
                f"{', '.join(slot.key for slot in unread)}.",
                CalibrationWarning,
            )
    warn_of_nothing(update, fractions)
    return masked


def _check_together(
    method: str | None, granularity: Any, scope: Any, data: Any, recover: str | None
) -> None:
    """Refuse arguments that do not go together."""
    if data is None and (method or recover):
        asked = f"criterion={method!r}" if method else f"recover={recover!r}"
        raise ValueError(
            "Masks and weights are found on calibration data here, and there are none. "
            "Give a few hundred inputs: `data=x_train[:256]`. Received: "
            f"{asked}, data=None"
        )
    if not method:
        return
    if granularity == "unit":
        raise ValueError(
            f"{method!r} chooses single weights, blocks and patterns; whole units are "
            "chosen by a criterion of `plan`, such as 'reconstruction'. Received: "
            f"criterion={method!r}, granularity='unit'"
        )
    if scope not in get_args(Scope) or (method, scope) == ("sparsegpt", "output"):
        known = [s for s in get_args(Scope) if (method, s) != ("sparsegpt", "output")]
        raise ValueError(
            f"With {method!r}, `scope` must be one of {known}. Received: "
            f"scope={scope!r}"
        )


def _check_affordable(method: str, layers: list[LinearLayer]) -> None:
    """Refuse layers from which no output can lose one weight after the other."""
    costs = {layer.slot.key: obs_cost(*layer.target.shape) for layer in layers}
    most = max(costs, key=costs.__getitem__, default=None)
    if method == "obs" and most is not None and costs[most] > _AFFORDABLE:
        raise ValueError(
            "'obs' solves every output again for each weight that goes, which would "
            f"take too long here: {costs[most]:.0e} multiplications for {most!r}, and "
            f"{_AFFORDABLE:.0e} are allowed. Take 'sparsegpt', or leave such layers "
            "out with `layers`. Received: criterion='obs'"
        )
