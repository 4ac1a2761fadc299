"""Pruning schedules: when masks change during training, and to which sparsity.

`ConstantSparsity` and `PolynomialDecay` are TFMOT's own, handed on. The others are
subclasses of the same `PruningSchedule`, so they work in TFMOT's wrappers too.
"""

from tf_spline_prune.compat import import_tfmot
from tf_spline_prune.schedules._cyclic import Cyclic
from tf_spline_prune.schedules._early_bird_sparsity import EarlyBirdSparsity
from tf_spline_prune.schedules._exponential import Exponential
from tf_spline_prune.schedules._firing import evaluate, final_sparsity, fires_within
from tf_spline_prune.schedules._one_shot import OneShot
from tf_spline_prune.schedules._schedule import Schedule
from tf_spline_prune.schedules._timed import Timed

_tfmot = import_tfmot().sparsity.keras
ConstantSparsity = _tfmot.ConstantSparsity
"""TFMOT's own: one sparsity from `begin_step` on."""
PolynomialDecay = _tfmot.PolynomialDecay
"""TFMOT's own: a polynomial from `initial_sparsity` to `final_sparsity`."""

__all__ = [
    "ConstantSparsity",
    "Cyclic",
    "EarlyBirdSparsity",
    "Exponential",
    "OneShot",
    "PolynomialDecay",
    "Schedule",
    "Timed",
    "evaluate",
    "final_sparsity",
    "fires_within",
]
