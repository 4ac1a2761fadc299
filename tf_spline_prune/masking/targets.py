"""The sparsity that a training was to reach, remembered by the wrappers."""

import numpy as np

from tf_spline_prune.compat import MaskSlot
from tf_spline_prune.errors import SparsityWarning, warn

# How far below its target a tensor may end before anyone is told.
SLACK = 0.01


def set_target(slot: MaskSlot, target: float) -> None:
    """Remember the sparsity that a weight is to reach."""
    slot.wrapper.target_sparsity = target


def below_target(slots: list[MaskSlot]) -> str | None:
    """Say how far masks are below what they were to reach, if they are.

    All weights count together, as some scopes give each layer its own share.

    Args:
        slots: The masked weights.

    Returns:
        A sentence, or `None`.
    """
    asked = wanted = gone = 0.0
    for slot in slots:
        target = getattr(slot.wrapper, "target_sparsity", None)
        if target is not None:
            keep = slot.keep()
            asked += keep.size
            wanted += target * keep.size
            gone += keep.size - np.count_nonzero(keep)
    if not asked or gone / asked >= wanted / asked - SLACK:
        return None
    return (
        f"The masks remove {gone / asked:.1%} of the weights, and the schedule was to "
        f"reach {wanted / asked:.1%}. Training ended too early, or older weights were "
        "restored, as `EarlyStopping(restore_best_weights=True)` does. Let it begin "
        "when the schedule has ended: `start_from_epoch=...`."
    )


def warn_below_target(slots: list[MaskSlot]) -> None:
    """Warn if masks are below what they were to reach."""
    message = below_target(slots)
    if message:
        warn(message, SparsityWarning)
