"""Which flavour and what kind of layer an object is, asked of the object itself."""

import importlib
import os
from types import ModuleType
from typing import Any, Literal

from tf_spline_prune.errors import FlavourError, ModelError

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


def is_own_function(thing: Any) -> bool:
    """Return whether something is a user's function, which no config can hold."""
    if not callable(thing) or isinstance(thing, type) or hasattr(thing, "get_config"):
        return False
    return keras_root(thing) is None


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


# What a subclass may define and still compute as its base does.
_HARMLESS = (
    *("__annotations__", "__dict__", "__doc__", "__firstlineno__", "__init__"),
    *("__module__", "__qualname__", "__static_attributes__", "__weakref__"),
    *("from_config", "get_config"),
)
# What hands all numbers on as they are in inference: in other places, or of another
# dtype.
HANDS_ON = frozenset(
    "ActivityRegularization Dropout Flatten GaussianDropout GaussianNoise Identity "
    "Permute Reshape SpatialDropout1D SpatialDropout2D SpatialDropout3D op:cast "
    "op:expanddims op:identity op:reshape op:squeeze op:transpose".split()
)


def kind_of(layer: Any) -> str:
    """Return the name of the kind of a layer or operation.

    Args:
        layer: A layer or operation of either flavour.

    Returns:
        The class name of a Keras layer (`"Conv2D"`), `"op:relu"` for an operation,
        `"custom:Name"` for a user's layer. A user's subclass that defines nothing
        but its constructor is read as its Keras base.
    """
    cls = type(layer)
    if _is_keras(cls):
        if cls.__name__ in ("TFOpLambda", "SlicingOpLambda"):
            symbol = str(getattr(layer, "symbol", "") or "getitem")
            return "op:" + symbol.rpartition(".")[2].replace("_", "").lower()
        return cls.__name__ if is_layer(layer) else f"op:{cls.__name__.lower()}"
    # A user's subclass that computes as its Keras base does is read as the base.
    own: dict[str, Any] = {}
    for base in cls.__mro__:
        if _is_keras(base):
            plain = not any(
                hasattr(base, name) or isinstance(value, property)
                for name, value in own.items()
            )
            if plain and base.__name__ not in ("Layer", "Model", "Functional"):
                return base.__name__
            break
        own |= {n: value for n, value in vars(base).items() if n not in _HARMLESS}
    return f"custom:{cls.__name__}"


def is_mask_wrapper(layer: Any) -> bool:
    """Return whether a layer only holds masks for a layer inside: ours or TFMOT's."""
    cls = type(layer)
    theirs = cls.__module__.startswith("tensorflow_model_optimization.")
    return getattr(cls, "holds_masks", False) or (
        theirs and cls.__name__ == "PruneLowMagnitude"
    )


def inside_masks(layer: Any) -> Any:
    """Return the layer inside a mask wrapper; any other layer is itself."""
    return layer.layer if is_mask_wrapper(layer) else layer


def is_layer(thing: Any) -> bool:
    """Return whether an object is a layer of either flavour."""
    return any(
        base.__name__ == "Layer" and _is_keras(base) for base in type(thing).__mro__
    )


def check_plain(path: str, layer: Any) -> None:
    """Refuse a layer whose weights are not what it computes with.

    Args:
        path: The layer's path, for the message.
        layer: A layer or operation.

    Raises:
        ModelError: If it is quantised, or carries a LoRA update.
    """
    mode = getattr(layer, "quantization_mode", None)
    if mode:
        raise ModelError(
            "A quantised layer cannot be pruned. Prune the model first, then "
            f"quantise the smaller one. Received: {path!r}, quantised to {mode!r}"
        )
    if getattr(layer, "lora_enabled", False):
        raise ModelError(
            "A layer with a LoRA update cannot be pruned. Merge the update first: "
            "save the model's weights, in which Keras merges it, and load them into "
            f"a model without LoRA. Received: {path!r}, with LoRA enabled"
        )


def is_sequential(model: Any) -> bool:
    """Return whether a model is a Keras `Sequential`."""
    return any(
        base.__name__ == "Sequential" and _is_keras(base)
        for base in type(model).__mro__
    )


def calls_as_keras(model: Any) -> bool:
    """Return whether a model computes what its graph says, and nothing around it."""
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    return _is_keras(owner)


def is_all_keras(model: Any) -> bool:
    """Return whether a model of Keras 3 runs no code but that of Keras."""
    return all(
        flavour_of(layer) == "keras"
        and kind_of(layer) != "Lambda"
        and not kind_of(layer).startswith("custom:")
        # A model holds the functions that train it.
        and (
            hasattr(layer, "layers")
            or not any(map(is_own_function, vars(layer).values()))
        )
        for layer in model._flatten_layers()
    )


def own_names(cls: type) -> set[str]:
    """List what a user's class defines, and its bases that Keras' own has not."""
    keras_own = next((base for base in cls.__mro__ if _is_keras(base)), object)
    own = set(cls.__mro__) - set(keras_own.__mro__)
    return {name for base in own for name in vars(base)}


def _is_keras(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("keras", "tf_keras")
