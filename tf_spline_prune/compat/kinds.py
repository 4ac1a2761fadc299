"""What kind of layer an object is, in words that both flavours share."""

from typing import Any

# What a subclass may define and still compute as its base does.
_HARMLESS = ("__init__", "get_config", "__doc__", "__module__", "__qualname__")


def kind_of(layer: Any) -> str:
    """Name the kind of a layer or operation.

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
        is_layer = any(base.__name__ == "Layer" for base in cls.__mro__)
        return cls.__name__ if is_layer else f"op:{cls.__name__.lower()}"
    # A user's subclass that computes as its Keras base does is read as the base.
    for base in cls.__mro__:
        if _is_keras(base):
            if base.__name__ not in ("Layer", "Model", "Functional", "Operation"):
                return base.__name__
            break
        if any(callable(v) for name, v in vars(base).items() if name not in _HARMLESS):
            break
    return f"custom:{cls.__name__}"


def is_sequential(model: Any) -> bool:
    """Tell whether a model is a Keras `Sequential`."""
    return any(
        base.__name__ == "Sequential" and _is_keras(base)
        for base in type(model).__mro__
    )


def _is_keras(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("keras", "tf_keras")
