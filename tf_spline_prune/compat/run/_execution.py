"""Running functions of a model's layers on whatever backend the model has."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import flavour_of, is_sequential
from tf_spline_prune.compat.graph._blueprint import Arguments, pack, signature_of
from tf_spline_prune.compat.graph._graph import Call, Graph, fixed_size
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.run._states import states_kept
from tf_spline_prune.errors import FlavourError

# So many numbers go through a model in one call.
_AT_ONCE = 2**19


def backend_of(model: Any) -> str:
    """Return the name of the backend that a model runs on.

    Args:
        model: A model of either flavour.

    Returns:
        `"tensorflow"`, `"jax"`, `"torch"` or another that Keras knows.

    Raises:
        FlavourError: If a tf_keras model is run while Keras uses a backend
            other than TensorFlow.
    """
    backend = str(keras.config.backend())
    if flavour_of(model) == "tf_keras" and backend != "tensorflow":
        raise FlavourError(
            "A `tf_keras` model runs on TensorFlow, but Keras was started with the "
            f"backend {backend!r}. Set KERAS_BACKEND=tensorflow before the first "
            f"import of keras. Received: model {model.name!r}."
        )
    return backend


def widest_dtype(model: Any) -> str:
    """Return the widest floating-point dtype in which a model can compute.

    Args:
        model: A model of either flavour.

    Returns:
        `"float64"`; on JAX `"float32"`, unless JAX was told to compute in 64 bits,
        and on PyTorch, where Keras multiplies matrices of float64 in float32.
    """
    backend = keras.config.backend() if flavour_of(model) == "keras" else "tensorflow"
    if backend == "jax":
        import jax

        return "float64" if jax.config.read("jax_enable_x64") else "float32"
    return "float32" if backend == "torch" else "float64"


def compiled(function: Callable[[Any], Any], model: Any) -> Callable[[Any], Any]:
    """Compile a function that calls layers of `model` on one batch.

    The weights are read at every run, never frozen into the compiled function, and
    every run begins from the states that the model has, and leaves them.

    Args:
        function: Takes one batch (a tensor of the model's backend).
        model: The model whose layers it calls.

    Returns:
        A function that takes a NumPy batch and gives what `function` gives, as
        tensors of the backend.

    Raises:
        FlavourError: If a tf_keras model is run while Keras uses a backend
            other than TensorFlow.
    """
    run = _compiled(function, model)

    def on_kept_states(batch: Any) -> Any:
        with states_kept(model):
            return run(batch)

    return on_kept_states


def _compiled(function: Callable[[Any], Any], model: Any) -> Callable[[Any], Any]:
    backend = backend_of(model)
    if backend == "tensorflow":
        return graph_function(function)
    if backend == "jax":
        return _compiled_jax(function, model)
    if backend == "torch":
        import torch

        @functools.wraps(function)
        def without_gradients(batch: Any) -> Any:
            with torch.no_grad():
                return function(keras.ops.convert_to_tensor(batch))

        return without_gradients
    return lambda batch: function(keras.ops.convert_to_tensor(batch))


def graph_function(function: Callable[..., Any]) -> Any:
    """Make of a function one of TensorFlow, for one model.

    Each model has its own, made from the same lines. TensorFlow takes that for one
    function that is traced again and again, and warns; here it is not told to.
    """
    import tensorflow as tf

    made = tf.function(function, reduce_retracing=True)
    made._omit_frequent_tracing_warning = True
    return made


def _compiled_jax(function: Callable[[Any], Any], model: Any) -> Callable[[Any], Any]:
    import jax

    variables = list(model.variables)

    @jax.jit
    def pure(values: list[Any], batch: Any) -> Any:
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function(batch)

    return lambda batch: pure([variable.value for variable in variables], batch)


def call_layer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the layer of a call in inference mode; fits `Graph.run`."""
    function = getattr(call.layer, "call", None)
    if function is not None and "training" in signature_of(function).parameters:
        kwargs = {**kwargs, "training": False}
    return call.layer(*args, **kwargs)


def call_tapped(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """Run a layer and catch the input of the activation inside it.

    The layer's `activation` is exchanged for the time of the call, so what is
    caught is a tensor of the same trace as the output.

    Args:
        call: The call of a layer with an attribute `activation`.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        The layer's output, and the input of its activation.
    """
    caught: list[Any] = []
    activation = call.layer.activation

    def tapped(tensor: Any) -> Any:
        caught.append(tensor)
        return activation(tensor)

    call.layer.activation = tapped
    try:
        output = call_layer(call, args, kwargs)
    finally:
        call.layer.activation = activation
    return output, caught[0]


def to_numpy(tensor: Any) -> np.ndarray:
    """Bring a tensor of any backend to the host."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def array_cut(array: Any, keep: np.ndarray, axis: int) -> Any:
    """Leave out some entries of an array along an axis.

    Args:
        array: An array, a tensor of the backend, or a list.
        keep: Array of shape `(entries,)`, bool.
        axis: The axis.

    Returns:
        What is left, of the same kind and dtype.
    """
    if isinstance(array, (list, tuple)):
        return np.compress(keep, np.asarray(array), axis).tolist()
    left = np.compress(keep, to_numpy(array), axis)
    if isinstance(array, np.ndarray) or not keras.ops.is_tensor(array):
        return left
    return keras.ops.convert_to_tensor(left, dtype=array.dtype)


def on_host(tensor: Any) -> np.ndarray:
    """See a tensor from the host, in its own memory where that can be: read it only."""
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError):  # elsewhere, or of another dtype
        return to_numpy(tensor)


def predict(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Run a model once in inference mode, without progress or side effects.

    Args:
        model: A model of either flavour.
        inputs: One array per input, batch axis first.

    Returns:
        One float64 array per output.
    """
    return own_outputs(trace(model), inputs)


def own_outputs(graph: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Do what `predict` does, for a model that is traced; its own call is run."""
    model = graph.model

    def run(some: list[np.ndarray]) -> list[Any]:
        given = (
            some[0]
            if is_sequential(model)
            else pack(graph.blueprint.structure[0], some)
        )
        return keras.tree.flatten(model(given, training=False))

    return in_batches(run, graph, inputs)


def in_batches(
    run: Callable[[list[np.ndarray]], list[Any]],
    graph: Graph,
    inputs: list[np.ndarray],
) -> list[np.ndarray]:
    """Run a function of a model on many inputs, so many at a time as it bears.

    Every batch begins from the states that the model has, which stay. A batch of
    fixed size is filled up with inputs that were seen, whose answers are left out.

    Args:
        run: Takes one array per input and gives one tensor per output.
        graph: The model, traced.
        inputs: One array per input, batch axis first.

    Returns:
        One float64 array per output.
    """
    count, fixed = len(inputs[0]), fixed_size(graph.inputs)
    # Keras keeps all that lies between, so big inputs go few at a time.
    step = fixed or max(1, _AT_ONCE * count // max(1, sum(x.size for x in inputs)))
    parts = []
    for start in range(0, count, step):
        places = np.arange(start, min(start + step, count))
        taken = np.resize(places, fixed) if fixed else places
        with states_kept(graph.model):
            outputs = run([x[taken] for x in inputs])
        # An output without a batch axis, such as a constant, is as it is.
        parts.append(
            [
                y[: len(places)] if len(taken) > len(places) else y
                for y in (to_numpy(output).astype("float64") for output in outputs)
            ]
        )
    if len(parts) == 1:
        return parts[0]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def run_eagerly(
    graph: Graph, inputs: list[np.ndarray], apply: Callable[..., Any]
) -> list[Any]:
    """Interpret a graph on arrays, without compiling it; the model's states stay."""
    with states_kept(graph.model):
        return graph.run([keras.ops.convert_to_tensor(x) for x in inputs], apply)


def with_mask(
    args: tuple[Any, ...], kwargs: dict[str, Any], which: int, axis: int, keep: Any
) -> Arguments:
    """Put zeros for some units of one tensor among the arguments of a call.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        which: Index of the tensor among all tensors of the arguments.
        axis: The axis of the units.
        keep: Array of shape `(units,)`, bool.

    Returns:
        The arguments with that tensor masked.
    """
    seen = -1

    def visit(part: Any) -> Any:
        nonlocal seen
        if not keras.ops.is_tensor(part):
            return part
        seen += 1
        if seen != which:
            return part
        shape = [1] * len(part.shape)
        shape[axis] = len(keep)
        # Not times 0, which leaves what is not a number.
        zero = keras.ops.zeros((), keras.backend.standardize_dtype(part.dtype))
        return keras.ops.where(np.reshape(keep, shape), part, zero)

    masked = keras.tree.map_structure(visit, (args, kwargs))
    return masked[0], masked[1]


def on_kept(
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kept: Sequence[tuple[int, np.ndarray]],
) -> Any:
    """Run a call on the kept units of its one input, and put zeros for the rest.

    Args:
        call: A call whose layer was built for the kept units.
        args: Positional arguments.
        kwargs: Keyword arguments.
        kept: For each axis of units the indices of the kept ones.

    Returns:
        The output, as wide as the input.
    """
    value = narrow = args[0]
    for axis, keep in kept:
        narrow = keras.ops.take(narrow, keep, axis=axis)
    output = call_layer(call, (narrow, *args[1:]), kwargs)
    for axis, keep in kept:
        place = np.full(value.shape[axis], len(keep))
        place[keep] = np.arange(len(keep))
        rest = keras.ops.zeros_like(keras.ops.take(output, [0], axis=axis))
        wide = keras.ops.concatenate([output, rest], axis=axis)
        output = keras.ops.take(wide, place, axis=axis)
    return output


@contextmanager
def plain_recurrence(model: Any, unroll: bool = False) -> Iterator[None]:
    """Let recurrent layers be traced as plain operations.

    LSTM and GRU of tf_keras leave marks in the graph by which LiteRT's converter
    finds them and takes its own kernel. That one carries its state over from one
    inference to the next, so that the second answer is wrong.

    Args:
        model: A built model of either flavour; it is as it was afterwards.
        unroll: Whether timesteps are written out, instead of a loop. A layer whose
            number of timesteps is open keeps its loop.
    """
    wanted = {"_could_use_gpu_kernel": False} | ({"unroll": True} if unroll else {})
    held = [
        (layer, name, getattr(layer, name))
        for layer in model._flatten_layers()
        for name in wanted
        if name in vars(layer)
    ]
    try:
        for layer, name, _ in held:
            object.__setattr__(layer, name, wanted[name])
        yield
    finally:
        for layer, name, value in held:
            object.__setattr__(layer, name, value)
