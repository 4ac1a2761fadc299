"""`prune_at_init`: a sparse network, or a small one, before any training."""

import numbers
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import SEED, SELECTOR, Function, Integer, OneOf, checked
from tf_spline_prune.compat import (
    Calibration,
    CurrentWeights,
    Gradients,
    MaskSlot,
    Progress,
    check_finite,
    mask_slots,
    optimizer_steps,
    require_flavour,
    trace,
)
from tf_spline_prune.criteria import ConnectionCriterion, Connections
from tf_spline_prune.criteria._gates import LOSS
from tf_spline_prune.criteria._get import CRITERION, NAMES
from tf_spline_prune.errors import (
    BudgetError,
    CriterionError,
    InitializationWarning,
    warn,
)
from tf_spline_prune.graph import cost
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.initialization._connection_scores import (
    CONNECTIONS,
    names_of,
    with_loss,
)
from tf_spline_prune.initialization._masked_copy import refuse_masks
from tf_spline_prune.masking._granularity import lowest
from tf_spline_prune.masking._scoring import OF_WEIGHTS, weight_scores
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks
from tf_spline_prune.pruning import plan, prune_in_rounds
from tf_spline_prune.pruning.planning._budget import FRACTIONS, as_number


def erk(shapes: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Assign each layer a density in proportion to `sum(shape) / prod(shape)`.

    Args:
        shapes: Shapes of the weight tensors.
        count: How many weights stay in all.

    Returns:
        Whole numbers of weights that stay, one per tensor, that add up to `count`.

    Source: Evci et al., "Rigging the Lottery", ICML 2020 (Erdős–Rényi kernel).
    """
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    return _filled(np.array([sum(shape) for shape in shapes], float), sizes, count)


def smart_ratio(shapes: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Keep more in early layers, by a rule of the layer's number alone.

    Layer l of L keeps a fraction in proportion to `k^2 + k`, `k = L - l + 1`; the last
    one keeps 0.3 of its weights, unless so many must not stay in all.

    Args:
        shapes: Shapes of the weight tensors, in the order of computation.
        count: How many weights stay in all.

    Returns:
        Whole numbers of weights that stay, one per tensor, that add up to `count`.

    Source: Su et al., "Sanity-Checking Pruning Methods: Random Tickets can Win the
    Jackpot", NeurIPS 2020.
    """
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    k = np.arange(len(sizes), 0, -1.0)
    wanted = (k**2 + k) * sizes
    if len(sizes) < 2:
        return _filled(wanted, sizes, count)
    last = min(round(0.3 * sizes[-1]), count)
    first = sizes[:-1]
    rest = min(count - last, int(first.sum()))
    return np.append(_filled(wanted[:-1], first, rest), count - rest)


def _filled(wanted: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """Share a number out in proportion, where nobody gets more than there is."""
    if not 0 <= count <= sizes.sum():
        raise BudgetError(
            f"Of {sizes.sum():,} weights {count:,} cannot be kept. Received: sparsity "
            "out of reach"
        )
    given, full = np.zeros(len(sizes)), np.zeros(len(sizes), bool)
    while not full.all():
        left = count - sizes[full].sum()
        given = np.where(full, sizes, wanted * left / wanted[~full].sum())
        over = (given > sizes) & ~full
        if not over.any():
            break
        full |= over
    whole = np.floor(given + 1e-9).astype(int)
    # The largest remainders get what rounding has left over.
    order = np.argsort(whole - given, kind="stable")
    order = order[whole[order] < sizes[order]]
    whole[order[: count - whole.sum()]] += 1
    return whole


def strongest(
    scores: Sequence[np.ndarray], count: int, old: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Choose the weights of the highest scores, exactly as many as are asked for.

    Among equal scores the first ones go, tensor by tensor: nothing hangs on chance.

    Args:
        scores: One array per weight tensor, finite or plus infinity; higher means keep.
        count: How many weights stay, of all tensors together.
        old: Masks, bool; what they have removed stays gone.

    Returns:
        One bool array per tensor, in its shape; true means keep.
    """
    if old is None:
        old = [np.ones(array.shape, bool) for array in scores]
    masks = [mask.copy() for mask in old]
    left = np.concatenate([a[mask] for a, mask in zip(scores, masks, strict=True)])
    gone = lowest(left, len(left) - count)
    ends = np.cumsum([np.count_nonzero(mask) for mask in masks])
    for mask, lost in zip(masks, np.split(gone, ends[:-1]), strict=True):
        mask[mask] = ~lost
    return masks


EmptyLayers = Literal["raise", "keep", "allow"]
RoundSchedule = Literal["exponential", "linear"]
Masks = list[np.ndarray]
_PROFILES = {"erk": erk, "smart_ratio": smart_ratio}
_NAMES = (*CONNECTIONS, *OF_WEIGHTS, *_PROFILES)


def early_masks(
    model: Any,
    slots: Sequence[MaskSlot],
    criterion: Any,
    sparsity: float,
    data: Calibration | None,
    rounds: int | None,
    schedule: RoundSchedule,
    empty_layers: EmptyLayers,
    seed: int,
) -> Masks:
    """Choose the weights that stay.

    Args:
        model: The model.
        slots: Its weights that masks can thin out.
        criterion: What ranks them, as `with_loss` gave it.
        sparsity: Fraction that goes, in [0, 1).
        data: Inputs and labels, where there are any.
        rounds: As in `prune_at_init`.
        schedule: As in `prune_at_init`.
        empty_layers: As in `prune_at_init`.
        seed: As in `prune_at_init`.

    Returns:
        One bool array per slot, true where a weight stays.

    Raises:
        BudgetError: If a layer would lose all its weights.
        CriterionError: If the loss or a score is not finite.
        ValueError: If no criterion of weights has this name.
    """
    if isinstance(criterion, str) and criterion not in _NAMES:
        raise ValueError(
            f"A criterion of single weights is one of {_NAMES}, an instance of its "
            "class, or a function of the name and the weights of a tensor; others need "
            f'`granularity="unit"`. Received: criterion={criterion!r}'
        )
    arrays = [slot.read() for slot in slots]
    keys = [slot.key for slot in slots]
    total = sum(array.size for array in arrays)
    count = round((1 - sparsity) * total)
    if empty_layers == "keep" and count < len(slots):
        raise BudgetError(
            f"At least one weight of each of {len(slots)} tensors must be kept. Take a "
            f"smaller sparsity. Received: sparsity={sparsity}, which leaves {count} of "
            f"{total:,} weights"
        )
    safe = empty_layers == "keep"
    if isinstance(criterion, str) and criterion in _PROFILES:
        scores = weight_scores(arrays, "random", seed, keys)
        each = _PROFILES[criterion]([array.shape for array in arrays], count)
        while safe and not each.all():
            each[each.argmax()] -= 1
            each[each.argmin()] += 1
        masks = [strongest([s], k)[0] for s, k in zip(scores, each, strict=True)]
    elif isinstance(criterion, ConnectionCriterion):
        counts = _counts(total, sparsity, rounds or criterion.rounds, schedule)
        data = criterion.check_data(model, data)
        connections = Connections(model, names_of(slots))
        scores, masks = _in_rounds(criterion, connections, data, slots, counts, safe)
    else:
        scores = weight_scores(arrays, criterion, seed, keys)
        scores = [array.astype("float64") for array in scores]
        masks = strongest(_with_one_safe(scores) if safe else scores, count)
    ties = sum(int((s[m] == 0).sum()) for s, m in zip(scores, masks, strict=True))
    if ties:
        warn(
            f"{ties:,} of the {count:,} kept weights have the score 0: the criterion "
            "does not rank them, so their position decided. Weights of 0, dead units, "
            "labels that do not vary or an output that saturates cause this.",
            InitializationWarning,
        )
    empty = [key for key, mask in zip(keys, masks, strict=True) if not mask.any()]
    if empty and empty_layers != "allow":
        raise BudgetError(
            "Nothing could pass through a layer without weights. Take a smaller "
            "sparsity, more `rounds`, another criterion, or `empty_layers='keep'`. "
            f"Received: sparsity={sparsity}, which would empty {', '.join(empty)}"
        )
    return masks


def _counts(
    total: int, sparsity: float, rounds: int, schedule: RoundSchedule
) -> list[int]:
    """Return how many weights are kept after each round."""
    if schedule == "exponential":
        left = [(1 - sparsity) ** (k / rounds) for k in range(1, rounds + 1)]
    else:
        left = [1 - sparsity * (k / rounds) for k in range(1, rounds + 1)]
    return [round(fraction * total) for fraction in left]


def _in_rounds(
    criterion: ConnectionCriterion,
    connections: Connections,
    data: Calibration | None,
    slots: Sequence[MaskSlot],
    counts: Sequence[int],
    safe: bool,
) -> tuple[Masks, Masks]:
    """Prune to one count after the other; give the last scores, and the masks."""
    dense = connections.weights
    masks: Masks | None = None
    scores: Masks = []
    progress = Progress(len(counts), "round")
    for count in counts:
        if masks is not None:
            connections.assign(_masked(dense, slots, masks))
        found = criterion.saliencies(connections, data)
        scores = [criterion.worth(found[slot.path][slot.name]) for slot in slots]
        for slot, array in zip(slots, scores, strict=True):
            if not np.isfinite(array).all():
                raise CriterionError(
                    "A criterion must give finite scores. Received: NaN or infinite "
                    f"scores for {slot.key!r}"
                )
        ranked = _with_one_safe(scores, masks) if safe else scores
        masks = strongest(ranked, count, None if criterion.regrows else masks)
        progress.step()
    return scores, masks or []


def _masked(dense: Gradients, slots: Sequence[MaskSlot], masks: Masks) -> Gradients:
    left: Gradients = {slot.path: {} for slot in slots}
    for slot, keep in zip(slots, masks, strict=True):
        left[slot.path][slot.name] = dense[slot.path][slot.name] * keep
    return left


def _with_one_safe(scores: Masks, masks: Masks | None = None) -> Masks:
    """Put the best weight of each tensor above all others."""
    found = []
    for number, array in enumerate(scores):
        allowed = array if masks is None else np.where(masks[number], array, -np.inf)
        safe = array.copy()
        safe.flat[int(allowed.argmax())] = np.inf
        found.append(safe)
    return found


@checked(
    criterion=[
        OneOf(*dict.fromkeys((*_NAMES, *NAMES))),
        CRITERION[1],
        Function("a function of what is scored"),
    ],
    loss=LOSS,
    sparsity=[*FRACTIONS, None],
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
    """Prune a network before it is trained.

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
            Defaults to `"snip"`.
        sparsity: Fraction of the weights, or of the units, to prune, in [0, 1).
            Defaults to `None`.
        data: Inputs and labels for criteria that read any: about ten of each class are
            enough. Inputs alone where the loss needs no labels. Defaults to `None`.
        loss: What `compile` takes as `loss`; `"uniform"`, `"raw"` or `"softmax"` need
            no labels. Defaults to `None`, which takes what the model was compiled with.
        rounds: In how many rounds the sparsity is reached, each on what the ones before
            have kept. Defaults to `None`: the criterion's own number (SynFlow 100,
            FORCE 60, others 1), and 1 for units.
        schedule: Whether the fraction that is kept falls by equal factors,
            `"exponential"`, or by equal steps, `"linear"`. Defaults to `"exponential"`.
        granularity: `"weight"` or `"unit"`. Defaults to `"weight"`.
        layers: Which layers take part: a path or name, a regular expression, a list of
            these, or a function of the layer. Defaults to `None`, which means all.
        empty_layers: What is done about a layer that would lose all its weights:
            `"raise"` an error, `"keep"` its best weight, or `"allow"` it. Units have
            `min_units` for this. Defaults to `"raise"`.
        seed: Seed of what is random. Defaults to `0`.
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
