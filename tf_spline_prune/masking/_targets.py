"""The sparsity that a training was to reach, noted on the wrappers."""

from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import MaskSlot
from tf_spline_prune.errors import SparsityWarning, warn

# How far below its target a tensor may end before anyone is told.
SLACK = 0.01

_NEVER_SET = (
    "The masks remove nothing: they were never set, and the model is as dense as "
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
        sparsity: The sparsity that the schedule was to reach; `None` where that is
            not known in weights, as where whole units go.
        most_gone: The most entries that were seen masked.
        asked: The largest fraction that was asked for so far.
        cause: Why the masks remove less, a sentence.
        nothing: Why nothing went although something was asked for, part of one.
    """

    sparsity: float | None
    most_gone: int = 0
    asked: float = 0.0
    cause: str = "Training ended before the schedule did."
    nothing: str | None = None


def ask(slot: MaskSlot, fraction: float) -> None:
    """Remember that a fraction of a weight, or of its units, was to go."""
    if slot.target is None:
        slot.note_target(Target(None))
    slot.target.asked = max(slot.target.asked, fraction)


def remember_nothing(slots: list[MaskSlot], why: str | None) -> None:
    """Remember why nothing went although something was asked for."""
    for slot in slots:
        slot.target.nothing = why


def remember(slots: list[MaskSlot]) -> None:
    """Remember how much is masked, to tell later whether it was set back."""
    for target, gone in _gone(slots):
        if target is not None:
            target.most_gone = max(target.most_gone, gone)


def _gone(slots: list[MaskSlot]) -> list[tuple[Target | None, int]]:
    """Count the masked entries of each wrapper, beside what it was to reach."""
    counts: dict[int, tuple[Target | None, int]] = {}
    for slot in slots:
        keep = slot.keep()
        before = counts.get(id(slot.wrapper), (None, 0))[1]
        gone = keep.size - int(np.count_nonzero(keep))
        counts[id(slot.wrapper)] = slot.target, before + gone
    return list(counts.values())


def below_target(slots: list[MaskSlot]) -> str | None:
    """Return how far masks are below what they were to reach, if they are, and why.

    All weights count together, as some scopes give each layer its own fraction. Where
    nothing is known but what was there, that is compared.

    Args:
        slots: The masked weights.

    Returns:
        Some sentences, or `None`.
    """
    known = [slot for slot in slots if slot.target]
    meant = [slot for slot in known if slot.target.sparsity is not None]
    sizes = {slot: float(np.prod(slot.mask.shape)) for slot in known}
    if not meant:
        return _set_back(known, sum(sizes.values()))
    size = sum(sizes[slot] for slot in meant)
    wanted = sum(sizes[slot] * slot.target.sparsity for slot in meant)
    counts = _gone(meant)
    gone = sum(count for _, count in counts)
    if not size or gone / size >= wanted / size - SLACK:
        return None
    targets = [target for target, _ in counts if target]
    restored = gone < sum(target.most_gone for target in targets)
    causes = [_RESTORED] if restored else list(dict.fromkeys(t.cause for t in targets))
    return (
        f"The masks remove {gone / size:.1%} of the weights, and the schedule was to "
        f"reach {wanted / size:.1%}. {' '.join(causes)}"
    )


def _set_back(slots: list[MaskSlot], size: float) -> str | None:
    """Return a warning if masks remove less than they were seen to remove."""
    counts = _gone(slots)
    gone = sum(count for _, count in counts)
    most = sum(target.most_gone for target, _ in counts if target)
    if gone >= most:
        return None
    return (
        f"The masks remove {gone / size:.1%} of the weights, and removed "
        f"{most / size:.1%} before. {_RESTORED}"
    )


def warn_below_target(slots: list[MaskSlot]) -> None:
    """Warn if masks are below what they were to reach, or remove nothing at all."""
    message = below_target(slots)
    if not message and not any(gone for _, gone in _gone(slots)):
        targets = [slot.target for slot in slots if slot.target]
        why = next((target.nothing for target in targets if target.nothing), None)
        message = f"The masks remove nothing, because {why}." if why else _NEVER_SET
    if message:
        warn(message, SparsityWarning)
