"""Differentiating any scalar of a model by its weights, once and twice."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._weights import weight_variables
from tf_spline_prune.compat.graph._graph import Graph
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.run._execution import backend_of, graph_function, to_numpy
from tf_spline_prune.compat.run._states import states_kept
from tf_spline_prune.errors import FlavourError

Gradients = dict[str, dict[str, np.ndarray]]
Weights = Mapping[str, Iterable[str]]
# From the inputs of a batch, one tensor each, and its labels to one number.
Total = Callable[[list[Any], Any], Any]
ValueAndGrad = Callable[[list[np.ndarray], Any], tuple[float, Gradients]]
Products = Callable[[list[np.ndarray], Any, Gradients], Gradients]


def weight_gradients(
    total: Total, model: Any, weights: Weights | None = None
) -> ValueAndGrad:
    """Make a function that differentiates a scalar by a model's weights.

    The weights are read at every run.

    Args:
        total: Computes the scalar by the layers of `model`.
        model: A built model of either flavour.
        weights: For each layer's path the names of the weights to differentiate
            by; `None` takes all that hold floating-point numbers.

    Returns:
        A function that takes inputs (one array per input) and labels, and gives
        the scalar and, by layer path and weight name, its gradient.

    Raises:
        FlavourError: If Keras runs on a backend whose gradients are not read.
    """
    places, variables = _chosen(trace(model), weights)
    make = _gradients_on_tensorflow if _backend(model) else _gradients_on_jax
    step = make(total, model, variables)

    def function(inputs: list[np.ndarray], labels: Any) -> tuple[float, Gradients]:
        with states_kept(model):
            value, gradients = step(inputs, labels)
        return float(to_numpy(value)), _by_place(places, gradients)

    return function


def hessian_products(
    total: Total, model: Any, weights: Weights | None = None
) -> Products:
    """Make a function that multiplies the Hessian of a scalar by a vector.

    Args:
        total: As in `weight_gradients`.
        model: As in `weight_gradients`.
        weights: As in `weight_gradients`.

    Returns:
        A function that takes inputs, labels and a vector (by layer path and weight
        name), and gives the product in the same form.

    Raises:
        FlavourError: If Keras runs on a backend whose gradients are not read.
    """
    places, variables = _chosen(trace(model), weights)
    make = _products_on_tensorflow if _backend(model) else _products_on_jax
    step = make(total, model, variables)

    def function(inputs: list[np.ndarray], labels: Any, vector: Gradients) -> Gradients:
        parts = [vector[path][name] for path, name in places]
        with states_kept(model):
            products = step(inputs, labels, parts)
        return _by_place(places, products)

    return function


def _backend(model: Any) -> bool:
    """Return whether TensorFlow differentiates, or else JAX."""
    backend = backend_of(model)
    if backend not in ("tensorflow", "jax"):
        raise FlavourError(
            "Gradients are taken on the backends tensorflow and jax. Set KERAS_BACKEND "
            "to one of them before the first import of keras. Received: the backend "
            f"{backend!r}"
        )
    return backend == "tensorflow"


def _by_place(places: list[tuple[str, str]], arrays: Any) -> Gradients:
    found: Gradients = {path: {} for path, _ in places}
    for (path, name), array in zip(places, arrays, strict=True):
        found[path][name] = to_numpy(array)
    return found


def _chosen(
    graph: Graph, weights: Mapping[str, Iterable[str]] | None
) -> tuple[list[tuple[str, str]], list[Any]]:
    """List the weights to differentiate by, and the variables that hold them."""
    found: dict[tuple[str, str], Any] = {}
    for path, layer in graph.layers.items():
        for name, variable in weight_variables(layer).items():
            dtype = str(getattr(variable.dtype, "name", variable.dtype))
            asked = weights is None or name in weights.get(path, ())
            if asked and dtype.startswith(("float", "bfloat")):
                found[path, name] = variable
    return list(found), list(found.values())


def _tensors(arrays: Any) -> Any:
    import tensorflow as tf

    return keras.tree.map_structure(tf.convert_to_tensor, arrays)


def _gradients_on_tensorflow(
    total: Total, model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import tensorflow as tf

    held = [getattr(variable, "_value", variable) for variable in variables]

    @graph_function
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(held)
            value = total(inputs, labels)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(value, held, unconnected_gradients=zero)
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return lambda inputs, labels: step(_tensors(list(inputs)), _tensors(labels))


def _products_on_tensorflow(
    total: Total, model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import tensorflow as tf

    held = [getattr(variable, "_value", variable) for variable in variables]
    zero = tf.UnconnectedGradients.ZERO

    @graph_function
    def step(inputs: Any, labels: Any, vector: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(held)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(held)
                value = total(inputs, labels)
            gradients = inner.gradient(value, held, unconnected_gradients=zero)
        products = outer.gradient(gradients, held, vector, unconnected_gradients=zero)
        return [tf.convert_to_tensor(product) for product in products]

    return lambda inputs, labels, vector: step(
        _tensors(list(inputs)), _tensors(labels), _tensors(vector)
    )


def _stateless(total: Total, model: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
    """Make of a scalar a function of the values of variables, and list the rest."""
    chosen = {id(variable) for variable in variables}
    rest = [variable for variable in model.variables if id(variable) not in chosen]

    def value(values: Any, others: Any, inputs: Any, labels: Any) -> Any:
        pairs = [*zip(variables, values, strict=True), *zip(rest, others, strict=True)]
        with keras.StatelessScope(state_mapping=pairs):
            return total(inputs, labels)

    return value, rest


def _gradients_on_jax(
    total: Total, model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import jax

    value, rest = _stateless(total, model, variables)
    step = jax.jit(jax.value_and_grad(value))

    def run(inputs: list[np.ndarray], labels: Any) -> Any:
        values = [variable.value for variable in variables]
        return step(values, [variable.value for variable in rest], inputs, labels)

    return run


def _products_on_jax(
    total: Total, model: Any, variables: list[Any]
) -> Callable[..., Any]:
    import jax

    value, rest = _stateless(total, model, variables)

    @jax.jit
    def step(values: Any, others: Any, inputs: Any, labels: Any, vector: Any) -> Any:
        def gradient(at: Any) -> Any:
            return jax.grad(value)(at, others, inputs, labels)

        return jax.jvp(gradient, (values,), (vector,))[1]

    def run(inputs: list[np.ndarray], labels: Any, vector: list[np.ndarray]) -> Any:
        values = [variable.value for variable in variables]
        others = [variable.value for variable in rest]
        return step(values, others, inputs, labels, vector)

    return run


Tensors = Callable[[Any], Any]
Jacobians = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def jacobians_of(function: Tensors, model: Any, inputs: int, outputs: int) -> Jacobians:
    """Make a function that gives outputs and Jacobians of a batch.

    One pass runs each example as often as the shorter side of its Jacobian is long:
    forward along each input, or backward from each output.

    Args:
        function: Maps a tensor of shape `(n, *input shape)` to one of shape
            `(n, *output shape)`, each example by itself.
        model: The model whose layers it calls.
        inputs: The numbers that one example holds.
        outputs: The numbers that one output holds.

    Returns:
        A function from an array to two: outputs of shape `(n, outputs)`, Jacobians
        of shape `(n, outputs, inputs)`.

    Raises:
        FlavourError: If Keras runs on a backend whose derivatives are not read.
    """
    backend = backend_of(model)
    if backend not in ("tensorflow", "jax"):
        raise FlavourError(
            "Jacobians are taken on the backends tensorflow and jax. Set KERAS_BACKEND "
            "to one of them before the first import of keras. Received: the backend "
            f"{backend!r}"
        )
    forward = inputs <= outputs
    make = _on_tensorflow if backend == "tensorflow" else _on_jax
    run = make(function, forward, inputs if forward else outputs)

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal forward, run
        try:
            tensors = run(x)
        except LookupError:  # TensorFlow resizes images backward only
            if not forward:
                raise
            forward, run = False, make(function, False, outputs)
            tensors = run(x)
        values, slopes = map(to_numpy, tensors)
        values = values.reshape(len(x), outputs)
        if not forward:
            return values, slopes.reshape(len(x), outputs, inputs)
        return values, slopes.reshape(len(x), inputs, outputs).swapaxes(1, 2)

    return both


def _on_tensorflow(function: Tensors, forward: bool, times: int) -> Tensors:
    import tensorflow as tf

    zero = tf.UnconnectedGradients.ZERO

    def basis(tensor: Any) -> Any:
        """Assign each copy of an example a direction of its own."""
        size = math.prod(tensor.shape[1:])
        rows = tf.tile(tf.eye(size, dtype=tensor.dtype), [len(tensor) // size, 1])
        return tf.reshape(rows, tensor.shape)

    def run(x: np.ndarray) -> Any:
        copies = tf.repeat(tf.convert_to_tensor(x), times, axis=0)
        if forward:
            with tf.autodiff.ForwardAccumulator(copies, basis(copies)) as accumulator:
                values = function(copies)
            slopes = accumulator.jvp(values, unconnected_gradients=zero)
        else:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(copies)
                values = function(copies)
            slopes = tape.gradient(
                values, copies, basis(values), unconnected_gradients=zero
            )
        return values[::times], slopes

    return run


def _on_jax(function: Tensors, forward: bool, times: int) -> Tensors:
    import jax

    def one(x: Any) -> tuple[Any, Any]:
        values = function(x[None])[0].ravel()
        return values, values

    take = jax.jacfwd if forward else jax.jacrev
    each = jax.jit(jax.vmap(take(one, has_aux=True)))

    def run(x: np.ndarray) -> Any:
        slopes, values = each(keras.ops.convert_to_tensor(x))
        slopes = slopes.reshape(*slopes.shape[:2], -1)
        return values, slopes.swapaxes(1, 2) if forward else slopes

    return run
