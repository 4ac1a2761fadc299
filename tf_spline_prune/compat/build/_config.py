"""Configs of layers, and layers made from them."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

from keras.src.saving.serialization_lib import SafeModeScope

from tf_spline_prune.compat._flavour import (
    is_layer,
    is_own_function,
    keras_of,
    kind_of,
)


def config_of(layer: Any) -> dict[str, Any]:
    """Copy the config of a layer, whatever functions it holds.

    That these are not safe in a file is not said: a copy gets the functions themselves.
    A `functools.partial` has no name, so another function stands in for it.
    """
    every = getattr(layer, "_flatten_layers", lambda: [layer])
    nameless = [
        (part, key, value)
        for part in every()
        for key, value in vars(part).items()
        if isinstance(value, functools.partial)
    ]
    for part, key, _ in nameless:
        setattr(part, key, keras_of(part).activations.linear)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The object being serialized includes")
            warnings.filterwarnings("ignore", "The `keras.initializers.serialize")
            return dict(layer.get_config())
    finally:
        for part, key, value in nameless:
            setattr(part, key, value)


def from_config(layer: Any, config: dict[str, Any], dtype: str | None = None) -> Any:
    """Make a layer of the class of another one, with the functions that this one has.

    Args:
        layer: A layer, model or operation.
        config: Its config, perhaps with changes; it was never out of this process.
        dtype: The dtype policy of layers that it makes for itself. Defaults to `None`,
            as everywhere.

    Returns:
        The new one.

    Raises:
        Exception: Whatever its class raises.
    """
    known = {}
    for thing in vars(layer).values():
        # An initializer, a regularizer and the like are named by their class.
        thing = type(thing) if hasattr(thing, "get_config") else thing
        if callable(thing) and hasattr(thing, "__name__"):
            known[thing.__name__] = thing
    keras = keras_of(layer)
    with (
        SafeModeScope(False),
        keras.utils.custom_object_scope(known),
        _default_dtype(keras, dtype),
    ):
        kind = kind_of(layer)
        if kind == "Lambda":
            return _lambda_layer(layer, config)
        if not kind.startswith("op:"):
            config = _with_functions(layer, config)
        return type(layer).from_config(config)


@contextlib.contextmanager
def _default_dtype(keras: Any, dtype: str | None) -> Iterator[None]:
    """Let the layers that a layer makes for itself have its dtype policy."""
    if dtype is None:
        yield
        return
    policies = keras.mixed_precision
    old = policies.global_policy()
    policies.set_global_policy(dtype)
    try:
        yield
    finally:
        policies.set_global_policy(old)


def _with_functions(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Put a user's functions into a config, in which they are only names.

    Args:
        layer: The layer that the config is of, or the like.
        config: The config, perhaps with changes.

    Returns:
        A copy, with the functions themselves for the layer and those inside it.
    """
    found = dict(config)
    by_name = kind_of(layer).startswith("custom:")  # what it does with one is its own
    for key, value in config.items():
        own = getattr(layer, key, getattr(layer, f"forward_{key}", None))
        inside = value.get("config") if isinstance(value, dict) else None
        if is_layer(own):
            if isinstance(inside, dict):
                found[key] = {**value, "config": _with_functions(own, inside)}
        elif is_own_function(own) and (isinstance(value, dict) or not by_name):
            found[key] = own
    return found


def _lambda_layer(layer: Any, config: dict[str, Any]) -> Any:
    """Make a Lambda; in a config its function would lose the names that it uses."""
    given = {key: config[key] for key in ("name", "trainable", "dtype")}
    return type(layer)(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        **given,
    )
