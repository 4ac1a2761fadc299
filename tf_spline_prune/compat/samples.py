"""Random inputs: numbers, images, ids and words that a model may be given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.call_graph import Call, Graph, fixed_size
from tf_spline_prune.compat.kinds import HANDS_ON

OPEN_SIZE = 32  # an open size may be anything; 32 passes through most networks

# A longer axis of a picture is one along which it is smooth.
_SMOOTH = 8
# Layers and operations that hand numbers on: some, several times, or with others.
_HANDED_ON = HANDS_ON | frozenset(
    "RepeatVector Concatenate Cropping1D Cropping2D ZeroPadding1D ZeroPadding2D "
    "Masking Resizing op:getitem op:concatenate op:split op:stack op:stopgradient "
    "op:copy op:flip op:concat".split()
)


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a model takes the numbers of an input for.

    Attributes:
        ids: They are whole numbers from 0 to below this one; `None`: no ids.
        low: The lowest plausible number, of which `high` is the highest; `None` where
            nothing is known of them.
        high: See `low`.
        mean: Array that broadcasts to an input: what a normalisation subtracts.
        std: The same: what it divides by.
    """

    ids: int | None = None
    low: float | None = None
    high: float = 1.0
    mean: Any = None
    std: Any = None


def sample_inputs(
    graph: Graph, count: int, seed: int, scale: float = 1.0
) -> list[np.ndarray]:
    """Draw inputs that a model may be given, by what it does with them.

    What goes into an Embedding or its like are ids over the whole vocabulary, be the
    input of integers or of floats. Images are smooth, in the range that a Rescaling
    or Normalization behind the input expects. All else is drawn as `random_inputs`
    does.

    Args:
        graph: The model, traced.
        count: How many; a model that fixes the size of its batches gets the next
            multiple of it.
        seed: Seed of the numbers.
        scale: Numbers whose range is not known are so many times as large.

    Returns:
        One array an input, in the order of the model's inputs.
    """
    size = fixed_size(graph.inputs) or 1
    rng = np.random.default_rng(seed)
    drawn = []
    for entry, meaning in zip(graph.inputs, input_meanings(graph), strict=True):
        shape = (-(-count // size) * size, *_sizes(entry.shape[1:]))
        drawn.append(_drawn(rng, shape, entry.dtype, meaning, scale))
    return drawn


def random_inputs(
    specs: Mapping[str, tuple[Sequence[int | None], str]], batch: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw one array an input where only its shape and dtype are known.

    Floats are between 0 and 1: whatever reads them takes them for small numbers, dark
    images or the id 0. Integers are zeros and ones.

    Args:
        specs: Shape (batch axis first; `None` or -1 where a size is open) and
            dtype by input name.
        batch: Size of an open batch axis; other open sizes become 32.
        seed: Seed of the numbers.

    Returns:
        The arrays by input name.
    """
    rng = np.random.default_rng(seed)
    unit = Meaning(low=0.0)
    drawn = {}
    for name, (shape, dtype) in specs.items():
        first = shape[:1] if shape and (shape[0] or -1) > 0 else [batch][: len(shape)]
        sizes = (*map(int, first), *_sizes(shape[1:]))  # type: ignore[arg-type]
        drawn[name] = _drawn(rng, sizes, dtype, unit if _real(dtype) else Meaning())
    return drawn


def _sizes(shape: Sequence[int | None]) -> list[int]:
    return [OPEN_SIZE if size is None or size < 0 else size for size in shape]


def _real(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _drawn(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: str,
    meaning: Meaning,
    scale: float = 1.0,
) -> np.ndarray:
    if dtype == "string":
        letters = rng.integers(ord("a"), ord("z") + 1, (*shape, 3, 4))
        words = np.apply_along_axis("".join, -1, np.vectorize(chr)(letters))
        return np.apply_along_axis(" ".join, -1, words.astype(object))
    if meaning.ids is not None:
        return rng.integers(0, max(1, meaning.ids), shape).astype(dtype)
    if meaning.low is None and meaning.mean is None and not _real(dtype):
        return rng.integers(0, 2, shape).astype(dtype)
    values = _picture(rng, shape) if len(shape) > 3 else rng.standard_normal(shape)
    if meaning.mean is not None:
        values = meaning.mean + values * meaning.std
    elif meaning.low is not None:  # two standard deviations lie within the range
        share = np.clip(0.5 + values / 4, 0.0, 1.0)
        values = meaning.low + share * (meaning.high - meaning.low)
        values = values if _real(dtype) else np.floor(values)
    else:
        values = values * scale
    return values.astype(dtype)


def _picture(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw smooth normal numbers: neighbours are alike, with some noise on each."""
    long = [axis for axis, size in enumerate(shape) if axis and size > _SMOOTH]
    coarse = [5 if axis in long else size for axis, size in enumerate(shape)]
    values = rng.standard_normal(coarse)
    for axis in long:
        at = np.linspace(0.0, 4.0, shape[axis])
        left = np.minimum(at.astype(int), 3)
        weight = (at - left).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
        low, high = np.take(values, left, axis), np.take(values, left + 1, axis)
        values = (1 - weight) * low + weight * high
    return np.asarray(values + 0.3 * rng.standard_normal(shape))


def input_meanings(graph: Graph) -> list[Meaning]:
    """Find what a model takes its inputs for, from what reads them first.

    Args:
        graph: The model, traced.

    Returns:
        One meaning an input, in their order.
    """
    found = [Meaning() for _ in graph.inputs]

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = keras.tree.flatten((args, kwargs))
        marks = [mark for mark in given if isinstance(mark, _Inputs)]
        everyone = _Inputs(set().union(*marks))
        meaning = _reads(call)
        for place in everyone if meaning else ():
            found[place] = _closer(found[place], meaning)
        if call.kind not in _HANDED_ON:
            everyone = _Inputs()
        return [everyone] * len(call.outputs) if len(call.outputs) > 1 else everyone

    graph.run([_Inputs({place}) for place in range(len(graph.inputs))], apply)
    return found


class _Inputs(frozenset[int]):
    """The inputs, by number, whose numbers a tensor holds."""


def _closer(one: Meaning, other: Any) -> Meaning:
    """Choose between what two readers say; of two vocabularies, the smaller."""
    if one.ids is not None and other.ids is not None:
        return min(one, other, key=lambda meaning: meaning.ids)
    known = one.ids is not None or one.low is not None or one.mean is not None
    return one if known and other.ids is None else other


def _reads(call: Call) -> Meaning | None:
    """Say what a call takes its input for, if it says that at all."""
    layer = call.layer
    bases = {base.__name__ for base in type(layer).__mro__}
    if "Embedding" in bases:
        return Meaning(ids=int(layer.input_dim))
    if call.kind == "CategoryEncoding":
        return Meaning(ids=int(layer.num_tokens))
    if call.kind == "IntegerLookup":
        return Meaning(ids=int(layer.vocabulary_size()))
    if call.kind in ("op:onehot", "op:multihot"):
        count = getattr(layer, "num_classes", None)
        return None if count is None else Meaning(ids=int(count))
    if call.kind == "Rescaling":
        scale, offset = np.mean(layer.scale), np.mean(layer.offset)
        high = float((1 - offset) / scale) if scale > 0 else 0.0
        return Meaning(low=0.0, high=high) if high > 0 else None
    if call.kind == "Normalization" and not getattr(layer, "invert", False):
        mean, variance = map(keras.ops.convert_to_numpy, (layer.mean, layer.variance))
        return Meaning(mean=mean, std=np.sqrt(variance))
    return None
