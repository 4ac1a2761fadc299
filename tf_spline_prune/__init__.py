"""Prune Keras models by reading them as what they are: splines.

A ReLU network is a continuous piecewise-affine map. This package reads its
partition of the input space as binary codes, stops a first training when the
codes settle, removes the units that the others can make up for, and gives back
a smaller, plain Keras model.

Names are imported at first use: `import tf_spline_prune` itself imports neither
TensorFlow nor Keras. Where Keras is there already, masked layers are made known to
it, so that a masked model loads without a custom scope.
"""

import importlib
import sys
from importlib import metadata as _metadata
from typing import Any

__version__ = _metadata.version("tf-spline-prune")

_HOMES = {
    "partition": (
        "PartitionCoder",
        "PartitionCodes",
        "Slice",
        "jacobian_rank",
        "local_affine",
        "local_complexity",
        "partition_distance",
        "max_regions",
        "slice2d",
        "unit_distances",
    ),
    "criteria": ("check_criterion",),
    "graph": ("ChannelGraph", "Cost", "cost", "register_rule"),
    "pruning": (
        "PruningPlan",
        "SanityReport",
        "Sensitivity",
        "check_rule",
        "compose",
        "distill",
        "least_squares",
        "lossless",
        "merge",
        "plan",
        "prune",
        "prune_in_rounds",
        "recalibrate_batchnorm",
        "remove_units",
        "sanity_checks",
        "sensitivity",
        "verify",
    ),
    "masking": (
        "MaskedLayer",
        "apply_masks",
        "load_weights",
        "prune_once",
        "shrink",
        "strip_masks",
        "update_masks",
        "weight_sparsity",
        "wrap_with_masks",
    ),
    "callbacks": (
        "ArchitectureEarlyBird",
        "LocalComplexityLogger",
        "MaskEarlyBird",
        "MaskPruning",
        "PruningSummaries",
        "SliceRecorder",
        "SignalPropagationLogger",
        "SplineEarlyBird",
    ),
    "export": (
        "ExportReport",
        "export_litert",
        "export_onnx",
        "export_saved_model",
        "write_serving_config",
    ),
    "initialization": ("prune_at_init",),
    "reporting": ("Report", "report", "training_flops"),
}
_NAMES = {
    name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names
}
_MODULES = {
    "callbacks": f"{__name__}.callbacks",
    "criteria": f"{__name__}.criteria",
    "datasets": f"{__name__}.datasets",
    "errors": f"{__name__}.errors",
    "generative": f"{__name__}.partition.generative",
    "graph": f"{__name__}.graph",
    "initialization": f"{__name__}.initialization",
    "litert": f"{__name__}.litert",
    "reporting": f"{__name__}.reporting",
    "probes": f"{__name__}.partition.probes",
    "schedules": f"{__name__}.schedules",
    "visualize": f"{__name__}.visualize",
}
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

__all__ = sorted([*_NAMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        known = _SUCCESSORS.get(name)
        hint = f". What is `{name}` in TFMOT is here: {known}" if known else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.masking._masked_layer")
