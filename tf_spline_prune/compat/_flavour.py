"""Which Keras a model, layer or operation belongs to.

The answer is read from the module names of the object's class and its bases:
neither the environment nor an import of the other flavour is needed.
"""

import importlib
import os
from types import ModuleType
from typing import Any, Literal

from tf_spline_prune.errors import FlavourError

Flavour = Literal["keras", "tf_keras"]
_ROOTS = ("keras", "tf_keras")


def flavour_of(thing: Any) -> Flavour | None:
    """Return the Keras flavour of an object.

    Args:
        thing: Any object: a model, a layer, an operation.

    Returns:
        `"keras"` (Keras 3), `"tf_keras"` (Keras 2), or `None` for neither.
    """
    for base in type(thing).__mro__:
        root = base.__module__.partition(".")[0]
        if root == "keras":
            return "keras"
        if root == "tf_keras":
            return "tf_keras"
    return None


def require_flavour(model: Any, flavour: Flavour | None = None) -> Flavour:
    """Check that `model` is a Keras model, of one flavour if that is asked.

    Args:
        model: What the user gave as a model.
        flavour: The flavour that is needed; `None` accepts both.

    Returns:
        The flavour of `model`.

    Raises:
        FlavourError: If `model` is no Keras model or of the other flavour.
    """
    found = flavour_of(model)
    if found is None or not _is_model(model):
        raise FlavourError(
            "Expected a Keras model: an instance of `keras.Model` (Keras 3) or "
            f"`tf_keras.Model` (Keras 2).{_advice(model)} Received: an object of type "
            f"{type(model).__module__}.{type(model).__qualname__}."
        )
    if flavour is not None and found != flavour:
        raise FlavourError(
            f"Expected a model of the flavour `{flavour}`, but this one belongs to "
            f"`{found}`; the two do not mix in one call. Build both with "
            f"`{flavour}`, or load the saved weights into a `{flavour}` model of the "
            f"same architecture. Received: {found} model {model.name!r}."
        )
    return found


def _is_model(thing: Any) -> bool:
    return any(
        base.__name__ == "Model" and base.__module__.partition(".")[0] in _ROOTS
        for base in type(thing).__mro__
    )


def _advice(given: Any) -> str:
    """Return how to make a model of what was taken for one."""
    if isinstance(given, (str, os.PathLike)):
        return " Load the file first: `keras.saving.load_model(path)`."
    if isinstance(given, type):
        return " Make an instance of the class."
    if flavour_of(given) is not None:
        return " Put a layer into one: `keras.Sequential([keras.Input(shape), layer])`."
    return ""


def keras_of(thing: Any) -> ModuleType:
    """Import and return the Keras package that `thing` belongs to."""
    flavour = flavour_of(thing)
    if flavour is None:
        raise FlavourError(
            "Expected an object of `keras` or `tf_keras`. Received: an object of "
            f"type {type(thing).__module__}.{type(thing).__qualname__}."
        )
    return importlib.import_module(flavour)


def keras_root(function: Any) -> Flavour | None:
    """Return which Keras a function or callable object comes from, if any."""
    module = getattr(function, "__module__", None) or type(function).__module__
    root = str(module).partition(".")[0]
    return root if root in ("keras", "tf_keras") else None  # type: ignore[return-value]


def activation_name(function: Any) -> str:
    """Return an activation function's name as Keras serialises it.

    The two flavours disagree on `hard_sigmoid` (knots at -3 and 3 in Keras 3,
    at -2.5 and 2.5 in tf_keras), so the older one gets a name of its own.

    Args:
        function: An activation function of either flavour, or any callable.

    Returns:
        A name such as `"relu"`, or the callable's own name if it is not Keras'.
    """
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", "") or ""
    if name == "hard_sigmoid" and module.startswith("tf_keras"):
        return "hard_sigmoid_2.5"
    return str(name)
