"""Whether a falling learning rate, not learning, made a detector settle."""

from tf_spline_prune.errors import LearningRateDropWarning, warn

# A drop of the learning rate to less than this share makes distances fall.
_LR_DROP = 0.5


def warn_of_rate_drop(detector: str, epoch: int, rates: list[float]) -> None:
    """Warn if the learning rate fell within the window of a detector that hit.

    Args:
        detector: Name of the detector's class.
        epoch: The epoch of the hit, counted from 0.
        rates: The learning rates of the window's epochs, the newest last.
    """
    if rates[-1] < _LR_DROP * max(rates):
        warn(
            f"{detector} found its early bird after epoch {epoch + 1}, "
            f"while the learning rate fell from {max(rates):g} to {rates[-1]:g} "
            "within its window. A smaller rate moves the network less, settled or "
            "not, so this says little. Let the detector run at a constant rate.",
            LearningRateDropWarning,
        )
