"""Configs for layers whose own `get_config` does not build them again."""

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import flavour_of, is_layer
from tf_spline_prune.compat._weights import write_weights
from tf_spline_prune.compat.data._samples import random_inputs
from tf_spline_prune.compat.graph._blueprint import Node
from tf_spline_prune.compat.run._states import same_randomness

# What every layer takes besides its own arguments.
_EVERY = ("name", "trainable", "dtype")
_ABSENT = object()
# Layers for windows want a multiple of their number.
_BATCHES = (1, 3, 48)
_PLAIN = (bool, int, float, str, type(None))


def mended_config(node: Node, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find a config from which the class of a layer makes the same layer (Keras 3).

    A `get_config` may name what `__init__` does not take, or leave out what it takes,
    so that Keras itself cannot load the layer. The entries that `__init__` takes are
    kept, the others read off the attributes of the same names; then a layer that is
    made so, and given the weights, has to give what the layer gives.

    Args:
        node: A use of the layer.
        told: What its `get_config` says, if anything.

    Returns:
        The config; `None` if none was found.
    """
    layer = node.layer
    if flavour_of(layer) != "keras" or _reads_configs_itself(layer):
        return None
    config = {key: told[key] for key in _EVERY if key in told}
    config.setdefault("name", layer.name)
    config.setdefault("trainable", layer.trainable)
    config.setdefault("dtype", keras.dtype_policies.serialize(layer.dtype_policy))
    for name, parameter in _parameters(layer).items():
        if name in config or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name in told and not is_layer(told[name]):
            config[name] = told[name]
        elif _is_plain(value := getattr(layer, name, _ABSENT)):
            config[name] = value
        elif parameter.default is parameter.empty:
            return None
    return config if _gives_the_same(node, config) else None


def completed(layer: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a config what `__init__` takes besides, from the attributes of the layer.

    Args:
        layer: A layer of Keras 3.
        told: What its `get_config` says.

    Returns:
        The config; as it was, if it lacks nothing that is a plain value.
    """
    if _reads_configs_itself(layer):
        return dict(told)
    found = {
        name: getattr(layer, name, getattr(layer, f"_{name}", _ABSENT))
        for name, parameter in _parameters(layer).items()
        if name not in told and parameter.kind is not parameter.VAR_KEYWORD
    }
    return {**told, **{key: value for key, value in found.items() if _is_plain(value)}}


class _Said:
    """A `get_config` that returns what it was told; a partial has another meaning."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def __call__(self) -> dict[str, Any]:
        return dict(self.config)


def told_config(layer: Any, config: Mapping[str, Any]) -> None:
    """Let a layer say a config that its class does not say, so that it can be saved.

    Args:
        layer: A layer.
        config: What its `get_config` is to return.
    """
    layer.get_config = _Said(config)


def is_told(layer: Any) -> bool:
    """Return whether a layer says a config that its class does not say."""
    return "get_config" in vars(layer)


def _reads_configs_itself(layer: Any) -> bool:
    """Return whether a class has a `from_config` other than that of all layers."""
    return type(layer).from_config.__func__ is not keras.Operation.from_config.__func__


def _parameters(layer: Any) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(type(layer).__init__).parameters.items())[1:])


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _gives_the_same(node: Node, config: dict[str, Any]) -> bool:
    """Make a layer from a config, and compare what it gives, in training too."""
    layer = node.layer
    specs = {
        str(identity): (shape, dtype)
        for identity, shape, dtype in zip(
            node.inputs, node.input_shapes, node.input_dtypes, strict=True
        )
    }
    compared = 0
    try:
        twin = type(layer).from_config(config)
        for batch, training in itertools.product(_BATCHES, (False, True)):
            drawn = random_inputs(specs, batch, seed=batch).items()
            values = {int(i): keras.ops.convert_to_tensor(x) for i, x in drawn}
            args, kwargs = node.fill(values)
            kwargs = {**kwargs, "training": training}
            try:
                expected = _given(layer, args, kwargs)
            except Exception:  # some take only some sizes of a batch
                continue
            if not twin.built or len(twin.weights) != len(layer.weights):
                twin(*args, **kwargs)
            write_weights(twin, [np.asarray(w) for w in layer.get_weights()])
            pairs = zip(expected, _given(twin, args, kwargs), strict=True)
            if not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
                return False
            compared += 1
    except Exception:  # whatever a layer raises
        return False
    return compared > 0


def _given(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    with same_randomness(layer):
        outputs = keras.tree.flatten(layer(*args, **kwargs))
    return [keras.ops.convert_to_numpy(output) for output in outputs]
