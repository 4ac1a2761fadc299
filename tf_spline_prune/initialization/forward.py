"""The signal on its way through a model: what each layer sums up."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Graph,
    call_layer,
    call_tapped,
    run_eagerly,
    to_numpy,
)
from tf_spline_prune.initialization.kernels import Kernel, kernel_of

Visit = Callable[[Kernel, np.ndarray], bool]


def walk(graph: Graph, inputs: list[np.ndarray], visit: Visit) -> None:
    """Run a model, and look at what goes into the activation of each layer.

    Args:
        graph: What `trace` gave.
        inputs: One array an input, all at once.
        visit: Called as `visit(kernel, sums)` for each use of a dense or convolution
            layer, with its pre-activations, units last. Where it returns true, it has
            changed the layer, which runs again.
    """

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = kernel_of(call)
        if kernel is None:
            return call_layer(call, args, kwargs)
        output, sums = run_tapped(call, args, kwargs)
        return call_layer(call, args, kwargs) if visit(kernel, sums) else output

    run_eagerly(graph, inputs, apply)


def run_tapped(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, np.ndarray]:
    """Run a dense or convolution layer.

    Args:
        call: Its call.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The output, and the pre-activations as an array, units last.
    """
    output, sums = call_tapped(call, args, kwargs)
    return output, units_last(call, sums)


def units_last(call: Call, tensor: Any) -> np.ndarray:
    """Bring a tensor that a layer gave to the host, its units last."""
    array = to_numpy(tensor)
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return np.moveaxis(array, 1, -1) if first else array


def mean_squares(graph: Graph, inputs: list[np.ndarray]) -> dict[str, float]:
    """Measure the mean square of the pre-activations of each layer.

    Args:
        graph: What `trace` gave.
        inputs: One array an input.

    Returns:
        The mean squares by path, in the order of computation; of a layer that is used
        again, that of its first use.
    """
    found: dict[str, float] = {}

    def visit(kernel: Kernel, sums: np.ndarray) -> bool:
        found.setdefault(kernel.path, float(np.mean(np.square(sums, dtype="float64"))))
        return False

    walk(graph, inputs, visit)
    return found
