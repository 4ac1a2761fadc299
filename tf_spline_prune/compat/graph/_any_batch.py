"""Graphs of layers whose `call` reads how large the batch is (Keras 3).

While a `call` is traced, the size of the batch is not known, and what is made of it
fails: masks of `(batch, length, length)`, reshapes to `(batch * windows, ...)`. So such
a `call` is traced with batches of two sizes. What differs between the two traces hangs
on the batch, and is written so that it fits any batch; whether the result computes what
the layer does is for the caller to test.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.layers.layer import Layer

from tf_spline_prune.compat._flavour import kind_of
from tf_spline_prune.compat.graph._blueprint import signature_of

SIZES = (2, 3)
"""The two sizes of a batch with which a `call` is traced."""


class HangsOnBatch(Exception):
    """Something hangs on the batch in a way that cannot be written for any batch."""


def for_any_batch(first: Any, second: Any, inputs: list[Any]) -> Any:
    """Join two traces of a `call`, with batches of two sizes, into one for any batch.

    Args:
        first: The trace with the first size.
        second: That with the second.
        inputs: Symbolic inputs whose batch axis is open.

    Returns:
        The tensors that come out of the inputs, arranged as in the traces.

    Raises:
        HangsOnBatch: If the two have other operations, or differ in more than sizes
            and constants that are the same for every example.
    """
    values = dict(zip(map(id, first.inputs), inputs, strict=True))

    def common(one: Any, other: Any) -> Any:
        if hasattr(one, "_keras_history"):
            return values[id(one)]
        return _common(one, other)

    nodes = [_nodes(trace) for trace in (first, second)]
    if len(nodes[0]) != len(nodes[1]):
        raise HangsOnBatch
    for one, other in zip(*nodes, strict=True):
        grown = [_grown(node) for node in (one, other)]
        if grown[0] is not None and grown[0] == grown[1]:
            tensor = values[id(one.arguments.keras_tensors[0])]
            for axis, size in grown[0]:
                tensor = keras.ops.repeat(tensor, size, axis)
            values[id(one.outputs[0])] = tensor
            continue
        operation = _common_operation(one, other)
        given = [(n.arguments.args, n.arguments.kwargs) for n in (one, other)]
        args, kwargs = keras.tree.map_structure(common, *given)
        made = keras.tree.flatten(operation(*args, **kwargs))
        values.update(zip(map(id, one.outputs), made, strict=True))
    return keras.tree.map_structure(lambda t: values[id(t)], first._outputs_struct)


def _nodes(functional: Any) -> list[Any]:
    depths = sorted(functional._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in functional._nodes_by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _grown(node: Any) -> list[tuple[int, int]] | None:
    """List the axes that a node broadcasts, and to what sizes; not the batch axis."""
    if type(node.operation).__name__ != "BroadcastTo":
        return None
    before, after = node.arguments.keras_tensors[0].shape, node.outputs[0].shape
    if len(before) != len(after) or before[0] != after[0]:
        return None
    pairs = enumerate(zip(before, after, strict=True))
    return [(axis, new) for axis, (old, new) in pairs if old != new]


def _common_operation(first: Any, second: Any) -> Any:
    """Return the operation of two nodes; a reshape with the batch axis open."""
    one, other = first.operation, second.operation
    if one is other:
        return one
    if type(one) is not type(other):
        raise HangsOnBatch
    if hasattr(one, "weights"):  # a layer that `call` makes anew is the same again
        configs = [{**part.get_config(), "name": ""} for part in (one, other)]
        if one.variables or other.variables or configs[0] != configs[1]:
            raise HangsOnBatch
        return one
    differ = [
        name
        for name in inspect.signature(type(one).__init__).parameters
        if name != "name" and not _same(vars(one).get(name), vars(other).get(name))
    ]
    if not differ:
        return one
    # What a -1 in the shape stands for is known of what comes out.
    shapes = [tuple(node.outputs[0].shape) for node in (first, second)]
    if differ != ["newshape"] or len(shapes[0]) != len(shapes[1]):
        raise HangsOnBatch
    shape = [_open(*sizes) for sizes in zip(*shapes, strict=True)]
    if shape.count(-1) == 1 and None not in shape:
        return type(one)(tuple(shape))
    if shape[0] == -1 and shape.count(-1) + shape.count(None) == 2:
        # The batch axis, and one more; only a layer knows the first.
        return keras.layers.Reshape([-1 if n is None else n for n in shape[1:]])
    raise HangsOnBatch


def _open(one: int | None, other: int | None) -> int | None:
    if one == other:
        return one
    if one is None or other is None or one * SIZES[1] != other * SIZES[0]:
        raise HangsOnBatch
    return -1


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "shape") or hasattr(other, "shape"):
        return np.array_equal(one, other)
    return bool(one == other)


def _common(one: Any, other: Any) -> Any:
    """Return what an argument is for any batch; of an array its one example."""
    if one is other:
        return one
    shapes = [tuple(getattr(value, "shape", ())) for value in (one, other)]
    if () in shapes or shapes[0] == shapes[1]:
        if not _same(one, other):
            raise HangsOnBatch
        return one
    arrays = [keras.ops.convert_to_numpy(value) for value in (one, other)]
    alike = [(array == array[:1]).all() for array in arrays]
    sizes = [len(array) for array in arrays]
    if sizes != list(SIZES) or not all(alike) or not _same(*(a[:1] for a in arrays)):
        raise HangsOnBatch
    return one[:1]


@contextlib.contextmanager
def run_through(
    layers: list[Any] | None, training: bool | None = None
) -> Iterator[None]:
    """Let layers be no calls of their own in a trace: what they call is recorded.

    So they may return `None` beside tensors, and be told what their own
    `compute_output_spec` does not take. What a layer of Keras makes has its full shape:
    an `EinsumDense` that was built for any length forgets it.

    Args:
        layers: The layers; with `None` nothing changes.
        training: What they are told if their caller says nothing. Unsaid, so that the
            layers inside are told by the model, if it is `None`.
    """
    if layers is None:
        yield
        return
    inside = {id(layer) for layer in layers}
    as_usual = Layer.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self) not in inside:
            outputs = as_usual(self, *args, **kwargs)
            if type(self) is keras.layers.EinsumDense:
                _complete(outputs, self, args)
            return outputs
        known = signature_of(self.call).parameters
        if "training" in known:
            kwargs = {"training": training, **kwargs}
        elif not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            kwargs.pop("training", None)
        return self.call(*args, **kwargs)

    Layer.__call__ = call
    try:
        yield
    finally:
        Layer.__call__ = as_usual


def _complete(output: Any, layer: Any, args: tuple[Any, ...]) -> None:
    if hasattr(output, "_keras_history") and None in output.shape[1:]:
        found = keras.src.backend.compute_output_spec(layer.call, *args)
        output._shape = found.shape


@contextlib.contextmanager
def named_apart(layer: Any) -> Iterator[None]:
    """Rename all layers inside a layer apart, for as long as it is traced."""
    inside = list(layer._flatten_layers(include_self=False))
    held = [(part, part.name) for part in inside]
    for place, part in enumerate(inside):
        part.name = f"{part.name}_{place}_inside"
    try:
        yield
    finally:
        for part, name in reversed(held):
            part.name = name


def transparent(layer: Any, trained: bool, owning: bool = False) -> list[Any]:
    """List the layers inside a layer that only call others, or have no weights.

    What reads weights of its own is no such layer: they would be lost in a trace.

    Args:
        layer: A layer made of layers.
        trained: Whether those without weights are listed that may do something else in
            training.
        owning: Whether those are listed, too, that call others and read weights of
            their own. Defaults to `False`.
    """

    def is_one(part: Any) -> bool:
        owns = part._trainable_variables or part._non_trainable_variables
        if any(True for _ in part._flatten_layers(include_self=False)):
            return owning or not owns
        told = "training" in signature_of(part.call).parameters
        return not part.variables and (trained or not told)

    return [
        part
        for part in layer._flatten_layers(include_self=False)
        if kind_of(part).startswith("custom:") and is_one(part)
    ]
