"""A small model around one layer, to try the layer out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.compat._flavour import keras_of
from tf_spline_prune.compat._kinds import is_layer
from tf_spline_prune.errors import FlavourError


def require_layer(layer: Any) -> None:
    """Raise `FlavourError` unless an object is a layer of either flavour."""
    if not is_layer(layer):
        raise FlavourError(
            "Expected a layer of `keras` or `tf_keras`, not its class. Received: "
            f"{received(layer)}"
        )


def probe_model(
    layer: Any, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> Any:
    """Put a copy of a layer between layers that make units and one that reads.

    Args:
        layer: A layer of either flavour.
        shapes: Shape of each of its inputs, the batch axis left out.
        rng: Draws the weights.

    Returns:
        A model of the layer's flavour: for each input a `Dense` on the last axis,
        the layer, and for each output a `Dense` on all of its entries.
    """
    keras = keras_of(layer)
    inputs = [keras.Input(shape) for shape in shapes]
    units = [
        keras.layers.Dense(shape[-1], name=f"units_{i}")(x)
        for i, (x, shape) in enumerate(zip(inputs, shapes, strict=True))
    ]
    copy = type(layer).from_config(layer.get_config())
    outputs = copy(units[0] if len(units) == 1 else units)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    read = [
        keras.layers.Dense(3, name=f"reader_{i}")(keras.layers.Flatten()(y))
        for i, y in enumerate(outputs)
    ]
    model = keras.Model(inputs, read)
    for variable in model.weights:
        shape = tuple(variable.shape)
        values = rng.normal(0.0, 1.0 / np.sqrt(max(1, np.prod(shape[:-1]))), shape)
        if "variance" in variable.name:
            values = rng.uniform(0.5, 2.0, shape)
        variable.assign(values.astype("float32"))
    return model
