"""Which weights of an untrained network stay: one ranking, in rounds."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tf_spline_prune.compat import Calibration, Gradients, MaskSlot, Progress
from tf_spline_prune.criteria import ConnectionCriterion, Connections
from tf_spline_prune.errors import (
    BudgetError,
    CriterionError,
    InitializationWarning,
    warn,
)
from tf_spline_prune.initialization.connection_scoring import names_of
from tf_spline_prune.initialization.profiles import erk, smart_ratio
from tf_spline_prune.initialization.strongest import strongest
from tf_spline_prune.masking.scoring import weight_scores

EmptyLayers = Literal["raise", "keep", "allow"]
RoundSchedule = Literal["exponential", "linear"]
Masks = list[np.ndarray]
_PROFILES = {"erk": erk, "smart_ratio": smart_ratio}
_NAMES = (
    "snip",
    "force",
    "grasp",
    "synflow",
    "magnitude",
    "lamp",
    "random",
    *_PROFILES,
)


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
        sparsity: Share that goes, in [0, 1).
        data: Inputs and labels, where there are any.
        rounds: As in `prune_at_init`.
        schedule: As in `prune_at_init`.
        empty_layers: As in `prune_at_init`.
        seed: As in `prune_at_init`.

    Returns:
        One bool array a slot, true where a weight stays.

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
            f"At least one weight of each of {len(slots)} tensors is to stay. Take a "
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
            f"{ties:,} of the {count:,} weights that stay have the score 0: the "
            "criterion says nothing about them, and their place decided. Weights of 0, "
            "dead units, labels that do not vary or an output that saturates do this.",
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
    """Say how many weights stay after each round."""
    if schedule == "exponential":
        left = [(1 - sparsity) ** (k / rounds) for k in range(1, rounds + 1)]
    else:
        left = [1 - sparsity * (k / rounds) for k in range(1, rounds + 1)]
    return [round(share * total) for share in left]


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
