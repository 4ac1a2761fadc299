"""Compiling a copy of a model as the model is compiled."""

import warnings
from typing import Any

import keras

from tf_spline_prune.errors import SplinePruneWarning, warn


def is_compiled(model: Any) -> bool:
    """Tell whether a model of either flavour is compiled."""
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
            "The copy is not compiled, because what the model was compiled with "
            f"cannot be made anew ({type(error).__name__}: {error}). Compile it.",
            SplinePruneWarning,
        )


def _anew(value: Any) -> Any:
    """Make an argument of `compile` anew: objects from their configs, all else kept."""

    def made(leaf: Any) -> Any:
        if hasattr(leaf, "get_config") and not isinstance(leaf, type):
            return type(leaf).from_config(leaf.get_config())
        return leaf

    return keras.tree.map_structure(made, value)
