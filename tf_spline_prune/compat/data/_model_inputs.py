"""What a model takes its inputs for, and inputs that it may be given."""

import math
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import HANDS_ON
from tf_spline_prune.compat.build._rebuild import keeps_words
from tf_spline_prune.compat.data._samples import OPEN_SIZE, Meaning, drawn_as, sizes_of
from tf_spline_prune.compat.graph._blueprint import Shape
from tf_spline_prune.compat.graph._graph import Call, Graph, Tensor, fixed_size
from tf_spline_prune.compat.run._execution import (
    backend_of,
    call_layer,
    graph_function,
    to_numpy,
)
from tf_spline_prune.compat.run._states import same_randomness, states_kept

# Open sizes to try in turn: most networks take the first. The others are multiples of
# more numbers, or long enough for many strides.
_OPEN_SIZES = (OPEN_SIZE, 30, 28, 60, 96, 224, 420)
# A larger input is not tried.
_LARGEST = 2**18
# A picture may be so many times smaller, and no smaller than this.
_TIMES, _LEAST_SIDE = (4, 2), 32
# Layers that do the same to pictures of all sizes.
_OF_ANY_SIZE = frozenset(
    "Activation ActivityRegularization Add Average AveragePooling2D AveragePooling3D "
    "BatchNormalization Concatenate Conv2D Conv3D Cropping2D Cropping3D "
    "DepthwiseConv2D Dropout ELU GaussianDropout GaussianNoise GlobalAveragePooling2D "
    "GlobalAveragePooling3D GlobalMaxPooling2D GlobalMaxPooling3D Identity LeakyReLU "
    "Maximum MaxPooling2D MaxPooling3D Minimum Multiply Normalization ReLU Rescaling "
    "SeparableConv2D SpatialDropout2D SpatialDropout3D Subtract UpSampling2D "
    "UpSampling3D ZeroPadding2D ZeroPadding3D".split()
)
# Layers and operations that hand numbers on: some, several times, or with others.
_HANDED_ON = HANDS_ON | frozenset(
    "RepeatVector Concatenate Cropping1D Cropping2D ZeroPadding1D ZeroPadding2D "
    "Masking Resizing op:getitem op:concatenate op:split op:stack op:stopgradient "
    "op:copy op:flip op:concat".split()
)


def sample_inputs(
    graph: Graph, count: int, seed: int, scale: float = 1.0, small: bool = False
) -> list[np.ndarray]:
    """Draw inputs that a model may be given, by what it does with them.

    What goes into an Embedding or its like are ids over the whole vocabulary, be the
    input of integers or of floats. Images are smooth, in the range that a Rescaling
    or Normalization behind the input expects. All else is drawn as `random_inputs`
    does. Open sizes are such as the model can be run with.

    Args:
        graph: The model, traced.
        count: How many; a model that fixes the size of its batches gets the next
            multiple of it.
        seed: Seed of the numbers.
        scale: Numbers whose range is not known are so many times as large.
        small: Whether pictures may be smaller than the model's, where all layers take
            such alike. Its graph can be run on them; its own call may refuse them.

    Returns:
        One array per input, in the order of the model's inputs.
    """
    size = fixed_size(graph.inputs) or 1
    rng = np.random.default_rng(seed)
    meanings = input_meanings(graph)
    smaller = _smaller_size(graph) if small else None
    sizes = _sizes(graph, meanings) if smaller is None else [smaller]
    return [
        drawn_as(rng, (-(-count // size) * size, *rest), entry.dtype, meaning, scale)
        for entry, rest, meaning in zip(graph.inputs, sizes, meanings, strict=True)
    ]


def _sizes(graph: Graph, meanings: list[Meaning]) -> list[list[int]]:
    """Return the shape of each input, the batch axis left out, open sizes settled."""
    shapes = [entry.shape[1:] for entry in graph.inputs]
    usual = [sizes_of(shape) for shape in shapes]
    if any(None in shape for shape in shapes):
        for open_size in _OPEN_SIZES:
            sizes = [sizes_of(shape, open_size) for shape in shapes]
            if _runs(graph, meanings, sizes):
                return sizes
    return usual


def _smaller_size(graph: Graph) -> list[int] | None:
    """Return a smaller shape of the one picture that a model takes in, if there is one.

    The batch axis is left out.
    """
    shape = graph.inputs[0].shape
    if len(graph.inputs) > 1 or len(shape) < 4 or None in shape[1:]:
        return None
    for times in _TIMES:
        sides = [size // times for size in shape[1:-1] if size is not None]
        smaller = (shape[0], *sides, shape[-1])
        if min(sides) >= _LEAST_SIDE and _fits(graph, smaller):
            return [size for size in smaller[1:] if size is not None]
    return None


def _fits(graph: Graph, shape: Shape) -> bool:
    """Check whether all layers do the same to a picture of another size."""
    shapes: dict[Tensor, Shape] = {graph.input_tensors[0]: shape}  # those that change
    for call in graph.calls:
        if shapes.keys().isdisjoint(call.needs()):
            continue
        known = list(zip(call.inputs, call.input_shapes, strict=True))
        taken = [shapes.get(tensor, own) for tensor, own in known]
        # Pictures that go together still do, but for gates of a single place.
        sides = {
            now[1:-1]
            for now, (_, own) in zip(taken, known, strict=True)
            if set(own[1:-1]) != {1}
        }
        if len(sides) > 1 or not _takes_any_size(call, taken):
            return False
        try:
            found = call.layer.compute_output_shape(taken if taken[1:] else taken[0])
        except ValueError:  # nothing would be left, or sizes do not go together
            return False
        if any(size is not None and size < 1 for size in found):
            return False
        if (tuple(found),) != call.output_shapes:
            shapes[call.outputs[0]] = tuple(found)
    return True


def _takes_any_size(call: Call, shapes: list[Shape]) -> bool:
    """Check whether a layer does the same to all sizes, and is no larger than these."""
    layer, last = call.layer, len(shapes[0]) - 1
    if call.kind not in _OF_ANY_SIZE or call.masks:
        return False
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    if hasattr(layer, "axis"):  # of its channels
        return keras.tree.flatten(layer.axis) in ([-1], [last])
    if set(keras.tree.flatten(getattr(layer, "dilation_rate", 1))) == {1}:
        return True
    pairs = zip(shapes[0][1:-1], layer.kernel_size, layer.dilation_rate, strict=True)
    return all(size and size > (k - 1) * rate for size, k, rate in pairs)


def _runs(graph: Graph, meanings: list[Meaning], sizes: list[list[int]]) -> bool:
    """Try whether a model can be run with inputs of some sizes."""
    if max(math.prod(one) for one in sizes) > _LARGEST:
        return False
    rng = np.random.default_rng(0)
    some = fixed_size(graph.inputs) or 2
    inputs = [
        drawn_as(rng, (some, *rest), entry.dtype, meaning)
        for entry, rest, meaning in zip(graph.inputs, sizes, meanings, strict=True)
    ]

    def run(*tensors: Any) -> Any:
        return graph.run(list(tensors), _whole)

    if backend_of(graph.model) == "tensorflow":
        # It looks at the sizes first; eagerly, some convolutions of what is smaller
        # than they are give whatever was in memory.
        run = graph_function(run)
    tensors = map(keras.ops.convert_to_tensor, inputs)
    try:
        with states_kept(graph.model), same_randomness(graph.model):
            outputs = list(map(to_numpy, run(*tensors)))
    except Exception:  # whatever a layer raises that does not take this size
        return False
    return all(np.isfinite(output).any() for output in outputs)


def _whole(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a call, and refuse a result from which nothing is left."""
    result = call_layer(call, args, kwargs)
    shapes = [getattr(one, "shape", ()) for one in keras.tree.flatten(result)]
    if any(0 in tuple(shape) for shape in shapes):
        raise ValueError(f"nothing is left behind {call.name}")
    return result


def input_meanings(graph: Graph) -> list[Meaning]:
    """Find what a model takes its inputs for, from what reads them first.

    Args:
        graph: The model, traced.

    Returns:
        One meaning an input, in their order.
    """
    found = [Meaning() for _ in graph.inputs]
    # The inputs whose numbers each tensor holds.
    held = {tensor: {place} for place, tensor in enumerate(graph.input_tensors)}
    for call in graph.calls:
        places = set().union(*(held[tensor] for tensor in call.needs()))
        meaning = _reads(call)
        for place in places if meaning else ():
            found[place] = _closer(found[place], meaning)
        handed_on = places if call.kind in _HANDED_ON else set()
        held.update(dict.fromkeys(call.outputs, handed_on))
    return found


def _closer(one: Meaning, other: Any) -> Meaning:
    """Choose between what two readers say; of two vocabularies, the smaller."""
    if one.ids is not None and other.ids is not None:
        return min(one, other, key=lambda meaning: meaning.ids)
    if one.words or other.words:  # a word of another vocabulary may be refused
        return one if one.words else other
    known = one.ids is not None or one.low is not None or one.mean is not None
    return one if known and other.ids is None else other


def _reads(call: Call) -> Meaning | None:
    """Return what a call takes its input for, if it says that at all."""
    layer = call.layer
    bases = {base.__name__ for base in type(layer).__mro__}
    if "Embedding" in bases:
        return Meaning(ids=int(layer.input_dim))
    if call.kind == "CategoryEncoding":
        return Meaning(ids=int(layer.num_tokens))
    if keeps_words(layer):
        return _in_vocabulary(layer, call.kind)
    if call.kind == "Discretization" and len(layer.bin_boundaries or ()):
        bounds = np.sort(np.asarray(layer.bin_boundaries, float))
        beyond = max(1.0, float(np.ptp(bounds)) / len(bounds))
        return Meaning(low=bounds[0] - beyond, high=bounds[-1] + beyond)
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


def _in_vocabulary(layer: Any, kind: str) -> Meaning | None:
    """Choose what a layer with a vocabulary knows, and one word that it does not."""
    if getattr(layer, "invert", False):
        return Meaning(ids=int(layer.vocabulary_size()))
    words = list(layer.get_vocabulary(include_special_tokens=False))
    if not words:
        return None
    if getattr(layer, "num_oov_indices", 1):
        numbers = not isinstance(words[0], str)
        words.append(max(words) + 1 if numbers else "".join(words[:9]) + "x")
    return Meaning(words=tuple(words), length=3 if kind == "TextVectorization" else 1)
