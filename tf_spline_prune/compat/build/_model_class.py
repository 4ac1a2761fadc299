"""The class of a model that is built again: the user's own, where that is possible."""

import functools
import inspect
from types import ModuleType
from typing import Any

import keras

from tf_spline_prune.compat._flavour import (
    calls_as_keras,
    flavour_of,
    is_sequential,
    keras_of,
    own_names,
)
from tf_spline_prune.compat.graph._symbolic import adds_losses
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.errors import SplinePruneWarning, warn

# What decides how a model trains.
_TRAINING = frozenset(
    ("train_step", "test_step", "predict_step", "make_train_function", "compile")
    + ("compute_loss", "compute_metrics", "metrics", "fit", "evaluate", "predict")
)
_VALUES = (bool, int, float, str, tuple, type(None))


def build_as(model: Any, *parts: Any, name: str) -> Any:
    """Build a model of the class of another one, or a plain one.

    A user's class is kept where its constructor takes what Keras' own takes, and
    gives an object with the same settings; any other needs more than a graph.

    Args:
        model: A model of either flavour, or a layer whose graph is built as a model.
        *parts: Inputs and outputs, or the layers of a Sequential.
        name: Its name.

    Returns:
        The new model.
    """
    package = keras_of(model)
    cls = type(model)
    if own_names(cls) and calls_as_keras(model) and _takes_graph(cls):
        try:
            made = cls(*parts, name=name)
            if _is_made_of(made, *parts) and _settings(made) == _settings(model):
                return made
        except Exception:  # whatever a user's constructor raises
            pass
    plain = package.Model if len(parts) > 1 else package.Sequential
    return plain(*parts, name=name)


def _takes_graph(cls: Any) -> bool:
    """Return whether a constructor has no arguments but those of Keras' own."""
    given = list(inspect.signature(cls.__init__).parameters.values())[1:]
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {one.name for one in given if one.kind not in open_ended}
    return named <= {"inputs", "outputs", "layers", "name", "trainable"}


def _is_made_of(made: Any, *parts: Any) -> bool:
    """Return whether a model is made of these parts, and not of its own."""
    held = [made.inputs, made.outputs] if len(parts) > 1 else [made.layers]
    given = [keras.tree.flatten(part) for part in parts]
    if len(parts) == 1:
        given = [[layer for layer in given[0] if not hasattr(layer, "_keras_history")]]
    pairs = zip(held, given, strict=True)
    return all(list(map(id, have)) == list(map(id, want)) for have, want in pairs)


def _settings(model: Any) -> dict[str, Any]:
    """Return the plain values that the user's class has set on a model."""
    keras_own = _keras_own(keras_of(model), is_sequential(model))
    return {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, _VALUES) and name not in keras_own and name[0] != "_"
    }


@functools.cache
def _keras_own(package: ModuleType, sequential: bool) -> frozenset[str]:
    """List what Keras itself sets on a model that is compiled and trained."""
    tensor = package.Input((1,))
    bare = package.Sequential() if sequential else package.Model(tensor, tensor)
    bare.compile("sgd", "mse")
    return frozenset({*vars(bare), "history", "stop_training"})


def warn_of_lost_training(model: Any, made: Any) -> None:
    """Warn if a user's `train_step`, or the like, is lost in what was built.

    Args:
        model: The model that was given.
        made: The one that is handed out in its place.
    """
    if adds_losses(model):
        warn(
            "The result is without the losses that the model adds to its own, by a "
            "function or in its `call`: it trains without them. Put them into a layer, "
            "whose `call` adds them to the layer. Received: model "
            f"{model.name!r}",
            SplinePruneWarning,
        )
    own_call = flavour_of(model) == "keras" and not calls_as_keras(model)
    if own_call and trace(made).blueprint.trains():
        warn(
            "The `call` of this subclassed model tells layers to train whenever it is "
            "run. In the result, which is functional, Keras decides: `predict` and "
            "`evaluate` answer as in inference, and calling it, `result(x)`, as the "
            f"model does. Received: model {model.name!r}",
            SplinePruneWarning,
        )
    lost = sorted(_TRAINING & own_names(type(model)))
    if lost and not isinstance(made, type(model)):
        names = ", ".join(f"`{name}`" for name in lost)
        warn(
            f"The result is a plain model without the {names} of the class "
            f"{type(model).__name__}: it trains as Keras' own models do. A class is "
            "kept if its models are made of inputs and outputs alone, `MyModel(inputs, "
            "outputs)`, and it has no `call` of its own. Received: model "
            f"{model.name!r}",
            SplinePruneWarning,
        )
