"""Running Keras' own distillation, and leaving both models as they were."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from tf_spline_prune.compat.flavour import activation_name, require_flavour
from tf_spline_prune.compat.tracing import trace
from tf_spline_prune.errors import FlavourError


def require_distillation(*models: Any) -> Any:
    """Give Keras' module for distillation, if there is one for the models.

    Args:
        *models: Models that take part.

    Returns:
        The module `keras.distillation`.

    Raises:
        FlavourError: If a model is no Keras 3 model, or this Keras has no
            distillation.
    """
    for model in models:
        if require_flavour(model) != "keras":
            raise FlavourError(
                "Distillation is done by `keras.distillation`, which belongs to Keras "
                "3; `tf_keras` has none. Build both models with `keras`, or write the "
                f"training step yourself. Received: tf_keras model {model.name!r}."
            )
    found = getattr(keras, "distillation", None)
    if not hasattr(found, "Distiller"):
        raise FlavourError(
            "Distillation needs a Keras that has `keras.distillation` (3.13 or "
            f"later). Received: keras {keras.__version__}."
        )
    return found


def softmax_outputs(model: Any) -> list[str]:
    """Name the layers that give a model's outputs by a softmax or a sigmoid.

    Args:
        model: A built Keras 3 model.

    Returns:
        Paths of layers.
    """
    graph = trace(model)
    ends = graph.ends()
    found = []
    for call in graph.leaves():
        name = activation_name(getattr(call.layer, "activation", None))
        squashes = name in ("softmax", "sigmoid", "log_softmax")
        if call.name in ends and (
            squashes or call.kind in ("Softmax", "op:softmax", "op:sigmoid")
        ):
            found.append(call.path)
    return found


@contextlib.contextmanager
def trainability_kept(model: Any) -> Iterator[None]:
    """Give every layer and weight of a model its `trainable` back afterwards.

    Args:
        model: A Keras 3 model, which may be frozen whole in between.
    """
    layers = [(layer, layer._trainable) for layer in model._flatten_layers()]
    weights = [(weight, weight.trainable) for weight in model.weights]
    try:
        yield
    finally:
        for layer, trainable in layers:
            layer._trainable = trainable
        for weight, trainable in weights:
            weight.trainable = trainable
