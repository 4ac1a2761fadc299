"""TFMOT's wrappers: made with masks that rest, and driven from outside."""

import inspect
import types
from collections.abc import Callable
from typing import Any

import keras

from tf_spline_prune.compat.mask_slots import hold, mask_wrappers
from tf_spline_prune.compat.tfmot import import_tfmot

# A step that no training reaches.
_NEVER = 2**40


def wrap_with_tfmot(layer: Any) -> Any:
    """Wrap a layer of tf_keras with TFMOT's masks, that never fire by themselves.

    Args:
        layer: A built layer of tf_keras.

    Returns:
        TFMOT's wrapper; its own class finds its schedule when it is loaded.

    Raises:
        ValueError: If TFMOT does not take this kind of layer, or would lose a mask
            of timesteps that the layer reads, makes or hands on.
    """
    if _hands_timesteps_on(layer):
        raise ValueError(f"a mask of timesteps would be lost at {layer.name!r}")
    sparsity = import_tfmot().sparsity.keras
    return sparsity.prune_low_magnitude(
        layer,
        sparsity.ConstantSparsity(0.0, begin_step=_NEVER),
        dtype=layer.dtype_policy,  # it runs the layer under its own policy
    )


def _hands_timesteps_on(layer: Any) -> bool:
    """Tell whether a mask of timesteps goes into a layer, or comes out of it."""
    return any(
        getattr(tensor, "_keras_mask", None) is not None
        for node in layer._inbound_nodes
        for tensor in (*node.keras_inputs, *keras.tree.flatten(node.outputs))
    )


def drive(model: Any) -> bool:
    """Let TFMOT's wrappers rest, and hold their masks after every step.

    Their forward pass is that of their layers from then on; by itself it counts steps,
    masks and writes weights, and refuses to train without a callback of TFMOT's. Our
    own wrappers need nothing of this.

    Args:
        model: A model of either flavour.

    Returns:
        Whether there are any.
    """
    wrappers = [w for w in mask_wrappers(model) if hasattr(w, "pruning_obj")]
    for wrapper in wrappers:
        # A method, for a SavedModel drops the first argument of what it traces.
        wrapper.call = types.MethodType(_call_of(wrapper.layer), wrapper)
        hold(wrapper)
    return bool(wrappers)


def _call_of(layer: Any) -> Callable[..., Any]:
    """Give the call of a layer the arguments that TFMOT's wrapper takes."""
    in_training = "training" in inspect.signature(layer.call).parameters

    def call(self: Any, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        if in_training:
            kwargs["training"] = training
        return layer.call(inputs, **kwargs)

    return call


def take_over(model: Any) -> None:
    """Drive the wrappers of a model that is about to train.

    Args:
        model: The model, in `fit`.
    """
    if drive(model):
        model.make_train_function(force=True)  # a traced one would go on as before
