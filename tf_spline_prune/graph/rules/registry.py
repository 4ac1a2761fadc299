"""The table of rules: how each kind of layer hands units on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tf_spline_prune.compat import Call
from tf_spline_prune.graph.axes import TensorAxes
from tf_spline_prune.graph.recorder import Recorder

Apply = Callable[[Call, list[TensorAxes], Recorder], "TensorAxes | list[TensorAxes]"]


@dataclass(frozen=True)
class Rule:
    """How one kind of layer hands units on.

    Attributes:
        apply: Called as `apply(call, inputs, recorder)`; writes down weights,
            ties and barriers, and describes the output.
        homogeneous: Whether the layer, as this call uses it, treats each unit
            alone and hands a positive scale of it on: `f(c x) = c f(x)`.
    """

    apply: Apply
    homogeneous: Callable[[Call], bool]


_RULES: dict[str, Rule] = {}


def rule(
    *kinds: str, homogeneous: bool | Callable[[Call], bool] = False
) -> Callable[[Apply], Apply]:
    """Register a function as the rule of one or more kinds of layer.

    Args:
        *kinds: Kinds as `compat.Call.kind` names them.
        homogeneous: Whether a positive scale of a unit is handed on; a function
            of the call where that depends on the layer's config.

    Returns:
        A decorator.
    """

    def register(function: Apply) -> Apply:
        test = homogeneous if callable(homogeneous) else (lambda call: homogeneous)
        for kind in kinds:
            _RULES[kind] = Rule(function, test)
        return function

    return register


def rule_of(call: Call) -> Rule | None:
    """Find the rule of a call, or `None`."""
    return _RULES.get(call.kind)


def opaque(
    call: Call, inputs: Sequence[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """Treat a call as a barrier: its inputs must stay, its outputs are unknown."""
    for value in inputs:
        recorder.bar_tensor(
            value, f"{call.path} ({call.kind}) has no rule, so its inputs stay"
        )
    return [TensorAxes(s, (None,) * len(s)) for s in call.output_shapes]
