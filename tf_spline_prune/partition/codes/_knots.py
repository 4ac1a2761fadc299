"""Where the activations of a network change slope.

A call of the graph has knots at fixed values of a tensor (ReLU: 0; ReLU6: 0 and
6), at the ties of a pooling window, or none. This file is the table; how the
tensors are had is the business of `PartitionCoder`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import keras

from tf_spline_prune.compat import Call, activation_name

Source = Literal["input", "activation", "pool"]

# Knots by the name that Keras serialises an activation under.
_POSITIONS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "relu6": (0.0, 6.0),
    "leaky_relu": (0.0,),
    "abs": (0.0,),
    "absolute": (0.0,),
    "hard_sigmoid": (-3.0, 3.0),
    "hard_sigmoid_2.5": (-2.5, 2.5),
    "hard_tanh": (-1.0, 1.0),
    "hard_shrink": (-0.5, 0.5),
    "soft_shrink": (-0.5, 0.5),
    "sparse_sigmoid": (-1.0, 1.0),
}
_SMOOTH = frozenset(
    "celu elu exponential gelu hard_silu hard_swish log_sigmoid mish selu sigmoid silu "
    "softplus softsign squareplus swish tanh tanh_shrink sparse_plus".split()
)
_BY_OPERATION = {name.replace("_", ""): name for name in (*_POSITIONS, *_SMOOTH)}
_LAYERS = ("ReLU", "LeakyReLU", "PReLU", "ELU")
_POOLS = tuple(
    f"{kind}MaxPooling{rank}D" for kind in ("", "Global") for rank in (1, 2, 3)
)
# Operations with knots at their other operands, where those are numbers.
_BOUNDS = ("op:maximum", "op:minimum", "op:clip", "op:clipbyvalue")
_KNOTLESS = ("linear", "softmax", "log_softmax", "sparsemax", "Softmax")


@dataclass(frozen=True)
class Knots:
    """The knots of one call.

    Attributes:
        source: Whether they lie on the call's input, on the input of the
            activation inside its layer, or at the ties of a pooling window.
        positions: The values at which the slope changes; empty for a pool.
        smooth: Whether the activation has no knot and the sign stands in.
    """

    source: Source
    positions: tuple[float, ...] = (0.0,)
    smooth: bool = False


def knots_of(call: Call) -> Knots | None:
    """Find the knots of a call.

    Args:
        call: A call of a traced model.

    Returns:
        The knots, or `None` where the call has none: linear layers, and softmax,
        which is no function of single units.
    """
    layer, kind = call.layer, call.kind
    if kind in _POOLS:
        return Knots("pool", ())
    if kind in _LAYERS:
        return _of_layer(layer, "input")
    if kind == "op:relu":
        return _of_relu_operation(layer)
    if kind in _BOUNDS:
        return _of_bounds(call)
    if kind.startswith("op:"):
        return _named(_BY_OPERATION.get(kind[3:], ""), "input")
    if kind == "Activation":
        return _of_function(layer.activation, "input")
    if callable(vars(layer).get("activation")):
        return _of_function(layer.activation, "activation")
    return None


def is_unread(call: Call) -> bool:
    """Return whether a call may have knots that this table does not know.

    Args:
        call: A call for which `knots_of` gave `None`.

    Returns:
        True for unknown activation functions, and for layers that hold layers
        with activations: recurrent ones, wrappers.
    """
    layers = [call.layer]
    if hasattr(call.layer, "_flatten_layers"):
        layers = list(call.layer._flatten_layers())
    functions = [getattr(layer, "activation", None) for layer in layers]
    return any(callable(f) and activation_name(f) not in _KNOTLESS for f in functions)


def tensor_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Find the tensor that a call with knots is given; numbers may stand before it."""
    given = keras.tree.flatten((args, kwargs))
    return next(value for value in given if hasattr(value, "shape"))


def _of_bounds(call: Call) -> Knots | None:
    args, kwargs = call.fill(dict.fromkeys(call.inputs))
    held = [getattr(call.layer, name, None) for name in ("x_min", "x_max")]
    others = [
        a for a in (*args, *kwargs.values(), *held) if isinstance(a, (int, float))
    ]
    return Knots("input", tuple(map(float, others))) if others else None


def _of_function(activation: Any, source: Source) -> Knots | None:
    # An activation may itself be a layer, as in Dense(..., activation=ReLU()).
    if type(activation).__name__ in _LAYERS:
        return _of_layer(activation, source)
    return _named(activation_name(activation), source)


def _of_layer(layer: Any, source: Source) -> Knots:
    config = layer.get_config()
    if type(layer).__name__ == "ELU":
        return Knots(source, smooth=True)
    top = config.get("max_value")
    bottom = float(config.get("threshold") or 0.0)
    return Knots(source, (bottom,) if top is None else (bottom, float(top)))


def _named(name: str, source: Source) -> Knots | None:
    if name in _POSITIONS:
        return Knots(source, _POSITIONS[name])
    if name in _SMOOTH:
        return Knots(source, smooth=True)
    return None


def _of_relu_operation(operation: Any) -> Knots:
    top = getattr(operation, "max_value", None)
    bottom = float(getattr(operation, "threshold", 0.0) or 0.0)
    return Knots("input", (bottom,) if top is None else (bottom, float(top)))


def asked_layers(layers: Iterable[str], known: Iterable[str]) -> list[str]:
    """List the layers that a user names.

    Args:
        layers: Names of layers, or one name.
        known: Names of the layers that have knots.

    Raises:
        ValueError: If one has no knots, or there are none.
    """
    asked = [layers] if isinstance(layers, str) else list(layers)
    known = tuple(known)
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise ValueError(
            f"`layers` must name layers that have knots: {known}. "
            f"Received: {unknown or asked}"
        )
    return asked
