"""Derivatives of a loss by a model's weights."""

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import flavour_of, is_sequential
from tf_spline_prune.compat.autodiff._differentiation import (
    Products,
    Total,
    ValueAndGrad,
    Weights,
    hessian_products,
    weight_gradients,
)
from tf_spline_prune.compat.graph._blueprint import pack
from tf_spline_prune.compat.graph._graph import fixed_size
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.run._states import states_kept
from tf_spline_prune.errors import CalibrationError

_COMPILE_UTILS = {
    "keras": "keras.src.trainers.compile_utils",
    "tf_keras": "tf_keras.src.engine.compile_utils",
}


def value_and_grad(
    model: Any,
    loss: Any = None,
    weights: Weights | None = None,
    answer: Callable[[list[Any]], Any] | None = None,
) -> ValueAndGrad:
    """Make a function that differentiates a loss by a model's weights.

    The model runs in inference mode: BatchNormalization works on its moving
    statistics and Dropout lets everything through. Frozen layers have gradients
    as all others do. Penalties on weights or activations are not part of the
    loss. The weights are read at every run, and nothing of the model changes.

    Args:
        model: A built model of either flavour.
        loss: What `compile` takes as `loss`: a name, a Keras loss, a function
            `loss(y_true, y_pred)`, or a list or dict of these; `None` takes the
            loss that the model was compiled with.
        weights: For each layer's path the names of the weights to differentiate
            by; `None` takes all that hold floating-point numbers.
        answer: Computes from the inputs, one tensor each, by the layers of `model`
            what the loss looks at; `None` takes the model's outputs.

    Returns:
        A function that takes inputs (one array per input) and labels, and gives
        the loss and, by layer path and weight name, its gradient.

    Raises:
        ValueError: If there is no loss.
        FlavourError: If Keras runs on a backend whose gradients are not read.
    """
    total = _loss_total(model, loss, answer)
    return _after_a_trial(total, model, weight_gradients(total, model, weights))


def loss_hessian_products(
    model: Any,
    loss: Any = None,
    weights: Weights | None = None,
    answer: Callable[[list[Any]], Any] | None = None,
) -> Products:
    """Make a function that multiplies the Hessian of a loss by a vector.

    Args:
        model: As in `value_and_grad`.
        loss: As in `value_and_grad`.
        weights: As in `value_and_grad`.
        answer: As in `value_and_grad`.

    Returns:
        As `hessian_products`.

    Raises:
        ValueError: If there is no loss.
        FlavourError: If Keras runs on a backend whose gradients are not read.
    """
    total = _loss_total(model, loss, answer)
    return _after_a_trial(total, model, hessian_products(total, model, weights))


def _loss_total(
    model: Any, loss: Any, answer: Callable[[list[Any]], Any] | None
) -> Total:
    """Make a function that computes the loss of a batch, in inference mode."""
    loss_of = _loss_function(model, loss)
    structure = None if is_sequential(model) else trace(model).blueprint.structure[0]

    def outputs(inputs: list[Any]) -> Any:
        given = inputs[0] if structure is None else pack(structure, inputs)
        return model(given, training=False)

    answer = answer or outputs
    return lambda inputs, labels: loss_of(labels, answer(inputs))


def _after_a_trial(total: Total, model: Any, step: Any) -> Any:
    tried = False
    count = fixed_size(trace(model).inputs) or 1

    def function(inputs: list[np.ndarray], labels: Any, *others: Any) -> Any:
        nonlocal tried
        if not tried:
            # Losses of several outputs make variables of their own at the first run.
            with states_kept(model):
                _try(total, inputs, labels, count)
            tried = True
        return step(inputs, labels, *others)

    return function


def loss_of_outputs(model: Any) -> Callable[[Any, list[Any]], float] | None:
    """Make a function that computes the loss that a model was compiled with.

    Args:
        model: A model of either flavour.

    Returns:
        A function that takes labels and outputs, one tensor each, and gives the mean
        loss; it raises `CalibrationError` if the labels do not fit. `None` if the
        model is not compiled with a loss.
    """
    if _compiled_loss(model)[0] is None:
        return None
    loss_of = _loss_function(model, None)
    structure = trace(model).blueprint.structure[1]

    def total(outputs: list[Any], labels: Any) -> Any:
        packed = outputs[0] if is_sequential(model) else pack(structure, outputs)
        return loss_of(labels, packed)

    tried = False

    def value(labels: Any, outputs: list[Any]) -> float:
        nonlocal tried
        if not tried:
            _try(total, outputs, labels, len(outputs[0]))
            tried = True
        return float(total(outputs, keras.tree.map_structure(_tensor, labels)))

    return value


def require_loss(model: Any, loss: Any) -> None:
    """Check that there is a loss.

    Args:
        model: A model of either flavour.
        loss: As in `value_and_grad`.

    Raises:
        ValueError: If neither is a loss given nor the model compiled with one.
    """
    _given_or_compiled(model, loss)


def hand_on_loss(source: Any, target: Any) -> None:
    """Compile a copy of a model with the loss of the original, if it has one.

    Args:
        source: The original.
        target: The copy, which is compiled anew.
    """
    loss, loss_weights = _compiled_loss(source)
    if loss is not None:
        target.compile(loss=loss, loss_weights=loss_weights)


def _compiled_loss(model: Any) -> tuple[Any, Any]:
    """Find the loss that a model was compiled with, as the user gave it."""
    if flavour_of(model) == "tf_keras":
        held = getattr(model, "compiled_loss", None)
        loss = getattr(held, "_user_losses", None)
    else:
        held = getattr(model, "_compile_loss", None)
        loss = getattr(held, "_user_loss", None)
    return loss, getattr(held, "_user_loss_weights", None)


def _given_or_compiled(model: Any, loss: Any) -> tuple[Any, Any]:
    """Find the loss, and the weights of the losses of several outputs."""
    if loss is not None:
        return loss, None
    found, loss_weights = _compiled_loss(model)
    if found is None:
        raise ValueError(
            "A loss is needed. Pass `loss=` to the criterion, such as "
            '`loss="sparse_categorical_crossentropy"`, or compile the model with one. '
            f"Received: loss=None and model {model.name!r}, which is not compiled "
            "with a loss."
        )
    return found, loss_weights


def _loss_function(model: Any, loss: Any) -> Callable[..., Any]:
    """Make of a loss what `compile` makes of it, in an object of its own."""
    loss, loss_weights = _given_or_compiled(model, loss)
    flavour = str(flavour_of(model))
    utils = importlib.import_module(_COMPILE_UTILS[flavour])
    cls = utils.LossesContainer if flavour == "tf_keras" else utils.CompileLoss
    names = getattr(model, "output_names", None)
    function: Callable[..., Any] = cls(loss, loss_weights, output_names=names)
    return function if flavour == "tf_keras" else _exactly(function)


def _exactly(function: Any) -> Callable[[Any, Any], Any]:
    """Let losses of Keras 3 compute in float64 where outputs are; they would not."""

    def in_float64(loss: Any) -> Any:
        # It may be a user's, and `copy.copy` would go by its config.
        twin = object.__new__(type(loss))
        vars(twin).update(vars(loss), _dtype="float64")
        return twin

    def exact(labels: Any, outputs: Any) -> Any:
        if not function.built:
            function(labels, outputs)
            first = keras.tree.flatten(outputs)[0]
            if keras.backend.standardize_dtype(first.dtype) == "float64":
                function._dtype = "float64"
                function._flat_losses = [
                    one._replace(loss=in_float64(one.loss))
                    for one in function._flat_losses
                ]
        return function(labels, outputs)

    return exact


def _try(total: Total, inputs: list[np.ndarray], labels: Any, count: int) -> None:
    """Compute the loss of an example, so that what does not fit is told clearly."""
    first = keras.tree.map_structure(lambda y: _tensor(y[:count]), labels)
    try:
        value = total([_tensor(x[:count]) for x in inputs], first)
    except Exception as error:  # whatever a loss raises on labels that do not fit
        shapes = keras.tree.map_structure(lambda y: (y.shape, str(y.dtype)), labels)
        raise CalibrationError(
            "The loss cannot be computed from these labels. Give them as `fit` takes "
            f"them. Received: labels of shape and dtype {shapes}, on which the loss "
            f"raised {type(error).__name__}: {error}"
        ) from error
    if value is None:
        raise CalibrationError(
            "The loss must be one number for a batch; no output has one here. "
            "Received: a loss of None for every output"
        )
    if tuple(value.shape):
        raise CalibrationError(
            "The loss must be one number for a batch. Received: shape "
            f"{tuple(value.shape)}"
        )


def _tensor(array: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(array)
