"""Graphs of models and layers whose `call` has to be run to know them."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import (
    calls_as_keras,
    flavour_of,
    keras_of,
    kind_of,
)
from tf_spline_prune.compat.data._samples import random_inputs
from tf_spline_prune.compat.graph._any_batch import (
    SIZES,
    for_any_batch,
    named_apart,
    run_through,
    transparent,
)
from tf_spline_prune.compat.graph._blueprint import Arguments, Shape, pack
from tf_spline_prune.compat.graph._nodes import (
    dtype_of,
    filler,
    history,
    reads_weights,
    shape_of,
    structure_of,
)
from tf_spline_prune.compat.run._states import same_randomness, states_kept
from tf_spline_prune.errors import ModelError

UNBUILT = (
    "The model is not built, so it has neither weights nor a graph yet. Call it "
    "once on data, or give its first layer an `Input`. Received: model {0!r}."
)


def sized(functional: Any, shapes: Sequence[Shape]) -> Any:
    """Trace the graph of a functional model on inputs of other shapes.

    The layers are those of the model; that they were called once more is forgotten,
    for else Keras would no longer know what `layer.output` means.

    Args:
        functional: The object that holds the nodes.
        shapes: One shape per input, batch axis first.

    Returns:
        A functional model.
    """
    keras_module = keras_of(functional)
    inputs = [
        keras_module.Input(
            batch_shape=shape, dtype=dtype_of(tensor), name=history(tensor).name
        )
        for tensor, shape in zip(functional.inputs, shapes, strict=True)
    ]
    given = pack(structure_of(functional)[0], inputs)
    with _uses_kept(functional):
        if hasattr(functional, "_run_through_graph"):  # its `call` would also convert
            outputs = functional._run_through_graph(given, operation_fn=lambda op: op)
        else:
            outputs = functional.call(given)
        return keras_module.Model(given, outputs, name=functional.name)


@contextlib.contextmanager
def _uses_kept(functional: Any) -> Iterator[None]:
    """Let the layers of a functional model forget the calls that are added."""
    lists = ("_inbound_nodes", "_outbound_nodes", "_inbound_nodes_value")
    nodes = [node for nodes in functional._nodes_by_depth.values() for node in nodes]
    every = [getattr(node, "operation", None) or node.layer for node in nodes]
    held = [
        (uses, len(uses))
        for layer in dict.fromkeys(every)
        for name in lists
        if isinstance(uses := vars(layer).get(name), list)
    ]
    try:
        yield
    finally:
        for uses, count in held:
            del uses[count:]


def symbolic_model(model: Any, shapes: Mapping[str, Shape] | None = None) -> Any:
    """Trace a subclassed model by calling `call` on symbolic inputs.

    What runs the model leaves its states and seeds as they were.

    Args:
        model: The model.
        shapes: For the name of each input its shape; `None` for those it was built for.

    Returns:
        A functional model.
    """
    if not model.built:
        raise ModelError(UNBUILT.format(model.name))
    keras_module = keras_of(model)
    shape = _built_shape(model)
    if shape is None:
        raise ModelError(
            "The input shape of this subclassed model is not known. Call it once on "
            "a single array, or build a functional model from it: `keras.Model(x, "
            f"model.call(x))`. Received: model {model.name!r}."
        )
    if shapes is not None:
        every = iter(shapes.values())
        if isinstance(shape, dict):
            shape = {name: shapes[name] for name in shape}
        elif _is_shape(shape):
            shape = next(every)
        else:
            shape = [next(every) for _ in shape]
    inputs = _inputs(keras_module, shape)
    with states_kept(model) as have_changed:
        try:
            with _losses_kept(model):
                outputs = _symbolic_call(model, (inputs,), {})
            traced = keras_module.Model(inputs, outputs, name=model.name)
        except Exception as error:
            raise ModelError(
                "The `call` of this subclassed model cannot be traced on symbolic "
                "inputs, so its graph is not known. Use layers and `keras.ops` in "
                "`call`, add losses inside of layers, and have no Python branches on "
                "values. Received: model "
                f"{model.name!r}, which raised {type(error).__name__}: {error}"
            ) from error
        if have_changed():
            raise ModelError(
                "The `call` of this subclassed model changes a state or draws random "
                "numbers of a fixed shape by itself, which its graph cannot hold. "
                "Put what does so into a layer, such as GaussianNoise. Received: "
                f"model {model.name!r}."
            )
        other = _kinds_in_training(model, ((inputs,), {}))
    if other not in (None, _kinds(traced)):
        raise ModelError(
            "The `call` of this subclassed model behaves differently in training and "
            "in inference, which its graph cannot hold. Put what differs into a layer, "
            f"such as Dropout. Received: model {model.name!r}."
        )

    def run(given: list[Any]) -> Any:
        return model(pack(inputs, given), training=False)

    if not _settled(traced, model, run):
        raise ModelError(
            "The `call` of this subclassed model uses a size that is open until it "
            "runs, in another way than to reshape. Give its inputs fixed sizes, or "
            "put what reads the size into a layer. Received: model "
            f"{model.name!r}."
        )
    lost = _lost_weights(model, traced)
    if lost:
        raise ModelError(
            "The model has weights that belong to no layer, so they cannot be copied. "
            f"Put them into a layer. Received: model {model.name!r} with {lost}"
        )
    read = reads_weights(traced, model)
    if read:
        raise ModelError(
            "The model uses weights outside the layers that they belong to, so a copy "
            "would not share them. Move that use into a layer. Received: model "
            f"{model.name!r}, using {read}"
        )
    return traced


def _settled(
    traced: Any, owner: Any, run: Callable[[list[Any]], Any], sized: bool = False
) -> bool:
    """Settle the sizes that were open in a trace, and test what it then returns.

    Keras 3 reads an open size off a symbolic tensor as `None`, and writes that into
    operations which cannot be run with it.

    Args:
        traced: The traced model; only operations of the trace change.
        owner: What was traced: it draws the same random numbers in both, and its
            states stay.
        run: Takes one array per input; calls what was traced.
        sized: Whether the trace was joined from two with batches of known sizes. It
            is tested in any case then, with other sizes; but not the sketch of a
            layer, whose weights have no values.

    Returns:
        Whether the trace can be run and gives what was traced gives.
    """
    nodes = [node for nodes in traced._nodes_by_depth.values() for node in nodes]
    unsettled = [node for node in nodes if _has_open_size(node)]
    for node in unsettled:
        operation = node.operation
        shape = tuple(getattr(operation, "newshape", ()))
        sizes = tuple(-1 if size is None else size for size in shape)
        if sizes.count(-1) == 1:
            node.operation = type(operation)(sizes, name=operation.name)
        elif shape and shape[0] is None and sizes.count(-1) == 2:
            # The batch axis, and one more; only a layer knows the first.
            reshape = keras_of(traced).layers.Reshape
            node.operation = reshape(sizes[1:], name=operation.name)
    specs = {
        str(place): (shape_of(tensor), dtype_of(tensor))
        for place, tensor in enumerate(traced.inputs)
    }
    batches = (1, 5) if sized else (2, 3) if unsettled else ()
    for batch in batches if _has_values(owner) else ():
        arrays = list(random_inputs(specs, batch, seed=0).values())
        given = [keras.ops.convert_to_tensor(array) for array in arrays]
        try:
            with same_randomness(owner):
                # Without `training`, which would go before what a call says itself.
                found = traced(pack(structure_of(traced)[0], given))
            with same_randomness(owner):
                pairs = [keras.tree.flatten(result) for result in (run(given), found)]
            if not all(_are_close(*pair) for pair in zip(*pairs, strict=True)):
                return False
        except Exception:  # whatever an operation raises that is given no size
            return False
    return True


def _has_values(owner: Any) -> bool:
    """Return whether the weights of a layer have values; those of a sketch do not."""
    return all(
        getattr(weight, "_value", weight) is not None for weight in owner.weights
    )


def _has_open_size(node: Any) -> bool:
    """Return whether an operation of Keras 3 was given a size that was not known."""
    operation = getattr(node, "operation", None)
    if operation is None or node.is_input or hasattr(operation, "weights"):
        return False
    given = inspect.signature(type(operation).__init__).parameters
    for name, value in vars(operation).items():
        if isinstance(value, (list, tuple)) and None in value:
            return True
        needed = name in given and given[name].default is not None
        if needed and value is None:
            return True
    return False


def _are_close(first: Any, second: Any) -> bool:
    one, other = (
        np.asarray(keras.ops.convert_to_numpy(x), float) for x in (first, second)
    )
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-3)


def _lost_weights(owner: Any, traced: Any) -> list[str]:
    """List the weights that a symbolic trace has made constants of."""
    kept = {id(weight) for weight in traced.weights}
    return [str(w.name) for w in owner.weights if id(w) not in kept]


def _built_shape(model: Any) -> Any:
    """Return the input shape, or a structure of shapes, of a subclassed model."""
    inputs = getattr(model, "inputs", None)
    if inputs:  # a functional model with a `call` of its own
        every = [tuple(tensor.shape) for tensor in inputs]
        return every if len(every) > 1 else every[0]
    if hasattr(model, "get_build_config"):
        config = model.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None:
            shapes = config.get("shapes_dict") or {}
            shape = next(iter(shapes.values()), None)
        if shape is not None:
            return shape
    return getattr(model, "_build_input_shape", None)


def _is_shape(thing: Any) -> bool:
    return isinstance(thing, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in thing
    )


def _inputs(keras_module: Any, shapes: Any, name: str | None = None) -> Any:
    """Make symbolic inputs for a shape, or for a list, tuple or dict of shapes."""
    if hasattr(shapes, "as_list"):
        shapes = tuple(shapes.as_list())
    if _is_shape(shapes):
        return keras_module.Input(batch_shape=(None, *shapes[1:]), name=name)
    if isinstance(shapes, dict):
        return {key: _inputs(keras_module, s, key) for key, s in shapes.items()}
    return [_inputs(keras_module, s) for s in shapes]


def _symbolic_call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parameters = inspect.signature(layer.call).parameters
    if "training" in parameters and "training" not in kwargs:
        # Not False: tf_keras would record it and never train the layers again.
        kwargs = {**kwargs, "training": None}
    elif "training" in kwargs and not any(
        name == "training" or parameter.kind is parameter.VAR_KEYWORD
        for name, parameter in parameters.items()
    ):  # Keras notes it down for all layers
        kwargs = {k: v for k, v in kwargs.items() if k != "training"}
    return layer.call(*args, **kwargs)


@contextlib.contextmanager
def _losses_kept(layer: Any) -> Iterator[list[Any]]:
    """Take back the losses that a `call` adds to its own layer (tf_keras).

    Yields:
        A list, which holds them afterwards.
    """
    held = list(getattr(layer, "_losses", ()))
    added: list[Any] = []
    try:
        yield added
    finally:
        losses = getattr(layer, "_losses", [])
        added += losses[len(held) :]
        del losses[len(held) :]


def adds_losses(model: Any) -> bool:
    """Return whether a model has losses that a graph of its layers does not hold.

    That are functions given to `add_loss`, and what the `call` of a subclassed model
    adds, in tf_keras; in Keras 3 such a `call` cannot be traced.
    """
    if vars(model).get("_callable_losses"):
        return True
    if not hasattr(model, "_callable_losses") or calls_as_keras(model):
        return False
    with _losses_kept(model) as added:
        _symbolic_call(model, (_inputs(keras_of(model), _built_shape(model)),), {})
    return bool(added)


def _kinds(functional: Any) -> list[str]:
    """List the kinds of layers of a traced model, in the order of computation."""
    depths = sorted(functional._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in functional._nodes_by_depth[depth]]
    return [
        kind_of(getattr(node, "operation", None) or node.layer)
        for node in nodes
        if not node.is_input
    ]


def _kinds_in_training(
    layer: Any,
    given: Arguments,
    through: list[Any] | None = None,
    some: Callable[[Any], Any] = lambda outputs: outputs,
) -> list[str] | None:
    """List the kinds of what a `call` does in training, if it or a part is told."""
    args, kwargs = given
    told = {}
    if "training" in inspect.signature(layer.call).parameters:
        told = {"training": True}
    elif not through:
        return None
    with _losses_kept(layer), run_through(through, training=True):
        outputs = some(layer.call(*args, **{**kwargs, **told}))
    tensors = keras.tree.flatten((args, kwargs))
    inputs = [tensor for tensor in tensors if hasattr(tensor, "_keras_history")]
    return _kinds(keras_of(layer).Model(inputs, outputs))


def is_composite(layer: Any) -> bool:
    """Return whether a layer is a user's own and made of other layers."""
    own = kind_of(layer).startswith("custom:")
    flatten = getattr(layer, "_flatten_layers", None)
    return (
        own and flatten is not None and any(True for _ in flatten(include_self=False))
    )


def symbolic_layer(
    layer: Any,
    node: Any,
    tensors: list[Any],
    needed: list[bool],
    looked_at: bool = False,
) -> tuple[Any | None, str]:
    """Trace a composite layer.

    Args:
        layer: The layer.
        node: How it is called.
        tensors: The tensors that it is given.
        needed: For each of its outputs, whether anything takes it in.
        looked_at: Whether the trace is only looked at and run, never built from: then
            it may hold weights as numbers, lack losses, and not tell what is done in
            training. Defaults to `False`.

    Returns:
        What was traced, and nothing; or `None`, by which it stays opaque, a barrier to
        pruning, and why it could not be traced.
    """
    ways: list[list[Any] | None] = [None]
    if flavour_of(layer) == "keras":
        ways += [transparent(layer, trained) for trained in (False, True)]
        if looked_at:
            ways.append(transparent(layer, trained=True, owning=True))
    why = ""
    for way in ways:
        try:
            return _traced_layer(layer, node, tensors, needed, way, looked_at), ""
        except _Lost as lost:
            why = str(lost)
        except Exception as error:  # whatever the user's `call` raises
            text = str(error).partition("\n")[0].rstrip(".")
            why = f"its `call` raised {type(error).__name__}: {text}"[:160]
    return None, why


class _Lost(Exception):
    """Something that a layer does would be lost in a trace; what, is the message."""


def _traced_layer(
    layer: Any,
    node: Any,
    tensors: list[Any],
    needed: list[bool],
    through: list[Any] | None,
    looked_at: bool,
) -> Any:
    """Trace a composite layer.

    Args:
        layer: The layer.
        node: How it is called.
        tensors: The tensors that it is given.
        needed: For each of its outputs, whether anything takes it in.
        through: Layers inside of it that are run through, while its `call` is told
            the size of the batch (Keras 3). Without it, it is run as it is.
        looked_at: As in `symbolic_layer`.

    Returns:
        The traced layer, with the outputs that are needed.

    Raises:
        _Lost: If something would be lost.
    """
    keras_module = keras_of(layer)
    sized = through is not None

    def given(batch: int | None) -> tuple[list[Any], Arguments]:
        inputs = []
        for tensor in tensors:
            shape = shape_of(tensor)
            if shape and shape[0] is None:
                shape = (batch, *shape[1:])
            dtype = dtype_of(tensor)
            inputs.append(keras_module.Input(batch_shape=shape, dtype=dtype))
        values = dict(zip(map(id, tensors), inputs, strict=True))
        return inputs, filler(node)(values)

    def model_of(inputs: list[Any], outputs: Any) -> Any:
        return keras_module.Model(inputs if len(inputs) > 1 else inputs[0], outputs)

    def some(outputs: Any) -> Any:
        if all(needed):
            return outputs
        return list(itertools.compress(keras.tree.flatten(outputs), needed))

    def trace(batch: int | None) -> Any:
        inputs, arguments = given(batch)
        return model_of(inputs, some(_symbolic_call(layer, *arguments)))

    batch = SIZES[0] if sized else None
    with contextlib.ExitStack() as stack:
        have_changed = stack.enter_context(states_kept(layer))
        if sized:
            stack.enter_context(named_apart(layer))
        with _losses_kept(layer) as added, run_through(through):
            first = traced = trace(batch)
            second = trace(SIZES[1]) if sized else None
        if added and not looked_at:
            raise _Lost("it adds losses, which are beside its outputs")
        if sized:
            inputs, _ = given(None)
            outputs = for_any_batch(first, second, inputs)
            traced = model_of(inputs, outputs)
        if have_changed() and not looked_at:  # that would be a constant of the trace
            raise _Lost("it changes a state or draws by a seed of its own")
        other = None
        if not looked_at:
            if lost := _lost_weights(layer, traced):
                raise _Lost(f"it reads weights of its own: {', '.join(lost[:3])}")
            if read := reads_weights(first, layer) or reads_weights(traced, layer):
                raise _Lost(f"it reads weights of others: {', '.join(read[:3])}")
            other = _kinds_in_training(layer, given(batch)[1], through, some)
    if other not in (None, _kinds(first)):
        raise _Lost("it does other things in training")

    def run(arrays: list[Any]) -> Any:
        args, kwargs = filler(node)(dict(zip(map(id, tensors), arrays, strict=True)))
        return some(layer(*args, **kwargs))

    if not _settled(traced, layer, run, sized):
        raise _Lost("its trace computes something else, as sizes hang on the batch")
    return traced


def require_true_shapes(layer: Any, node: Any, tensors: list[Any]) -> None:
    """Raise `ModelError` if a user's layer gives another shape than it says (Keras 3).

    Args:
        layer: A layer that stays one call.
        node: How it is called.
        tensors: The tensors that it is given.
    """
    if flavour_of(layer) != "keras" or not kind_of(layer).startswith("custom:"):
        return
    says = ("compute_output_shape", "compute_output_spec")
    plain = keras.layers.Layer
    own = any(getattr(type(layer), name) is not getattr(plain, name) for name in says)
    specs = {str(i): (shape_of(t), dtype_of(t)) for i, t in enumerate(tensors)}
    if not own or any(None in shape[1:] for shape, _ in specs.values()):
        return
    try:
        with same_randomness(layer), _losses_kept(layer):
            arrays = random_inputs(specs, 2, seed=0).values()
            given = map(keras.ops.convert_to_tensor, arrays)
            values = dict(zip(map(id, tensors), given, strict=True))
            args, kwargs = filler(node)(values)
            made = keras.tree.flatten(layer(*args, **kwargs))
    except Exception:  # whatever it raises, of numbers that it may not take
        return
    for tensor, output in zip(keras.tree.flatten(node.outputs), made, strict=True):
        said, is_so = shape_of(tensor), tuple(output.shape)
        fits = len(said) == len(is_so) and all(
            one in (None, other) for one, other in zip(said, is_so, strict=True)
        )
        if not fits:
            raise ModelError(
                "A layer gives another shape than it says, so nothing that is built "
                "behind it would fit. Mend `compute_output_shape` in the class "
                f"{type(layer).__name__}. Received: {layer.name!r}, which says {said} "
                f"and gives {is_so}"
            )
