"""TFMOT's wrappers: made with masks that rest, and driven from outside."""

from typing import Any

import keras

from tf_spline_prune.compat.mask_slots import hold, mask_wrappers
from tf_spline_prune.compat.tfmot import import_tfmot
from tf_spline_prune.compat.weights import values_of

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

    Their own schedules never fire any more, and their step counters are set, without
    which they refuse to train, those around layers without weights too. Our own
    wrappers need nothing of this.

    Args:
        model: A model of either flavour.

    Returns:
        Whether there are any.
    """
    wrappers = [w for w in mask_wrappers(model) if hasattr(w, "pruning_obj")]
    if not wrappers:
        return False
    sparsity = import_tfmot().sparsity.keras
    never = sparsity.ConstantSparsity(0.0, begin_step=_NEVER)
    for wrapper in wrappers:
        wrapper.pruning_obj._pruning_schedule = never
        if values_of(wrapper.pruning_step) < 0:
            wrapper.pruning_step.assign(0)
        _leave_weights_alone(wrapper.pruning_obj)
        hold(wrapper)
    return True


def _leave_weights_alone(pruning: Any) -> None:
    """Let a wrapper's forward pass write no weights and no masks.

    The constraints hold the zeros, so what it writes is time lost. Under a
    distribution strategy it would also average the masked weights over all replicas,
    which are equal, and fail in mixed precision and outside the strategy's scope.
    """
    import tensorflow as tf

    pruning.weight_mask_op = tf.no_op
    pruning.conditional_mask_update = tf.no_op


def take_over(model: Any) -> None:
    """Drive the wrappers of a model that is about to train.

    Args:
        model: The model, in `fit`.
    """
    if drive(model):
        model.make_train_function(force=True)  # a traced one would go on as before
