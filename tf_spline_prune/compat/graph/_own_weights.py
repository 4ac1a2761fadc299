"""The `call` of a user's layer as a graph in which its own weights are inputs."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat._flavour import flavour_of
from tf_spline_prune.compat._weights import weight_variables, write_weights
from tf_spline_prune.compat.build._config import config_of
from tf_spline_prune.compat.graph._blueprint import Shape, signature_of
from tf_spline_prune.compat.graph._graph import Graph
from tf_spline_prune.compat.graph._trace import graph_of_nodes
from tf_spline_prune.compat.run._states import states_kept, streams_kept

_BATCH = 2


def graphs_of_call(layer: Any, shape: Shape) -> tuple[list[Graph], list[str]] | None:
    """Read what a layer of Keras 3 without layers inside does to one tensor.

    Args:
        layer: The layer, built.
        shape: Shape of the tensor, batch axis first; no other size is open.

    Returns:
        The graph of its `call` as it is, and of that in training, if it is told. Their
        inputs are the tensor and, by name, its weights, which have an axis of size 1
        more in front. `None` if it cannot be read so.
    """
    if flavour_of(layer) != "keras" or list(layer._flatten_layers(include_self=False)):
        return None
    weights = weight_variables(layer)
    ids = {id(variable) for variable in weights.values()}
    held = {key: value for key, value in vars(layer).items() if id(value) in ids}
    if len(held) != len(weights):
        return None
    told = "training" in signature_of(layer.call).parameters
    graphs = []
    try:
        for training in (False, True) if told else (None,):
            tensor = keras.Input(batch_shape=(_BATCH, *shape[1:]))
            stand_ins = {
                id(variable): keras.Input(
                    batch_shape=(1, *variable.shape), dtype=variable.dtype
                )
                for variable in weights.values()
            }
            kwargs = {} if training is None else {"training": training}
            inside = {key: stand_ins[id(value)] for key, value in held.items()}
            with states_kept(layer), streams_kept(), _holding(layer, inside):
                output = layer.call(tensor, **kwargs)
            inputs = [tensor, *(stand_ins[id(v)] for v in weights.values())]
            graphs.append(graph_of_nodes(keras.Model(inputs, output)))
    except Exception:  # whatever a user's `call` raises
        return None
    return graphs, list(weights)


@contextlib.contextmanager
def _holding(layer: Any, values: dict[str, Any]) -> Iterator[None]:
    """Let a layer hold other values in some of its attributes."""
    held = {key: vars(layer)[key] for key in values}
    vars(layer).update(values)
    try:
        yield
    finally:
        vars(layer).update(held)


def entries_that_count(
    layer: Any, shape: Shape, axis: int, counted: Sequence[tuple[str, int]]
) -> tuple[str, ...] | None:
    """Find the entries of a config that count what lies on an axis, by trying.

    Args:
        layer: A layer of Keras 3 that takes one tensor.
        shape: Shape of the tensor, batch axis first.
        axis: The axis.
        counted: Weights with one entry per place on it, and at which of their axes.

    Returns:
        The keys of the entries, often none; `None` if no choice of them makes the
        layer for one place less, which gives the same at the others.
    """
    size = shape[axis] or 0
    fewer = np.arange(size - 1)
    less = tuple(size - 1 if at == axis else n for at, n in enumerate(shape))
    expected = {name: list(w.shape) for name, w in weight_variables(layer).items()}
    for name, at in counted:
        expected[name][at] -= 1
    try:
        config = config_of(layer)
    except Exception:  # whatever a user's `get_config` raises
        return None
    arrays = {name: np.asarray(w) for name, w in weight_variables(layer).items()}
    for name, at in counted:
        arrays[name] = np.take(arrays[name], fewer, at)
    drawn = np.random.default_rng(0).normal(size=(_BATCH, *(n or 0 for n in shape[1:])))
    try:
        with states_kept(layer), streams_kept():
            whole = keras.ops.convert_to_numpy(layer(drawn.astype("float32")))
    except Exception:  # whatever a user's `call` raises
        return None
    part = np.take(drawn, fewer, axis).astype("float32")
    found = [k for k, v in config.items() if type(v) is int and v == size]
    for keys in dict.fromkeys([(), *((key,) for key in found), tuple(found)]):
        with contextlib.suppress(Exception), streams_kept():
            changes = dict.fromkeys(keys, size - 1)
            twin = type(layer).from_config({**config, **changes})
            twin(keras.Input(batch_shape=less))
            made = {name: list(w.shape) for name, w in weight_variables(twin).items()}
            if made != expected:
                continue
            write_weights(twin, list(arrays.values()))
            given = keras.ops.convert_to_numpy(twin(part))
            if np.allclose(given, np.take(whole, fewer, axis), 1e-4, 1e-5):
                return keys
    return None


def table_given(layer: Any, shape: Shape) -> str | None:
    """Find the one weight of a layer that is all that it gives, whatever goes in.

    Args:
        layer: A layer of Keras 3 that takes one tensor.
        shape: Shape of the tensor, batch axis first.

    Returns:
        The name of the weight, of which the first rows are given out for every example;
        `None` if the layer does something else.
    """
    if flavour_of(layer) != "keras" or len(shape) != 3:
        return None
    steps, size = (number or 0 for number in shape[1:])
    weights = weight_variables(layer)
    if len(weights) != 1:
        return None
    ((name, variable),) = weights.items()
    if len(variable.shape) != 2 or variable.shape[1] != size:
        return None
    table = keras.ops.convert_to_numpy(variable)[None, :steps]
    rng = np.random.default_rng(0)
    for _ in range(_BATCH):
        drawn = rng.normal(size=(_BATCH, steps, size)).astype("float32")
        try:
            with states_kept(layer), streams_kept():
                given = keras.ops.convert_to_numpy(layer(drawn))
        except Exception:  # whatever a user's `call` raises
            return None
        rows = np.broadcast_to(table, (_BATCH, *table.shape[1:]))
        if given.shape != rows.shape or not np.array_equal(given, rows):
            return None
    return name
