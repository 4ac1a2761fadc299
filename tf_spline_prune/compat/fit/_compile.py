"""Running Keras' own distillation, and leaving both models as they were."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from tf_spline_prune.compat._flavour import activation_name, require_flavour
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.tfmot._tfmot import register_class
from tf_spline_prune.errors import FlavourError, SplinePruneWarning, warn


def is_compiled(model: Any) -> bool:
    """Return whether a model of either flavour is compiled."""
    return bool(
        getattr(model, "compiled", False) or getattr(model, "_is_compiled", False)
    )


def compile_alike(model: Any, copy: Any) -> None:
    """Compile a copy with the optimizer, losses and metrics of a model, made anew.

    Args:
        model: A model of either flavour; nothing happens if it is not compiled.
        copy: A model of the same flavour and outputs.
    """
    if not is_compiled(model):
        return
    try:
        with warnings.catch_warnings():
            # That a lambda is not safe in a file: no file is written.
            warnings.filterwarnings("ignore", ".*includes a `lambda`", UserWarning)
            config = model.get_compile_config()
        if config:
            copy.compile_from_config(config)
        return
    except Exception:  # a function or a class has no name that Keras knows
        given = model._compile_config.config
    try:
        copy.compile(**{name: _anew(value) for name, value in given.items()})
    except Exception as error:  # whatever a user's loss or metric raises
        warn(
            "The copy is not compiled, because its compile settings cannot be "
            f"recreated ({type(error).__name__}: {error}). Compile it.",
            SplinePruneWarning,
        )


def _anew(value: Any) -> Any:
    """Make an argument of `compile` anew: objects from their configs, all else kept."""

    def made(leaf: Any) -> Any:
        if hasattr(leaf, "get_config") and not isinstance(leaf, type):
            return type(leaf).from_config(leaf.get_config())
        return leaf

    return keras.tree.map_structure(made, value)


def require_distillation(*models: Any) -> Any:
    """Return Keras' module for distillation, if there is one for the models.

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
    """List the layers that return a model's outputs by a softmax or a sigmoid.

    Args:
        model: A built Keras 3 model.

    Returns:
        Paths of layers.
    """
    graph = trace(model)
    ends = graph.ends()
    found = []
    for call in graph.calls:
        name = activation_name(getattr(call.layer, "activation", None))
        squashes = name in ("softmax", "sigmoid", "log_softmax")
        if call.name in ends and (
            squashes or call.kind in ("Softmax", "op:softmax", "op:sigmoid")
        ):
            found.append(call.path)
    return found


@contextlib.contextmanager
def trainability_kept(model: Any) -> Iterator[None]:
    """Restore `trainable` of every layer and weight of a model afterwards.

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


@functools.cache
def initializer_base(package: str) -> type:
    """Return a class that both flavours take for an initializer of their own.

    tf_keras warns of any other when it writes the config of a layer. It need not be
    installed, and is not imported for this: who uses it has done so.

    Args:
        package: Under which subclasses are registered, as in `register_class`.

    Returns:
        A class derived from `keras.initializers.Initializer`, and from that of
        tf_keras as soon as an instance is made where tf_keras is imported.
    """
    own: Any = keras.initializers.Initializer

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        if "tf_keras" in sys.modules and base.__bases__ == (own,):
            base.__bases__ = (own, sys.modules["tf_keras"].initializers.Initializer)
            register_class(cls, package)
        return object.__new__(cls)

    base = type("Initializer", (own,), {"__new__": new})
    return base
