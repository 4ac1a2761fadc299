"""Where a model's outputs are made, and what enters the last softmax or sigmoid."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tf_spline_prune.compat._flavour import HANDS_ON, activation_name
from tf_spline_prune.compat.graph._blueprint import Apply
from tf_spline_prune.compat.graph._graph import Call, Graph, Tensor, Values, run_calls
from tf_spline_prune.compat.run._execution import call_layer

# Functions that squeeze all numbers into a range, and so hide what differs; the last
# ones leave decisions or whole numbers.
_SQUASHING = frozenset(
    "softmax sigmoid logsoftmax logsigmoid tanh softsign hardsigmoid hardtanh "
    "argmax argmin sign round floor ceil greater greaterequal less lessequal".split()
)


def run_to_ends(
    graph: Graph, inputs: list[Any], apply: Apply = call_layer
) -> tuple[list[Any], list[Any]]:
    """Run a model in inference mode.

    Args:
        graph: The model.
        inputs: One tensor per input.
        apply: What to do at each call, as in `Graph.run`.

    Returns:
        The outputs, and for each what enters the softmax, sigmoid, tanh or argmax
        that it comes out of, or the cast; of another output, itself.
    """
    values: Values = dict(zip(graph.input_tensors, inputs, strict=True))
    ends = Ends(graph)
    for call in graph.calls:
        ends.run(call, values, apply)
    return [values[tensor] for tensor in graph.output_tensors], ends.of(values)


class Ends:
    """What enters the softmax, sigmoid, tanh or argmax that each output comes out of.

    Args:
        graph: The model.
    """

    def __init__(self, graph: Graph) -> None:
        squashes = [_squash_of(graph, tensor) for tensor in graph.output_tensors]
        # It stands among the tensors, under a name that none of them has.
        self._places = [
            tensor if end is None else Tensor(f"{end.key} takes in")
            for tensor, end in zip(graph.output_tensors, squashes, strict=True)
        ]
        self._squashes = {end.key for end in squashes if end is not None}

    def run(self, call: Call, values: Values, apply: Apply = call_layer) -> None:
        """Run a call, and keep among the values what enters if it squashes.

        Args:
            call: The call.
            values: The values by tensor; what the call gives is added.
            apply: What to do at a call, as in `Graph.run`.
        """
        if call.key in self._squashes:
            entering = _entering(call, *call.fill(values), apply)
            values[Tensor(f"{call.key} takes in")] = entering
        run_calls([call], values, apply)

    def of(self, values: Values) -> list[Any]:
        """Return for each output what was kept, or the output, once all calls ran."""
        return [values[place] for place in self._places]


def _squash_of(graph: Graph, output: Tensor) -> Call | None:
    """Find the call whose squashing function an output comes out of, if any."""
    cast: Call | None = None  # to whole numbers, perhaps
    call = graph.producer_of.get(output)
    while call is not None:
        if _squashes(call):
            return call
        linear = call.kind == "Activation" and _function(call) == "linear"
        if len(call.needs()) != 1 or not (linear or call.kind in HANDS_ON):
            break
        if call.kind == "op:cast" and cast is None:
            cast = call
        call = graph.producer_of.get(call.needs()[0])
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
