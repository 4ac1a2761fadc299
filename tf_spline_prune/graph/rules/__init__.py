"""One rule file a layer family; a new family is one new file, imported here."""

from tf_spline_prune.graph.rules import (
    attention,
    contraction,
    convolution,
    dense,
    elementwise,
    embedding,
    merging,
    normalization,
    operations,
    recurrent,
    reshaping,
    spatial,
)
from tf_spline_prune.graph.rules.registry import (
    describe,
    has_own_rule,
    per_unit,
    register_rule,
    rule_of,
)

__all__ = [
    "attention",
    "contraction",
    "convolution",
    "dense",
    "describe",
    "elementwise",
    "embedding",
    "has_own_rule",
    "merging",
    "normalization",
    "operations",
    "per_unit",
    "recurrent",
    "register_rule",
    "reshaping",
    "rule_of",
    "spatial",
]
