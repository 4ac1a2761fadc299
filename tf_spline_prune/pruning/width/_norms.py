"""What a normalisation over a stream computes, in numbers."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import Call, call_layer, to_numpy

# What the scale and the offset of a normalisation of Keras are called.
_NAMES = {"LayerNormalization": ("gamma", "beta"), "RMSNormalization": ("scale", "")}
# How far what a layer gives may be from the formula, relative to the largest entry.
_TOLERANCE = 1e-4
_ROWS = 4


@dataclass(frozen=True, eq=False)
class Norm:
    """A normalisation: `(x - mean) / sqrt(mean square + epsilon) * gain + offset`.

    Attributes:
        call: Its call.
        centred: Whether the mean is subtracted, as in LayerNormalization.
        epsilon: What is added below the root.
        gain: Array of shape `(d,)`, float64.
        offset: Array of shape `(d,)`, float64.
        scale: Name of the weight that the gain is made of; `None` if there is none.
        shift: Name of the weight that is the offset; `None` if there is none.
        one: What of the scale is a gain of 1: 0 where the gain is `1 + scale`.
    """

    call: Call
    centred: bool
    epsilon: float
    gain: np.ndarray
    offset: np.ndarray
    scale: str | None
    shift: str | None
    one: float = 1.0

    def normalised(self, x: np.ndarray) -> np.ndarray:
        """Normalise the last axis, without gain and offset, in float64."""
        x = np.asarray(x, "float64")
        if self.centred:
            x = x - x.mean(axis=-1, keepdims=True)
        square = np.square(x).mean(axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(square + self.epsilon))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Compute what the layer gives, in float64."""
        return np.asarray(self.normalised(x) * self.gain + self.offset)


def read_norm(call: Call, arrays: Mapping[str, np.ndarray]) -> Norm | str:
    """Read a normalisation over the last axis of one input.

    A layer of a user's class is compared with the formula, on numbers.

    Args:
        call: The call.
        arrays: The weights of its layer, by name.

    Returns:
        What it computes, or why that is no such normalisation.
    """
    size = call.input_shapes[0][-1] or 0
    if call.kind in _NAMES:
        axis = call.layer.axis
        axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
        if axes not in ([-1], [len(call.input_shapes[0]) - 1]):
            return f"{call.path} normalises over further axes"
        if getattr(call.layer, "rms_scaling", False):
            return f"{call.path} subtracts no mean, and divides by the deviation"
        centred = call.kind == "LayerNormalization"
        names = [name if name in arrays else None for name in _NAMES[call.kind]]
        return _norm(call, centred, size, arrays, (*names, 1.0))
    if call.kind.startswith("custom:") and hasattr(call.layer, "epsilon"):
        for norm in _candidates(call, size, arrays):
            if _computes(call, norm):
                return norm
    return f"{call.path} ({call.kind}) normalises in a way of its own"


def _norm(
    call: Call,
    centred: bool,
    size: int,
    arrays: Mapping[str, np.ndarray],
    parts: tuple[Any, ...],
) -> Norm:
    scale, shift, one = parts
    gain, offset = np.ones(size), np.zeros(size)
    if scale:
        gain = np.asarray(arrays[scale], "float64") + (1.0 - one)
    if shift:
        offset = np.asarray(arrays[shift], "float64")
    epsilon = float(call.layer.epsilon)
    return Norm(call, centred, epsilon, gain, offset, scale, shift, one)


def _candidates(
    call: Call, size: int, arrays: Mapping[str, np.ndarray]
) -> Iterator[Norm]:
    """Yield what a layer may compute, by the shapes of its weights."""
    names = [name for name, array in arrays.items() if array.shape == (size,)]
    if len(names) != len(arrays) or len(names) > 2:
        return
    orders = itertools.permutations([*names, *[None] * (2 - len(names))], 2)
    for centred, (scale, shift), one in itertools.product(
        (False, True), dict.fromkeys(orders), (1.0, 0.0)
    ):
        yield _norm(call, centred, size, arrays, (scale, shift, one))


def _computes(call: Call, norm: Norm) -> bool:
    """Compare what a layer gives with the formula, also where epsilon counts."""
    rng = np.random.default_rng(0)
    shape = [_ROWS, *(size or _ROWS for size in call.input_shapes[0][1:])]
    for scale in (1.0, np.sqrt(norm.epsilon)):
        x = (rng.normal(size=shape) * scale + scale / 2).astype(call.input_dtypes[0])
        given = call.fill({call.inputs[0]: keras.ops.convert_to_tensor(x)})
        found = to_numpy(call_layer(call, *given)).astype("float64")
        expected = norm(x)
        if np.abs(found - expected).max() > _TOLERANCE * np.abs(expected).max():
            return False
    return True
