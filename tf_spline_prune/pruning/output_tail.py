"""`OutputTail`: what lies behind a linear layer, as far as it is affine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Program,
    ProgramStep,
    Slot,
    activation_name,
    read_weights,
)
from tf_spline_prune.graph import channel_axis, norm_axis

_IDENTITIES = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise")


@dataclass(frozen=True, eq=False)
class OutputTail:
    """Where a layer's intercept goes, and what its output is added to.

    Attributes:
        intercept: A layer, the name of its weight, and the sign with which an
            intercept enters; `None` where there is no room for one.
        addend: The tensor that the output is added to, behind normalisations;
            `None` where it is used in another way.
        unscaled: Array of shape `(outputs,)`: what a change behind the
            normalisations is before them; 0 where nothing gets through.
    """

    intercept: tuple[Any, str, int] | None
    addend: Slot | None
    unscaled: np.ndarray

    def shift(self, by: np.ndarray) -> None:
        """Add an intercept to the output.

        Args:
            by: Array of shape `(outputs,)`.
        """
        if self.intercept is None:
            return
        layer, name, sign = self.intercept
        weights = dict(read_weights(layer))
        shape = weights[name].shape
        weights[name] = weights[name] + sign * by.reshape(shape)
        layer.set_weights(list(weights.values()))


def output_tail(step: ProgramStep, program: Program, alone: bool) -> OutputTail:
    """Follow a layer's output through normalisations to a sum.

    Args:
        step: The step of the layer.
        program: The program that it is a step of.
        alone: Whether the layer is used only there; else it is not followed.

    Returns:
        The tail.
    """
    layer = step.call.layer
    size = step.call.output_shapes[0]
    channels = channel_axis(step.call, len(size))
    intercept = (layer, "bias", 1) if "bias" in read_weights(layer) else None
    unscaled = np.ones(size[channels] or 1)
    activation = getattr(layer, "activation", None)
    if not alone or (activation and activation_name(activation) != "linear"):
        return OutputTail(intercept, None, unscaled)
    slot = step.outputs[0]
    for user in _chain(slot, program):
        call = user.call
        if call.kind == "BatchNormalization":
            if norm_axis(call, len(size)) != channels:
                break
            weights = read_weights(call.layer)
            scale = weights.get("gamma", 1.0) / np.sqrt(
                weights["moving_variance"] + call.layer.epsilon
            )
            unscaled = unscaled * np.where(scale, 1 / np.where(scale, scale, 1), 0)
            uses = [one for one in program.steps.values() if one.call.path == call.path]
            if intercept is None and len(uses) == 1:
                intercept = (call.layer, "moving_mean", -1)
        elif call.kind in ("Add", "op:add"):
            others = [other for other in user.inputs if other != slot]
            whole = all(shape == size for shape in call.input_shapes)
            if len(others) == 1 and len(user.inputs) == 2 and whole:
                return OutputTail(intercept, others[0], unscaled)
            break
        elif call.kind not in _IDENTITIES:
            break
        slot = user.outputs[0]
    return OutputTail(intercept, None, unscaled)


def _chain(slot: Slot, program: Program) -> Iterator[ProgramStep]:
    """Yield the users of a tensor, one after the other, while there is just one."""
    users: dict[Slot, list[ProgramStep]] = {}
    for step in program.steps.values():
        for given in dict.fromkeys(step.inputs):
            users.setdefault(given, []).append(step)
    while len(users.get(slot, ())) == 1 and slot not in program.outputs:
        (user,) = users[slot]
        yield user
        if len(user.outputs) != 1:
            return
        slot = user.outputs[0]
