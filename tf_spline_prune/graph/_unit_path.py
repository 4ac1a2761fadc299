"""The way of a unit from the layer that produces it to those that consume it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call, Graph, Tensor, activation_name
from tf_spline_prune.graph._facts import Group, channel_axis, norm_axis
from tf_spline_prune.graph.rules._elementwise import is_homogeneous_activation
from tf_spline_prune.graph.rules._registry import rule_of

# Layers that apply one affine map a unit, and then an activation.
_PLAIN = ("Conv", "Dense", "Depthwise", "Separable")


@dataclass(frozen=True)
class UnitPath:
    """What lies between the producer of a group's units and their consumers.

    Attributes:
        norms: For each layer that produces units (by path), the paths of the
            BatchNormalizations that follow it at once, before any other use.
        activation: For each such layer, the name of the call at which its units
            meet their first activation, where there is just one such call.
        mergeable: Whether a unit that is a positive multiple of another can be folded
            into the consumers' weights without loss: a single layer produces the units,
            and all that follows is positively homogeneous.
    """

    norms: dict[str, tuple[str, ...]]
    activation: dict[str, str | None]
    mergeable: bool


def follow(group: Group, graph: Graph, holds: Callable[[Tensor], bool]) -> UnitPath:
    """Follow the units of a group through a graph.

    Args:
        group: A group of the channel graph.
        graph: The calls.
        holds: Whether a tensor holds some of the units.

    Returns:
        The path.
    """
    kernels = {m.path for m in group.members if m.name.endswith("kernel")}
    consumers = {m.path for m in group.consumers}
    producers = {m.path for m in group.producers}
    norms: dict[str, tuple[str, ...]] = {}
    activation: dict[str, str | None] = {}
    # A separable layer filters its input's units one by one before it consumes them.
    filtering = {m.path for m in group.members if m.name == "depthwise_kernel"}
    mergeable = len(group.producers) == 1 and filtering.isdisjoint(consumers)
    made = False
    for call in graph.calls:
        path = call.path
        if path not in kernels or (path in consumers and path not in producers):
            continue
        if path in norms:  # a shared layer: its uses may go different ways
            mergeable = False
            continue
        if not call.kind.startswith(_PLAIN):
            norms[path], activation[path], mergeable = (), None, False
            continue
        behind = norms_behind(graph, call)
        tail = (behind or [call])[-1].outputs[0]
        norms[path] = tuple(norm.path for norm in behind)
        activation[path] = _activation(graph, call, tail)
        if path in producers:
            made = True
            mergeable = (
                mergeable
                and (is_linear(call) or not behind)
                and is_homogeneous_activation(call)
                and _hands_scales_on(graph, tail, consumers, holds)
            )
    return UnitPath(norms, activation, mergeable and made)


def is_linear(call: Call) -> bool:
    """Return whether a call's layer has no activation of its own."""
    return has_no_activation(call.layer)


def has_no_activation(layer: Any) -> bool:
    """Return whether a layer has no activation of its own."""
    activation = getattr(layer, "activation", None)
    return activation is None or activation_name(activation) == "linear"


def norms_behind(graph: Graph, call: Call) -> list[Call]:
    """List the BatchNormalizations that a linear layer's output runs into at once."""
    found: list[Call] = []
    rank = len(call.output_shapes[0])
    for norm in graph.chain(call.outputs[0]) if is_linear(call) else ():
        if norm.kind != "BatchNormalization":
            break
        if norm_axis(norm, rank) != channel_axis(call, rank):
            break
        found.append(norm)
    return found


def batchnorm_factor(layer: Any, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what a BatchNormalization multiplies each channel by.

    Args:
        layer: The layer.
        weights: Its weights by name, or those of some of its channels.

    Returns:
        Array of the shape of the weights.
    """
    deviation = np.sqrt(weights["moving_variance"] + layer.epsilon)
    return np.asarray(weights.get("gamma", 1.0) / deviation)


def _activation(graph: Graph, call: Call, tail: Tensor) -> str | None:
    if not is_linear(call):
        return call.name
    consumers = graph.consumers_of[tail]
    return consumers[0].name if len(consumers) == 1 else None


def _hands_scales_on(
    graph: Graph,
    tensor: Tensor,
    consumers: set[str],
    holds: Callable[[Tensor], bool],
) -> bool:
    """Return whether a scale of a unit reaches every consumer unchanged."""
    for call in graph.consumers_of[tensor]:
        if call.path in consumers:
            continue
        rule = rule_of(call)
        if rule is None or not rule.homogeneous(call):
            return False
        made = filter(holds, call.outputs)  # of its parts some may hold other units
        if not all(_hands_scales_on(graph, out, consumers, holds) for out in made):
            return False
    return True
