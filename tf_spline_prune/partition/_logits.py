"""`Logits`: a network up to the rising function that ends it."""

from collections.abc import Collection, Sequence
from typing import Any

import keras

from tf_spline_prune.compat import Call, Graph, activation_name, call_layer, call_tapped
from tf_spline_prune.partition.codes._knots import tensor_of

# Functions that keep the order of a model's outputs; what goes in is read instead.
_FUNCTIONS = {
    "softmax": keras.ops.softmax,
    "logsoftmax": keras.ops.log_softmax,
    "sigmoid": keras.ops.sigmoid,
    "logsigmoid": keras.ops.log_sigmoid,
    "tanh": keras.ops.tanh,
}
RISING = tuple(_FUNCTIONS)


class Logits:
    """Runs a model and gives what goes into a last softmax, sigmoid or tanh.

    An output that ends otherwise is given as it is.

    Args:
        graph: The calls of the model.
        without: Names of calls with an activation that is left out too.

    Attributes:
        graph: The same.
        ends: For the name of each last call that is left out, its function.
    """

    def __init__(self, graph: Graph, without: Collection[str] = ()) -> None:
        self.graph = graph
        self._without = without
        last = graph.ends()
        self.ends = {
            call.name: name
            for call in graph.calls
            if call.name in last and (name := function_name(call)) in RISING
        }

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model.

        Args:
            inputs: One tensor per input.

        Returns:
            One tensor per output.
        """
        return list(self.graph.run(list(inputs), self.apply))

    def apply(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call, without the function that is left out; fits `Graph.run`."""
        if call.name not in self.ends and call.name not in self._without:
            return call_layer(call, args, kwargs)
        if call.kind != "Activation" and hasattr(call.layer, "activation"):
            return call_tapped(call, args, kwargs)[1]
        return tensor_of(args, kwargs)

    def finish(self, output: Any) -> Any:
        """Apply to the only output the function that was left out, if one was."""
        for name in self.ends.values():
            output = _FUNCTIONS[name](output)
        return output


def function_name(call: Call) -> str:
    """Return a function's name, without underscores: of a call's layer, or its own.

    Args:
        call: A call of a traced model.

    Returns:
        Such as `"relu"` or `"softmax"`.
    """
    if call.kind.startswith("op:"):
        return call.kind[3:].replace("_", "")
    function = getattr(call.layer, "activation", None)
    name = activation_name(function) if callable(function) else call.kind.lower()
    return name.replace("_", "")
