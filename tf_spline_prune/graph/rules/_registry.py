"""The table of rules: how each kind of layer hands units on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tf_spline_prune._checks import Flag, Function, Instance, ListOf, Text, checked
from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import TensorAxes
from tf_spline_prune.graph._recorder import Recorder

Apply = Callable[[Call, list[TensorAxes], Recorder], "TensorAxes | list[TensorAxes]"]


@dataclass(frozen=True)
class Rule:
    """How one kind of layer hands units on.

    Attributes:
        apply: Called as `apply(call, inputs, recorder)`; writes down weights,
            ties and barriers, and describes the output.
        homogeneous: Whether the layer, as this call uses it, treats each unit
            alone and hands a positive scale of it on: `f(c x) = c f(x)`.
        arrays: Whether it understands arguments that are fixed arrays. Defaults to
            `False`.
        anywhere: Whether it understands a batch axis that is not the first. Defaults
            to `False`.
    """

    apply: Apply
    homogeneous: Callable[[Call], bool]
    arrays: bool = False
    anywhere: bool = False


_RULES: dict[str, Rule] = {}
_BY_CLASS: dict[type, Rule] = {}


def rule(
    *kinds: str,
    homogeneous: bool | Callable[[Call], bool] = False,
    arrays: bool = False,
    anywhere: bool = False,
) -> Callable[[Apply], Apply]:
    """Register a function as the rule of one or more kinds of layer.

    Args:
        *kinds: Kinds as `compat.Call.kind` names them.
        homogeneous: Whether a positive scale of a unit is handed on; a function
            of the call where that depends on the layer's config.
        arrays: Whether the rule understands arguments that are fixed arrays. Defaults
            to `False`.
        anywhere: Whether it understands a batch axis that is not the first. Defaults
            to `False`.

    Returns:
        A decorator.
    """

    def register(function: Apply) -> Apply:
        for kind in kinds:
            _RULES[kind] = Rule(function, _test(homogeneous), arrays, anywhere)
        return function

    return register


@checked(
    weights=Text("the name of a weight"),
    sizes=ListOf(Text("the name of an argument"), "names of arguments", 0),
)
def per_unit(*weights: str, sizes: Sequence[str] = ()) -> Apply:
    """Return the rule of a layer that treats each unit alone.

    The units lie on the last axis of the layer's one input, and stay there.

    Args:
        *weights: Names of the weights that hold one entry per unit, on their last axis.
            They scale or are added: no multiply-accumulates are counted.
        sizes: Entries of the layer's config that count units. Defaults to `()`.

    Returns:
        The rule, for `register_rule`.

    Example:

    ```python
    tsp.register_rule(MyScale)(tsp.graph.per_unit("gamma", sizes=("dim",)))
    ```
    """

    def apply(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
        (value,) = inputs
        last = value.rank - 1
        labels = recorder.read(value, last, call)
        for name in weights:
            recorder.vector(call, name, labels)
        for key in sizes:
            recorder.resize(call, key, labels)
        return value.with_labels(call.output_shapes[0], {**value.kept, last: labels})

    return apply


@checked(
    layers=Instance(type, what="the class of a layer"),
    homogeneous=[Flag(), Function("a function of a call")],
)
def register_rule(
    *layers: type, homogeneous: bool | Callable[[Call], bool] = False
) -> Callable[[Apply], Apply]:
    """Register a rule for your own layers.

    The rule is called when a model with such a layer is traced. It records whose units
    the axes of the layer's weights hold, and returns what the axes of its output hold.
    A layer made of other layers needs no rule: it is traced through. `check_rule` tests
    a rule numerically.

    Args:
        *layers: Classes of layers, not of layers that Keras defines.
        homogeneous: Whether the layer treats each unit alone and is positively
            homogeneous, `f(c x) = c f(x)`; or a function of the call. Defaults to
            `False`.

    Returns:
        A decorator for a function `rule(call, inputs, recorder)`: `call` holds the
        layer and its shapes, `inputs` one `TensorAxes` per input, and `recorder` the
        methods to record with. It returns one `TensorAxes` per output.

    Raises:
        TypeError: If anything but a class is given.

    Example:

    ```python
    @tsp.register_rule(MyScale)
    def my_scale(call, inputs, recorder):
        (value,) = inputs
        recorder.vector(call, "gamma", value.labels[-1])   # one entry per unit
        recorder.resize(call, "dim", value.labels[-1])     # counts units
        return value
    ```
    """
    if not layers:
        raise TypeError(
            "`register_rule` takes classes of layers, and gives a decorator. "
            "Received: nothing"
        )

    def register(function: Apply) -> Apply:
        for layer in layers:
            _BY_CLASS[layer] = Rule(function, _test(homogeneous))
        return function

    return register


def _test(homogeneous: bool | Callable[[Call], bool]) -> Callable[[Call], bool]:
    return homogeneous if callable(homogeneous) else (lambda call: homogeneous)


def has_own_rule(layer: Any) -> bool:
    """Return whether a user's rule describes a layer, or the one inside a wrapper."""
    return type(layer) in _BY_CLASS or type(getattr(layer, "layer", None)) in _BY_CLASS


def rule_of(call: Call) -> Rule | None:
    """Find the rule of a call, or `None`."""
    return _BY_CLASS.get(type(call.layer)) or _RULES.get(call.kind)


def describe(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """Apply the rule of a call, or treat it as a barrier.

    An operation takes arguments of many forms; one that its rule does not
    understand makes it a barrier as well.
    """
    rule = rule_of(call)
    if rule is None and call.kind.startswith("custom:"):
        rule = _RULES["custom"]  # which reads the layer's `call`
    if rule is None or (not rule.arrays and call.arrays()):
        return opaque(call, inputs, recorder)
    if any(value.batch for value in inputs) and not rule.anywhere:
        return opaque(call, inputs, recorder, "takes the batch on its first axis only")
    try:
        found = rule.apply(call, inputs, recorder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        if not call.kind.startswith("op:"):
            raise
        return opaque(call, inputs, recorder)
    return found if isinstance(found, list) else [found]


def opaque(
    call: Call,
    inputs: Sequence[TensorAxes],
    recorder: Recorder,
    why: str = "has no rule that fits",
) -> list[TensorAxes]:
    """Treat a call as a barrier: its inputs must stay, its outputs are unknown."""
    recorder.unseen(call)
    for value in inputs:
        recorder.bar_tensor(
            value, f"{call.path} ({call.kind}) {why}, so its inputs are kept"
        )
    return [TensorAxes(s, (None,) * len(s)) for s in call.output_shapes]
