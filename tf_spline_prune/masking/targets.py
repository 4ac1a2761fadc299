"""The sparsity that a training was to reach, remembered by the wrappers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import MaskSlot
from tf_spline_prune.errors import SparsityWarning, warn

# How far below its target a tensor may end before anyone is told.
SLACK = 0.01

_NEVER_SET = (
    "The masks remove nothing: nobody has set them, and the model is as dense as "
    "before. Train it with `tsp.MaskPruning(schedule)` among the callbacks (TFMOT's "
    "`UpdatePruningStep` does nothing here), or call `tsp.update_masks`."
)
_RESTORED = (
    "Older weights were restored, as `EarlyStopping(restore_best_weights=True)` does. "
    "Let it begin when the schedule has ended: `start_from_epoch=...`."
)


@dataclass(eq=False)
class Target:
    """What the masks of one wrapper were to reach, and what they have reached.

    Attributes:
        sparsity: The sparsity that the schedule was to reach.
        most_gone: The most entries that were seen masked.
        cause: Why the schedule asked for less, a sentence.
    """

    sparsity: float
    most_gone: int = 0
    cause: str = "Training ended before the schedule did."


def set_target(slot: MaskSlot, sparsity: float) -> None:
    """Remember the sparsity that a weight is to reach."""
    slot.wrapper.mask_target = Target(sparsity)


def target_of(wrapper: Any) -> Target | None:
    """Give what was remembered, if anything was."""
    return getattr(wrapper, "mask_target", None)


def remember(slots: list[MaskSlot]) -> None:
    """Remember how much is masked, to tell later whether it was set back."""
    for wrapper, gone in _gone(slots):
        target = target_of(wrapper)
        if target is not None:
            target.most_gone = max(target.most_gone, gone)


def _gone(slots: list[MaskSlot]) -> list[tuple[Any, int]]:
    """Count the masked entries of each wrapper."""
    counts: dict[int, tuple[Any, int]] = {}
    for slot in slots:
        keep = slot.keep()
        before = counts.get(id(slot.wrapper), (slot.wrapper, 0))[1]
        gone = keep.size - int(np.count_nonzero(keep))
        counts[id(slot.wrapper)] = slot.wrapper, before + gone
    return list(counts.values())


def below_target(slots: list[MaskSlot]) -> str | None:
    """Say how far masks are below what they were to reach, if they are, and why.

    All weights count together, as some scopes give each layer its own fraction.

    Args:
        slots: The masked weights.

    Returns:
        Some sentences, or `None`.
    """
    meant = [slot for slot in slots if target_of(slot.wrapper)]
    size = wanted = 0.0
    for slot in meant:
        entries = float(np.prod(slot.mask.shape))
        size += entries
        wanted += slot.wrapper.mask_target.sparsity * entries
    counts = _gone(meant)
    gone = sum(count for _, count in counts)
    if not size or gone / size >= wanted / size - SLACK:
        return None
    targets = [wrapper.mask_target for wrapper, _ in counts]
    restored = gone < sum(target.most_gone for target in targets)
    causes = [_RESTORED] if restored else list(dict.fromkeys(t.cause for t in targets))
    return (
        f"The masks remove {gone / size:.1%} of the weights, and the schedule was to "
        f"reach {wanted / size:.1%}. {' '.join(causes)}"
    )


def warn_below_target(slots: list[MaskSlot]) -> None:
    """Warn if masks are below what they were to reach, or were never set at all."""
    message = below_target(slots)
    if not message and not any(gone for _, gone in _gone(slots)):
        message = _NEVER_SET
    if message:
        warn(message, SparsityWarning)
