"""Keras callbacks: the early-bird detectors, masks and slices while training."""

from tf_spline_prune.callbacks._architecture_early_bird import ArchitectureEarlyBird
from tf_spline_prune.callbacks._early_bird import EarlyBird
from tf_spline_prune.callbacks._local_complexity_logger import LocalComplexityLogger
from tf_spline_prune.callbacks._mask_early_bird import MaskEarlyBird
from tf_spline_prune.callbacks._mask_pruning import MaskPruning
from tf_spline_prune.callbacks._pruning_summaries import PruningSummaries
from tf_spline_prune.callbacks._signal_propagation_logger import (
    SignalPropagationLogger,
)
from tf_spline_prune.callbacks._slice_recorder import SliceRecorder
from tf_spline_prune.callbacks._spline_early_bird import SplineEarlyBird

__all__ = [
    "ArchitectureEarlyBird",
    "EarlyBird",
    "LocalComplexityLogger",
    "MaskEarlyBird",
    "MaskPruning",
    "PruningSummaries",
    "SliceRecorder",
    "SignalPropagationLogger",
    "SplineEarlyBird",
]
