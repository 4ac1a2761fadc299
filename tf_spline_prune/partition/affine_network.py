"""`AffineNetwork`: a network whose pieces are affine, in float64."""

from typing import Any

from tf_spline_prune.compat import (
    CurrentWeights,
    Graph,
    check_finite,
    trace,
    with_dtype,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition.knots import Knots, is_unread, knots_of
from tf_spline_prune.partition.logits import RISING, Logits, function_name


class AffineNetwork:
    """A copy of a network in float64, of which every activation is piecewise-linear.

    Softmax, sigmoid and tanh may end it; what goes into them is its output.

    Args:
        model: A built model with one input and one output.

    Attributes:
        model: The copy.
        graph: Its calls.
        knots: The knots of each layer that has some, in the order of computation.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be traced, has several inputs or outputs, weights
            that are not finite, or an activation that is not piecewise-linear.
    """

    def __init__(self, model: Any) -> None:
        require_one_map(model)
        self.model = with_dtype(model, "float64")
        self.graph = trace(self.model)
        self._logits = Logits(self.graph)
        self.knots = _folding(self._logits)

    def run(self, x: Any, seen: list[Any] | None = None) -> Any:
        """Run the network.

        Args:
            x: A tensor of shape `(n, *input shape)`, float64.
            seen: A list to which all tensors on the way are appended.

        Returns:
            The tensor of the output.
        """
        return self._logits([x], seen)[0]


def require_one_map(model: Any) -> Graph:
    """Trace a model, and make sure that it maps one tensor of numbers to one.

    Args:
        model: A built model.

    Returns:
        Its graph.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, has several inputs or
            outputs, an input of integers, or weights that are not finite.
    """
    graph = trace(model)
    if len(graph.inputs) != 1 or len(graph.output_ids) != 1:
        raise ModelError(
            "This needs a model with one input and one output. Make one of the part "
            f"that is meant. Received: model {model.name!r} with {len(graph.inputs)} "
            f"inputs and {len(graph.output_ids)} outputs"
        )
    if not graph.inputs[0].dtype.startswith(("float", "bf")):
        raise ModelError(
            "This needs an input of real numbers. Make a model of the part after the "
            f"embedding. Received: model {model.name!r} whose input is of dtype "
            f"{graph.inputs[0].dtype}"
        )
    for path, weights in CurrentWeights(graph).items():
        check_finite(path, weights)
    return graph


def _folding(logits: Logits) -> dict[str, Knots]:
    """Find the calls with knots, and refuse what is not piecewise-linear."""
    found: dict[str, Knots] = {}
    refused = []
    for call in logits.graph.leaves():
        knots, name = knots_of(call), function_name(call)
        if knots and not knots.smooth:
            found[call.name] = knots
        elif call.name in logits.ends:
            continue
        elif knots or name in RISING or is_unread(call):
            refused.append(f"{call.name} ({name or call.kind})")
    if refused:
        raise ModelError(
            "This is exact only where every activation is piecewise-linear, such as "
            "ReLU, LeakyReLU, ReLU6, abs, hard_sigmoid or max-pooling; softmax, "
            "sigmoid and tanh may end the model. Received: model "
            f"{logits.graph.model.name!r} with {', '.join(refused)}"
        )
    return found
