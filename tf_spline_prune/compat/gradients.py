"""Derivatives of a loss by a model's weights: the one place that differentiates."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.call_graph import Graph, pack
from tf_spline_prune.compat.execution import backend_of, to_numpy
from tf_spline_prune.compat.flavour import flavour_of
from tf_spline_prune.compat.kinds import is_sequential
from tf_spline_prune.compat.tracing import trace
from tf_spline_prune.compat.weights import weight_variables
from tf_spline_prune.errors import CalibrationError, FlavourError

Gradients = dict[str, dict[str, np.ndarray]]
ValueAndGrad = Callable[[list[np.ndarray], Any], tuple[float, Gradients]]
_COMPILE_UTILS = {
    "keras": "keras.src.trainers.compile_utils",
    "tf_keras": "tf_keras.src.engine.compile_utils",
}


def value_and_grad(
    model: Any,
    loss: Any = None,
    weights: Mapping[str, Iterable[str]] | None = None,
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

    Returns:
        A function that takes inputs (one array an input) and labels, and gives
        the loss and, by layer path and weight name, its gradient.

    Raises:
        ValueError: If there is no loss.
        FlavourError: If Keras runs on a backend whose gradients are not read.
    """
    backend = backend_of(model)
    if backend not in ("tensorflow", "jax"):
        raise FlavourError(
            "Gradients are taken on the backends tensorflow and jax. Set KERAS_BACKEND "
            f"before the first import of keras. Received: the backend {backend!r}"
        )
    graph = trace(model)
    places, variables = _chosen(graph, weights)
    loss_of = _loss_function(model, *_given_or_compiled(model, loss))
    structure = None if is_sequential(model) else graph.structure[0]

    def total(inputs: list[Any], labels: Any) -> Any:
        given = inputs[0] if structure is None else pack(structure, inputs)
        return loss_of(labels, model(given, training=False))

    make = _on_tensorflow if backend == "tensorflow" else _on_jax
    step = make(total, model, variables)
    tried = False

    def function(inputs: list[np.ndarray], labels: Any) -> tuple[float, Gradients]:
        nonlocal tried
        if not tried:
            # Losses of several outputs make variables of their own at the first run.
            _try(total, inputs, labels)
            tried = True
        value, gradients = step(inputs, labels)
        found: Gradients = {path: {} for path, _ in places}
        for (path, name), gradient in zip(places, gradients, strict=True):
            found[path][name] = to_numpy(gradient)
        return float(to_numpy(value)), found

    return function


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


def _loss_function(model: Any, loss: Any, loss_weights: Any) -> Callable[..., Any]:
    """Make of a loss what `compile` makes of it, in an object of our own."""
    flavour = str(flavour_of(model))
    utils = importlib.import_module(_COMPILE_UTILS[flavour])
    cls = utils.LossesContainer if flavour == "tf_keras" else utils.CompileLoss
    names = getattr(model, "output_names", None)
    function: Callable[..., Any] = cls(loss, loss_weights, output_names=names)
    return function


def _chosen(
    graph: Graph, weights: Mapping[str, Iterable[str]] | None
) -> tuple[list[tuple[str, str]], list[Any]]:
    """List the weights to differentiate by, and the variables that hold them."""
    found: dict[tuple[str, str], Any] = {}
    for path, layer in {call.path: call.layer for call in graph.leaves()}.items():
        for name, variable in weight_variables(layer).items():
            dtype = str(getattr(variable.dtype, "name", variable.dtype))
            asked = weights is None or name in weights.get(path, ())
            if asked and dtype.startswith(("float", "bfloat")):
                found[path, name] = variable
    return list(found), list(found.values())


def _try(total: Callable[..., Any], inputs: list[np.ndarray], labels: Any) -> None:
    """Compute the loss of one example, so that what does not fit is told clearly."""
    first = keras.tree.map_structure(lambda y: _tensor(y[:1]), labels)
    try:
        value = total([_tensor(x[:1]) for x in inputs], first)
    except Exception as error:  # whatever a loss raises on labels that do not fit
        shapes = keras.tree.map_structure(lambda y: (y.shape, str(y.dtype)), labels)
        raise CalibrationError(
            "The loss cannot be computed from these labels. Give them as `fit` takes "
            f"them. Received: labels of shape and dtype {shapes}, on which the loss "
            f"raised {type(error).__name__}: {error}"
        ) from error
    if tuple(value.shape):
        raise CalibrationError(
            "The loss must be one number for a batch. Received: shape "
            f"{tuple(value.shape)}"
        )


def _tensor(array: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(array)


def _on_tensorflow(
    total: Callable[..., Any], model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import tensorflow as tf

    held = [getattr(variable, "_value", variable) for variable in variables]

    @tf.function(reduce_retracing=True)
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(held)
            value = total(inputs, labels)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(value, held, unconnected_gradients=zero)
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def run(inputs: list[np.ndarray], labels: Any) -> Any:
        given = [tf.convert_to_tensor(x) for x in inputs]
        return step(given, keras.tree.map_structure(tf.convert_to_tensor, labels))

    return run


def _on_jax(
    total: Callable[..., Any], model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import jax

    chosen = {id(variable) for variable in variables}
    rest = [variable for variable in model.variables if id(variable) not in chosen]

    def value(values: Any, others: Any, inputs: Any, labels: Any) -> Any:
        pairs = [*zip(variables, values, strict=True), *zip(rest, others, strict=True)]
        with keras.StatelessScope(state_mapping=pairs):
            return total(inputs, labels)

    step = jax.jit(jax.value_and_grad(value))

    def run(inputs: list[np.ndarray], labels: Any) -> Any:
        values = [variable.value for variable in variables]
        return step(values, [variable.value for variable in rest], inputs, labels)

    return run
