"""Compiling a copy of a model as the model is compiled."""

from typing import Any

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
    config = model.get_compile_config() if is_compiled(model) else None
    if not config:
        return
    try:
        copy.compile_from_config(config)
    except Exception as error:  # whatever a user's loss or metric raises
        warn(
            "The copy is not compiled, because what the model was compiled with "
            f"cannot be made anew ({type(error).__name__}: {error}). Compile it.",
            SplinePruneWarning,
        )
