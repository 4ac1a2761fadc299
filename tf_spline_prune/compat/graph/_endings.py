"""Where a model's outputs are made, and what enters the last softmax or sigmoid."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tf_spline_prune.compat._flavour import activation_name
from tf_spline_prune.compat._kinds import HANDS_ON
from tf_spline_prune.compat.graph._call_graph import Call
from tf_spline_prune.compat.graph._program import Program, ProgramStep, Slot, Values
from tf_spline_prune.compat.run._execution import call_layer

Apply = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]

# Functions that squeeze all numbers into a range, and so hide what differs; the last
# ones leave decisions or whole numbers.
_SQUASHING = frozenset(
    "softmax sigmoid logsoftmax logsigmoid tanh softsign hardsigmoid hardtanh "
    "argmax argmin sign round floor ceil greater greaterequal less lessequal".split()
)


def run_to_ends(
    program: Program, inputs: list[Any], apply: Apply = call_layer
) -> tuple[list[Any], list[Any]]:
    """Run a model in inference mode.

    Args:
        program: The model.
        inputs: One tensor an input.
        apply: What to do at each call, as in `Graph.run`.

    Returns:
        The outputs, and for each what enters the softmax, sigmoid, tanh or argmax
        that it comes out of, or the cast; of another output, itself.
    """
    ends = {slot: _squash_of(program, slot) for slot in program.outputs}
    wanted = {step.name for step in ends.values() if step is not None}
    values: Values = dict(zip(program.inputs, inputs, strict=True))
    entering: dict[str, Any] = {}
    for name, step in program.steps.items():
        if name in wanted:
            args, kwargs = program.arguments(step, values)
            entering[name] = _entering(step.call, args, kwargs, apply)
        program.run([name], values, apply)
    outputs = [values[slot] for slot in program.outputs]
    squashed = [ends[slot] for slot in program.outputs]
    return outputs, [
        output if end is None else entering[end.name]
        for output, end in zip(outputs, squashed, strict=True)
    ]


def _squash_of(program: Program, output: Slot) -> ProgramStep | None:
    """Find the step whose squashing function an output comes out of, if any."""
    makers = {slot: step for step in program.steps.values() for slot in step.outputs}
    slot = output
    cast: ProgramStep | None = None  # to whole numbers, perhaps
    while slot in makers:
        step = makers[slot]
        if _squashes(step.call):
            return step
        linear = step.call.kind == "Activation" and _function(step.call) == "linear"
        if len(step.inputs) != 1 or not (linear or step.call.kind in HANDS_ON):
            break
        if step.call.kind == "op:cast" and cast is None:
            cast = step
        slot = step.inputs[0]
    return cast


def _squashes(call: Call) -> bool:
    if call.kind.startswith("op:"):
        return call.kind[3:].replace("_", "") in _SQUASHING
    if call.kind == "Softmax":
        return True
    return _function(call) in _SQUASHING


def _function(call: Call) -> str:
    """Return the name of the function that ends a layer, without underscores."""
    layer = _holder(call)
    kind = type(layer).__name__
    ends = kind in ("Activation", "Dense", "EinsumDense") or "Conv" in kind
    if not ends or "LSTM" in kind:
        return ""
    return activation_name(getattr(layer, "activation", None)).replace("_", "")


def _holder(call: Call) -> Any:
    """Return the layer that ends a call: of TimeDistributed, the one inside."""
    return call.layer.layer if call.kind == "TimeDistributed" else call.layer


def _entering(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], apply: Apply
) -> Any:
    """Return what enters the function of a call that squashes."""
    if call.kind.startswith("op:") or call.kind in ("Softmax", "Activation"):
        given = (*args, *kwargs.values())
        return next(value for value in given if hasattr(value, "shape"))
    with _without_activation(_holder(call)):
        return apply(call, args, kwargs)


@contextlib.contextmanager
def _without_activation(layer: Any) -> Iterator[None]:
    held = layer.activation
    layer.activation = _unchanged
    try:
        yield
    finally:
        layer.activation = held


def _unchanged(tensor: Any) -> Any:
    return tensor
