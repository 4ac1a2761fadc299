"""Prune Keras models by reading them as what they are: splines.

A ReLU network is a continuous piecewise-affine map. This package reads its
partition of the input space as binary codes, stops a first training when the
codes settle, removes the units that the others can make up for, and gives back
a smaller, plain Keras model.

Names are imported at first use: `import tf_spline_prune` itself imports neither
TensorFlow nor Keras. Where Keras is there already, masked layers are made known to
it, so that a masked model loads without a custom scope.
"""

import sys
from importlib import metadata as _metadata

from tf_spline_prune._public_names import public_names

__version__ = _metadata.version("tf-spline-prune")

# What TFMOT calls it, and what it is here.
_SUCCESSORS = {
    "prune_low_magnitude": "`tsp.wrap_with_masks(model)`, and `tsp.MaskPruning("
    "schedule)` among the callbacks",
    "strip_pruning": "`tsp.strip_masks(model)`",
    "UpdatePruningStep": "`tsp.MaskPruning(schedule)`, which takes the schedule too",
    "PruneLowMagnitude": "`tsp.MaskedLayer(layer)`",
    "PrunableLayer": "any layer with a method `get_prunable_weights`",
    "PruningPolicy": "`layers=` of `tsp.wrap_with_masks`",
    "PruningSchedule": "`tsp.schedules.Schedule`",
    "ConstantSparsity": "`tsp.schedules.ConstantSparsity`",
    "PolynomialDecay": "`tsp.schedules.PolynomialDecay`",
    "prune_for_benchmark": "`tsp.prune_once(model, sparsity)`",
    "prune_scope": "not needed in Keras 3; a tf_keras file is loaded in TFMOT's own",
}

__getattr__, __dir__, __all__ = public_names(
    __name__,
    __file__,
    {n: f"TFMOT's `{n}` is here: {h}" for n, h in _SUCCESSORS.items()},
)

if "keras" in sys.modules:
    __getattr__("MaskedLayer")
