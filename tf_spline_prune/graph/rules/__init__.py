"""One rule file a layer family; a new family is one new file, imported here."""

from tf_spline_prune.graph.rules import (
    convolution,
    dense,
    elementwise,
    merging,
    normalization,
    reshaping,
    spatial,
)
from tf_spline_prune.graph.rules.registry import opaque, rule_of

__all__ = [
    "convolution",
    "dense",
    "elementwise",
    "merging",
    "normalization",
    "opaque",
    "reshaping",
    "rule_of",
    "spatial",
]
