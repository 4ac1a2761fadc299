"""What kind of layer an object is, in words that both flavours share."""

from typing import Any

from tf_spline_prune.errors import ModelError

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


def own_names(cls: type) -> set[str]:
    """List what a user's class defines, and its bases that Keras' own has not."""
    keras_own = next((base for base in cls.__mro__ if _is_keras(base)), object)
    own = set(cls.__mro__) - set(keras_own.__mro__)
    return {name for base in own for name in vars(base)}


def _is_keras(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("keras", "tf_keras")
