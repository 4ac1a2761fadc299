"""What lies behind a layer, as far as a change of its output can be followed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call, Graph, Tensor, activation_name, read_weights
from tf_spline_prune.graph import channel_axis, norm_axis
from tf_spline_prune.graph._unit_path import batchnorm_factor, is_linear
from tf_spline_prune.graph.rules._elementwise import is_known
from tf_spline_prune.pruning.recovery._linear_views import LinearView

# What is not there at inference.
IDENTITIES = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise")


@dataclass(frozen=True, eq=False)
class OutputTail:
    """Where the intercept of a product goes, what is added to it, and what it meets.

    Attributes:
        intercept: A layer, the name of its weight, which row of it, and the sign with
            which an intercept enters; `None` where there is no room for one.
        addend: The tensor that the output is added to, behind normalisations;
            `None` where it is used in another way.
        unscaled: Array of shape `(outputs,)`: what a change behind the
            normalisations is before them; 0 where nothing gets through.
        offset: Array of shape `(outputs,)`: what is added to the product before the
            activation, in units of the product.
        meets_relu: Whether the output runs into a ReLU, and into nothing else.
        end: The tensor up to which the output was followed.
    """

    intercept: tuple[Any, str, int | None, int] | None
    addend: Tensor | None
    unscaled: np.ndarray
    offset: np.ndarray
    meets_relu: bool
    end: Tensor

    def shift(self, by: np.ndarray) -> None:
        """Add an intercept to the output.

        Args:
            by: Array of shape `(outputs,)`.
        """
        if self.intercept is None:
            return
        layer, name, row, sign = self.intercept
        weights = dict(read_weights(layer))
        array = weights[name].copy()
        part = array if row is None else array[row]
        part += sign * by.reshape(part.shape).astype(part.dtype)
        weights[name] = array
        layer.set_weights(list(weights.values()))


def output_tail(graph: Graph, call: Call, view: LinearView, size: int) -> OutputTail:
    """Follow the output of a product through normalisations and a sum to a ReLU.

    Args:
        graph: The model.
        call: A call of the layer, the only one if it is to be followed.
        view: The product.
        size: How many outputs it has at each position.

    Returns:
        The tail.
    """
    weights = read_weights(call.layer)
    intercept = None
    scale, shift = np.ones(size), np.zeros(size)
    if view.bias is not None and view.bias[0] in weights:
        name, row = view.bias
        intercept = (call.layer, name, row, 1)
        shift = weights[name][... if row is None else row].reshape(-1)
    addend, meets, scaled = None, False, False
    alone = len(graph.uses[call.path]) == 1
    shape, tensor = call.output_shapes[0], call.outputs[0]
    if alone and view.whole and not is_linear(call):
        meets = _is_plain_relu(call.layer.activation)
    for behind in graph.chain(tensor) if alone and view.ends else ():
        if behind.kind == "BatchNormalization":
            channels = channel_axis(call, len(shape))
            if norm_axis(behind, len(shape)) != channels or shape[channels] != size:
                break
            if addend is not None:  # what it holds is of the other branch as well
                break
            norm = read_weights(behind.layer)
            factor = batchnorm_factor(behind.layer, norm)
            shift = (shift - norm["moving_mean"]) * factor + norm.get("beta", 0.0)
            scale = scale * factor
            if intercept is None and not scaled and len(graph.uses[behind.path]) == 1:
                intercept = (behind.layer, "moving_mean", None, -1)
            scaled = True  # a later mean is in other units
        elif behind.kind in ("Add", "op:add") and addend is None:
            others = [other for other in behind.inputs if other != tensor]
            whole = all(one == shape for one in behind.input_shapes)
            if len(others) != 1 or len(behind.inputs) != 2 or not whole:
                break
            addend = others[0]
        elif is_relu(behind):
            meets = True
            break
        elif behind.kind not in IDENTITIES:
            break
        tensor = behind.outputs[0]
    # A bias that has no place in the product would move the knots.
    hidden = view.bias is None and any(name.endswith("bias") for name in weights)
    meets = meets and not hidden
    unscaled = np.where(scale, 1 / np.where(scale, scale, 1), 0)
    return OutputTail(intercept, addend, unscaled, shift * unscaled, meets, tensor)


def is_relu(call: Call) -> bool:
    """Return whether a call does nothing but what a plain ReLU does."""
    if call.kind == "Activation":
        return _is_plain_relu(call.layer.activation)
    if call.kind not in ("ReLU", "op:relu"):
        return False
    more = ("negative_slope", "threshold")
    bent = any(getattr(call.layer, name, None) for name in more)
    return not bent and getattr(call.layer, "max_value", None) is None


def _is_plain_relu(function: Any) -> bool:
    return is_known(function) and activation_name(function) == "relu"
