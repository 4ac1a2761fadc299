"""One rule file a layer family; a new family is one new file, imported here."""

from tf_spline_prune.graph.rules import (  # noqa: F401
    _attention,
    _contraction,
    _convolution,
    _dense,
    _elementwise,
    _normalization,
    _operations,
    _recurrent,
    _reshaping,
)
from tf_spline_prune.graph.rules._registry import (
    describe,
    has_own_rule,
    per_unit,
    register_rule,
    rule_of,
)

__all__ = [
    "describe",
    "has_own_rule",
    "per_unit",
    "register_rule",
    "rule_of",
]
