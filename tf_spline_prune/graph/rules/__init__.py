"""One rule file a layer family; a new family is one new file, imported here."""

from tf_spline_prune.graph.rules import (  # noqa: F401
    _attention,
    _contraction,
    _convolution,
    _dense,
    _elementwise,
    _normalization,
    _operations,
    _own_call,
    _recurrent,
    _reshaping,
    _selecting,
)
from tf_spline_prune.graph.rules._registry import (
    describe as describe,
    has_own_rule as has_own_rule,
    per_unit as per_unit,
    register_rule as register_rule,
    rule_of as rule_of,
)
