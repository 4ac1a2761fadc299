"""Views of a call: with the sizes of its place in the model, and without masks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from tf_spline_prune.compat.call_graph import Arguments, Call, Shape


def with_sizes(call: Call, shapes: Sequence[Shape]) -> Call:
    """Fill in the sizes of a call's output from the sizes of its inputs.

    Args:
        call: A call, perhaps of an inner model whose own input leaves sizes open.
        shapes: Shapes of the inputs where it is used, the batch axis first.

    Returns:
        The call, with shapes as far as they are known.
    """
    if list(shapes) == list(call.input_shapes) or not shapes:
        return call
    call = replace(call, input_shapes=tuple(shapes))
    try:
        found = _output_shapes(call)
    except Exception:  # whatever a layer raises: then the sizes stay as they were
        return call
    fits = [len(a) == len(b) for a, b in zip(found, call.output_shapes, strict=False)]
    if len(found) == len(call.output_shapes) and all(fits):
        return replace(call, output_shapes=found)
    return call


def _output_shapes(call: Call) -> tuple[Shape, ...]:
    if hasattr(call.layer, "compute_output_spec"):
        tensors = [keras.KerasTensor(shape) for shape in call.input_shapes]
        args, kwargs = call.fill(dict(zip(call.inputs, tensors, strict=True)))
        specs = call.layer.compute_output_spec(*args, **kwargs)
        return tuple(tuple(spec.shape) for spec in keras.tree.flatten(specs))
    given: Any = list(call.input_shapes)
    shape = call.layer.compute_output_shape(given[0] if len(given) == 1 else given)
    return (tuple(shape.as_list()),)


def without_masks(call: Call) -> tuple[Call, list[int]]:
    """Leave the masks out of a call's inputs; Keras 3 hands them on as tensors.

    Args:
        call: A call.

    Returns:
        The call, and the places of the other tensors among its inputs.
    """
    if len(call.inputs) < 2:
        return call, list(range(len(call.inputs)))
    _, kwargs = call.fill({i: _Tensor(i) for i in call.inputs})
    given = {key: value for key, value in kwargs.items() if key.endswith("mask")}
    masks = {t for t in keras.tree.flatten(given) if isinstance(t, _Tensor)}
    if not masks:
        return call, list(range(len(call.inputs)))
    left = [place for place, i in enumerate(call.inputs) if i not in masks]

    def fill(values: dict[int, Any]) -> Arguments:
        return call.fill({**dict.fromkeys(masks), **values})

    return (
        replace(
            call,
            inputs=tuple(call.inputs[place] for place in left),
            input_shapes=tuple(call.input_shapes[place] for place in left),
            input_dtypes=tuple(call.input_dtypes[place] for place in left),
            fill=fill,
        ),
        left,
    )


class _Tensor(int):
    """A tensor's identity, to be told from the plain integers among arguments."""
