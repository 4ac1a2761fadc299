"""Whether data are such as a model expects: its own layers say what that is.

Three facts tell. A rescaling that the data enter maps a certain range to numbers near
one. A normalisation that the data enter, at once or behind a few plain layers, holds
the mean and the deviation of what it saw in training. A classifier that was trained
does better than chance on its labels. Nothing else is guessed at: a model that says
nothing of its inputs takes all.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import HANDS_ON
from tf_spline_prune.compat.fit._callback import optimizer_steps
from tf_spline_prune.compat.fit._compile import is_compiled
from tf_spline_prune.compat.graph._blueprint import Input
from tf_spline_prune.compat.graph._graph import Call, Graph
from tf_spline_prune.compat.run._execution import call_layer, predict, to_numpy
from tf_spline_prune.errors import DataRangeWarning, warn

# Data that are off by more than this are of another order of magnitude.
_TIMES = 10.0
# So many inputs, and so many numbers, are looked at.
_ROWS, _NUMBERS = 256, 2**20
# A statistic of fewer values says little.
_ENOUGH = 8
# Layers behind which data are still data: moved, cut, padded, cast.
_MOVES = HANDS_ON | {
    *("CenterCrop", "Cropping1D", "Cropping2D", "InputLayer", "Resizing"),
    *("ZeroPadding1D", "ZeroPadding2D", "op:getitem"),
    *("RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip"),
    *("RandomHeight", "RandomRotation", "RandomTranslation", "RandomWidth"),
    "RandomZoom",
}
# Operations of one tensor and a number, such as the division by 255.
_SCALES = {"op:truedivide", "op:truediv", "op:divide", "op:multiply", "op:add"}
_SCALES |= {"op:subtract", "op:realdiv"}
# Layers that may lie between the data and the first normalisation.
_PLAIN = {
    *("Activation", "AveragePooling1D", "AveragePooling2D", "Conv1D", "Conv2D"),
    *("Conv3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "ELU", "LeakyReLU"),
    *("MaxPooling1D", "MaxPooling2D", "ReLU", "SeparableConv1D", "SeparableConv2D"),
}
_NORMS = {"BatchNormalization", "Normalization"}
_ADVICE = (
    "What is decided and measured on such data says little about the model. Give "
    "inputs of the range that it was trained on"
)


class _Unknown:
    """Stands in the place of a tensor of which nothing need be known."""


def warn_of_misfit(graph: Graph, inputs: Sequence[np.ndarray], labels: Any) -> None:
    """Warn if data are not such as a model expects.

    Args:
        graph: The traced model.
        inputs: One array per input of the model.
        labels: Labels of classes, which the model should know by now; `None` if there
            are none, or it need not.
    """
    text = misfit(graph, inputs)
    if text is None and labels is not None and is_compiled(graph.model):
        if optimizer_steps(graph.model):  # an untrained model may guess
            some = _some(inputs)
            chosen = keras.tree.map_structure(lambda y: y[: len(some[0])], labels)
            text = guesses(predict(graph.model, some), chosen)
    if text is not None:
        warn(text, DataRangeWarning)


def misfit(graph: Graph, inputs: Sequence[np.ndarray]) -> str | None:
    """Describe how inputs differ in range from what the layers of a model expect.

    Args:
        graph: The traced model.
        inputs: One array per input of the model, of whatever dtype they were given.

    Returns:
        A message, or `None` if the data fit, or nothing is known.
    """
    some = _some(inputs)
    for x, entry in zip(some, graph.inputs, strict=True):
        if text := _cut(x, entry):
            return text
    if not any(
        call.kind in ("Rescaling", *_SCALES) or _statistics(call) is not None
        for call in graph.calls
    ):
        return None
    found: list[str] = []
    # By identity of a tensor: whether it still holds data, as they came.
    known: dict[int, bool] = {}
    alive: list[Any] = []

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nothing: Any = [_Unknown() for _ in call.outputs]
        nothing = nothing[0] if len(nothing) == 1 else nothing
        tensors = [t for t in keras.tree.flatten((args, kwargs)) if id(t) in known]
        if found or len(tensors) != 1 or len(call.needs()) != 1:
            return nothing
        (tensor,) = tensors
        raw = known[id(tensor)]
        scales = raw and call.kind in ("Rescaling", *_SCALES)
        if call.kind in _NORMS:
            if (statistics := _statistics(call)) is not None:
                found.extend(_beside(call, to_numpy(tensor), *statistics))
                return nothing
        elif not (scales or call.kind in _PLAIN or (raw and call.kind in _MOVES)):
            return nothing
        result = call_layer(call, args, kwargs)
        if scales:
            found.extend(_rescaled(call, to_numpy(tensor), to_numpy(result)))
        known[id(result)] = scales or (raw and call.kind in _MOVES)
        alive.append(result)
        return result

    tensors = [
        x
        if entry.dtype == "string"
        else keras.ops.convert_to_tensor(x.astype(entry.dtype))
        for x, entry in zip(some, graph.inputs, strict=True)
    ]
    known |= {id(tensor): True for tensor in tensors if keras.ops.is_tensor(tensor)}
    graph.run(tensors, apply)
    return found[0] if found else None


def guesses(outputs: Sequence[np.ndarray], labels: Any) -> str | None:
    """Return a warning if a classifier does no better than chance.

    The mean of the classes' recalls is taken, which is 1 / classes for whoever always
    gives one answer, however many inputs have it.

    Args:
        outputs: The outputs of the model; one of shape `(n, classes)` is judged.
        labels: Class numbers, or rows of zeros and a one.

    Returns:
        A message, or `None` if it does better, or it is no such classifier.
    """
    labels = np.asarray(labels) if hasattr(labels, "__array__") else None
    if len(outputs) != 1 or outputs[0].ndim != 2 or labels is None:
        return None
    scores = outputs[0]
    if labels.shape == scores.shape and scores.shape[1] > 1:
        labels = labels.argmax(-1)
    labels = labels.reshape(-1)
    classes, counts = np.unique(labels, return_counts=True)
    sized = scores.shape[1] > 1 and len(labels) == len(scores)
    if not sized or len(classes) < 2 or len(labels) < 32 or classes.dtype.kind == "f":
        return None
    if classes[0] < 0 or classes[-1] >= scores.shape[1]:
        return None
    right = scores.argmax(-1) == labels
    recall = float(np.mean([right[labels == one].mean() for one in classes]))
    chance = 1 / len(classes)
    noise = math.sqrt((chance * (1 - chance) / counts).sum()) / len(classes)
    if recall > chance + 2 * noise:
        return None
    return (
        f"The model is no better than chance: averaged over {len(classes)} classes it "
        f"is right on {recall:.1%} of the inputs, and guessing on {chance:.1%}. Either "
        "it has not learnt these labels yet, or the data are not like those it was "
        f"trained on, or the labels are numbered differently. {_ADVICE}. Received: "
        f"{len(labels)} labelled inputs."
    )


def _some(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Take a few inputs; the first ones, for their order means nothing here."""
    size = max(1, sum(x[:1].size for x in inputs))
    rows = min(_ROWS, max(2, _NUMBERS // size))
    return [x[:rows] for x in inputs]


def _cut(x: np.ndarray, entry: Input) -> str | None:
    """Judge numbers that an input of whole numbers cuts."""
    whole = entry.dtype.startswith(("int", "uint"))
    if not whole or x.dtype.kind != "f" or (x == np.trunc(x)).all():
        return None
    return (
        "The data are of another range than the model expects. Expected: whole "
        f"numbers, for its input {entry.name!r} is of {entry.dtype}. Received: values "
        f"from {x.min():.4g} to {x.max():.4g}, whose fractions are cut off. {_ADVICE}; "
        "in the shell, with `--scale`: pixels are 0 to 255."
    )


def _rescaled(call: Call, before: np.ndarray, after: np.ndarray) -> list[str]:
    """Judge what enters a rescaling by what it is there for: numbers near one.

    A rescaling `scale * x + offset` with an offset is centred at `-offset / scale`.
    One that makes numbers smaller makes them about 1; one that makes them larger
    gives what the next layer wants, up to pixels of 0 to 255.
    """
    low, high = float(before.min()), float(before.max())
    first, last = float(after.min()), float(after.max())
    if high <= low or last <= first:
        return []
    # Per-channel scales differ by little beside what is looked for.
    scale = (last - first) / (high - low)
    layer = call.layer
    offset = float(np.mean(to_numpy(getattr(layer, "offset", 0.0))))
    if call.kind != "Rescaling" and scale > 1 / _TIMES:
        return []
    centred = abs(offset) >= 0.25
    least = 2 * abs(offset) if centred else 1.0
    most = least if centred or scale <= 1 else max(scale, 255.0)
    if least / _TIMES <= last - first <= most * _TIMES:
        return []
    width = (least if last - first < least else most) / scale
    return [
        f"The data are of another range than the model expects. Expected: about 0 to "
        f"{width:.4g}, which the layer {call.path!r} maps to about "
        f"{offset:.3g} to {offset + width * scale:.3g}. Received: values from "
        f"{low:.4g} to {high:.4g}, which it maps to {first:.3g} to {last:.3g}. "
        f"{_ADVICE}: here 0 to {width:.4g}; in the shell, `--scale {width:.4g}`."
    ]


def _statistics(call: Call) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and variance that a layer has seen, in the shape of its input.

    Returns:
        Two arrays that broadcast against the input; `None` if it has seen nothing.
    """
    layer = call.layer
    if call.kind == "Normalization":
        if getattr(layer, "invert", False) or getattr(layer, "mean", None) is None:
            return None
        mean, variance = to_numpy(layer.mean), to_numpy(layer.variance)
        rank = len(call.input_shapes[0])
        mean, variance = (
            a.reshape((1,) * (rank - a.ndim) + a.shape) for a in (mean, variance)
        )
    elif call.kind == "BatchNormalization":
        mean, variance = to_numpy(layer.moving_mean), to_numpy(layer.moving_variance)
        axes = keras.tree.flatten(layer.axis)
        if len(axes) != 1:
            return None
        shape = [1] * len(call.input_shapes[0])
        shape[axes[0]] = mean.size
        mean, variance = mean.reshape(shape), variance.reshape(shape)
    else:
        return None
    if (mean == 0).all() and (variance == 1).all():  # it was never trained
        return None
    return mean.astype("float64"), variance.astype("float64")


def _on_its_way(
    momentum: float,
    here: np.ndarray,
    spread: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
) -> bool:
    """Return whether moving statistics are on their way to those of the data.

    They begin at a mean of 0 and a variance of 1, of which a momentum of 0.99 forgets
    little in a hundred steps: after `n` of them `0.99**n` is left, in all channels.
    Whoever takes that away from statistics of other data gets no statistics at all.
    """
    for n in range(1, 10_000):
        left = float(momentum) ** n
        if left < 0.05:
            break
        moved = (variance - left) / (1 - left)
        rounded = 2e-7 * n / (1 - left)  # statistics are kept in float32
        least = np.sqrt(np.maximum(moved - rounded, 0))
        most = np.sqrt(np.maximum(moved + rounded, 1e-30))
        shift = np.abs(here - mean / (1 - left))
        close = (least / 3 <= spread) & (spread <= 3 * most) & (shift <= most)
        if close.mean() > 0.5:
            return True
    return False


def _beside(
    call: Call, x: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> list[str]:
    """Judge what enters a normalisation by the statistics that it holds."""
    x = x.astype("float64")
    axes = tuple(a for a, size in enumerate(mean.shape) if size == 1 or a == 0)
    if np.prod([x.shape[a] for a in axes]) < _ENOUGH:
        return []
    here, spread = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
    mean, variance = (np.broadcast_to(a, spread.shape) for a in (mean, variance))
    if call.kind == "Normalization" and (variance == 1).all():
        variance = spread**2  # it only centres, and says nothing of deviations
    deviation = np.sqrt(variance)
    usable = (deviation > 0) & (spread > 0)
    if not usable.any():
        return []
    ratio = float(np.median(spread[usable] / deviation[usable]))
    shift = float(np.median(np.abs(here - mean)[usable] / deviation[usable]))
    if 1 / _TIMES <= ratio <= _TIMES and shift <= _TIMES:
        return []
    arrays = [array[usable] for array in (here, spread, mean, variance)]
    if call.kind == "BatchNormalization" and _on_its_way(call.layer.momentum, *arrays):
        return []

    def middle(array: np.ndarray) -> str:
        return f"{float(np.median(array[usable])):.3g}"

    return [
        "The data are of another range than the model expects. Expected: at the layer "
        f"{call.path!r}, which has seen such in training, values with means about "
        f"{middle(mean)} and deviations about {middle(deviation)}. Received: means "
        f"about {middle(here)} and deviations about {middle(spread)}. {_ADVICE}; in "
        "the shell, with `--scale`."
    ]
