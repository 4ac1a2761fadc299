"""At which sizes a model is read whose inputs are of any length."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_spline_prune._checks import Integer, ListOf, MapOf, Options, Text
from tf_spline_prune.compat import Graph, Shape, trace
from tf_spline_prune.errors import ModelError

InputShapes = Mapping[str, Sequence[int]]
INPUT_SHAPES: Options = [
    MapOf(
        Text("the name of an input"),
        ListOf(Integer(1), "the sizes of its axes", 0),
        "a dictionary from names of inputs to shapes without the batch axis",
        hint="Such as {'token_ids': (128,)}.",
    ),
    None,
]
"""What the checks of arguments want of shapes of inputs."""
# Lengths at which a model is read where nobody says one; some bear only few.
_LENGTHS = (16, 8, 64)


def read_at(model: Any, asked: InputShapes | None) -> tuple[Graph, Graph]:
    """Trace a model, at sizes that are all known where it cannot be read at any.

    A `call` that counts its positions cannot be read as long as their number is open.

    Args:
        model: A built model of either flavour.
        asked: The shapes of its inputs without the batch axis; of those that are not
            named, open axes are as long as the others. With `None` a model that can be
            read at any size is.

    Returns:
        The model's own graph, and the one at these sizes; the same one where no size
        was needed.

    Raises:
        ModelError: If the model is unbuilt or cannot be traced at these sizes.
        ValueError: If the shapes do not fit the inputs.
    """
    own = trace(model)
    is_open = any(None in entry.shape[1:] for entry in own.inputs)
    filled = None if asked is None else _filled(own, asked)
    if filled is not None and is_open:
        try:
            return own, trace(model, filled, looked_at=True)
        except ModelError:
            raise
        except Exception as error:  # whatever a layer raises at a size
            raise ModelError(
                "The model cannot be read with inputs of these shapes. Give such as "
                f"it can be called on. Received: input_shapes={asked}, with which "
                f"{type(error).__name__} was raised: {error}"
            ) from error
    untraced = _untraced(own)
    if not untraced:
        return own, own
    for length in _LENGTHS if is_open else _LENGTHS[:1]:
        shapes = {
            entry.name: (entry.shape[0], *(n or length for n in entry.shape[1:]))
            for entry in own.inputs
        }
        try:
            found = trace(model, shapes if is_open else None, looked_at=True)
        except Exception:  # whatever a layer raises at a size
            continue
        if _untraced(found) < untraced:
            return own, found
    return own, own


def _untraced(graph: Graph) -> int:
    """Count the layers made of layers that could not be traced."""
    return sum(bool(call.why) for call in graph.calls)


def _filled(graph: Graph, asked: InputShapes) -> dict[str, Shape]:
    """Fill the asked sizes into the shapes of a model's inputs."""
    known = {entry.name: entry.shape for entry in graph.inputs}
    shapes: dict[str, Shape] = {}
    said: list[int] = []
    for name, sizes in asked.items():
        own = known.get(name)
        fits = own is not None and len(own) == len(sizes) + 1
        if not fits or any(
            n not in (None, size)
            for n, size in zip(own[1:], sizes, strict=True)  # type: ignore[index]
        ):
            raise ValueError(
                "`input_shapes` does not fit the inputs of the model. Expected: for "
                "names of inputs their shapes without the batch axis, of "
                f"{ {key: shape[1:] for key, shape in known.items()} }. Received: "
                f"{name!r}: {tuple(sizes)}"
            )
        pairs = zip(own[1:], sizes, strict=True)  # type: ignore[index]
        said += [size for n, size in pairs if n is None]
        shapes[name] = (own[0], *sizes)  # type: ignore[index]
    for name, own in known.items():
        if name in shapes:
            continue
        if None in own[1:] and len(set(said)) != 1:
            raise ValueError(
                "`input_shapes` leaves a size open. Give the shape of each input that "
                f"has one. Received: {dict(asked)}, and nothing of {name!r}, which is "
                f"{own[1:]}"
            )
        shapes[name] = (own[0], *(n if n is not None else said[0] for n in own[1:]))
    return {name: shapes[name] for name in known}
