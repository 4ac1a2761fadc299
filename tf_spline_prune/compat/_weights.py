"""Weights of a layer, by the names that both flavours can agree on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat._flavour import flavour_of, kind_of
from tf_spline_prune.compat.build._parts import parts_of, working_layer
from tf_spline_prune.compat.graph._blueprint import Blueprint, Node
from tf_spline_prune.compat.graph._graph import Graph
from tf_spline_prune.errors import ModelError

# What Keras calls a weight that was given no name.
_NAMELESS = re.compile(r"[Vv]ariable(_\d+)?")


@dataclass(frozen=True, eq=False)
class HeldWeight:
    """A weight of a layer, wherever inside the layer it is held.

    Attributes:
        name: Its path inside the layer, unique there: `"feedforward/kernel"`.
        own_name: What the layer that holds it calls it: `"kernel"`.
        variable: The variable.
        holders: The layers around it, from the outermost to the one that holds it.
    """

    name: str
    own_name: str
    variable: Any
    holders: tuple[Any, ...]

    @property
    def owner(self) -> Any:
        """The layer that holds the weight itself."""
        return self.holders[-1]


def held_weights(layer: Any) -> list[HeldWeight]:
    """Find the weights of a layer by identity, in the layers that hold them.

    Args:
        layer: A built layer or model of either flavour.

    Returns:
        The weights in the order of `layer.get_weights()`. A depthwise kernel is
        called `"kernel"` in both flavours; a nameless weight has the name of its
        attribute; where a layer has several weights of one name, they have numbers.
    """
    places = _places(layer, "", ())
    names: set[str] = set()
    found = []
    for variable in _variables(layer):
        prefix, holders = places[id(variable)]
        own = _own_name(variable, holders[-1])
        name = stem = prefix + own
        count = 1
        while name in names:
            name = f"{stem}_{count}"
            count += 1
        names.add(name)
        found.append(HeldWeight(name, own, variable, holders))
    return found


def _places(
    layer: Any, prefix: str, around: tuple[Any, ...]
) -> dict[int, tuple[str, tuple[Any, ...]]]:
    """Return the path and the layers of each weight; a shared one has its first."""
    inner = working_layer(layer)
    around = (*around, layer) if inner is layer else (*around, layer, inner)
    found: dict[int, tuple[str, tuple[Any, ...]]] = {}
    for name, part in parts_of(layer).items():
        for key, place in _places(part, f"{prefix}{name}/", around).items():
            found.setdefault(key, place)
    for variable in _variables(layer):
        found.setdefault(id(variable), (prefix, around))
    return found


def _own_name(variable: Any, owner: Any) -> str:
    name = str(variable.name).rpartition("/")[2].partition(":")[0]
    if name == "depthwise_kernel" and "Depthwise" in kind_of(owner):
        return "kernel"
    if _NAMELESS.fullmatch(name):
        held = (key for key, value in vars(owner).items() if value is variable)
        return next(held, name)
    return name


def weight_names(layer: Any) -> list[str]:
    """Return the names of a layer's weights, in the order of `layer.get_weights()`.

    Args:
        layer: A built layer of either flavour.

    Returns:
        Names such as `["kernel", "bias"]`, with the part of the layer that they
        belong to: `"query/kernel"`, as `held_weights` gives them.
    """
    return [held.name for held in held_weights(layer)]


def read_weights(layer: Any) -> Mapping[str, np.ndarray]:
    """Read the weights of a layer as arrays.

    Args:
        layer: A built layer of either flavour.

    Returns:
        The arrays by name, in the layer's own order; each is read when asked for.
    """
    return _of(layer)


def weight_variables(layer: Any) -> dict[str, Any]:
    """List the variables that hold the weights of a layer.

    Args:
        layer: A built layer of either flavour.

    Returns:
        The variables by name, in the layer's own order.
    """
    return _of(layer).variables


def _of(layer: Any) -> "_LayerWeights":
    return _LayerWeights({held.name: held.variable for held in held_weights(layer)})


def _variables(layer: Any) -> list[Any]:
    """List the weights of a layer; tf_keras counts a vocabulary among them."""
    return [w for w in getattr(layer, "weights", ()) if hasattr(w, "shape")]


class _LayerWeights(Mapping[str, np.ndarray]):
    """The weights of one layer by name; nothing is kept, so nothing is held twice."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables

    def __getitem__(self, name: str) -> np.ndarray:
        return values_of(self.variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


class CurrentWeights(Mapping[str, Mapping[str, np.ndarray]]):
    """The weights of a model by layer path and name, read when asked for.

    A layer made of layers that was traced has those that no layer in it has.

    Args:
        graph: What `trace` gave.
    """

    def __init__(self, graph: Graph) -> None:
        self._layers: dict[str, _LayerWeights] = {}
        for path, layer in graph.layers.items():
            if _variables(layer):
                self._layers[path] = _of(layer)
        known = {
            id(one) for held in self._layers.values() for one in held.variables.values()
        }
        for node in _traced(graph.blueprint):
            own = _of(node.layer).variables.items()
            loose = {name: one for name, one in own if id(one) not in known}
            if loose:
                self._layers[node.path] = _LayerWeights(loose)

    def __getitem__(self, path: str) -> Mapping[str, np.ndarray]:
        return self._layers[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def variables(self, path: str) -> dict[str, Any]:
        """Return the variables of a layer's weights."""
        return self._layers[path].variables

    def shapes(self, path: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a layer's weights, without reading any value."""
        held = self._layers.get(path)
        variables = held.variables if held else {}
        return {name: _shape(variable) for name, variable in variables.items()}

    def itemsize(self, path: str, name: str) -> int:
        """Return the bytes of one entry of a weight, without reading any value."""
        return _itemsize(self._layers[path].variables[name].dtype)

    def is_float(self, path: str, name: str) -> bool:
        """Return whether a weight holds real numbers, without reading any value."""
        dtype = self._layers[path].variables[name].dtype
        return "float" in str(getattr(dtype, "name", dtype))


def _traced(blueprint: Blueprint) -> Iterator[Node]:
    """Yield the layers made of layers that were traced, the outermost first."""
    for node in blueprint.nodes:
        if node.inner is not None:
            if node.inner.flat:
                yield node
            yield from _traced(node.inner)


def _shape(variable: Any) -> tuple[int, ...]:
    """Return the shape of a variable, which may be open if `adapt` learns it."""
    shape = tuple(variable.shape)
    return shape if None not in shape else values_of(variable).shape


def check_finite(path: str, weights: Mapping[str, np.ndarray]) -> None:
    """Refuse weights that hold NaN or infinity.

    Args:
        path: The layer's path, for the message.
        weights: What `read_weights` gave.

    Raises:
        ModelError: If an array holds a value that is not finite.
    """
    for name, value in weights.items():
        if _is_float(value.dtype) and not _all_finite(value):
            bad = int(value.size - np.count_nonzero(np.isfinite(value)))
            raise ModelError(
                "The model has weights that are NaN or infinite, so no result would be "
                f"meaningful. Train again from a finite state. Received: {bad} of "
                f"{value.size} values of {path}/{name}."
            )


def _on_one_device(variable: Any) -> Any:
    """Return TensorFlow's variable behind one of Keras, if it is a plain one.

    Args:
        variable: A variable of either flavour.

    Returns:
        A `ResourceVariable`; `None` where replicas or another backend hold it.
    """
    held = getattr(variable, "_value", variable)  # Keras 3
    held = getattr(held, "_variable", held)  # an AutoCastVariable
    plain = type(held).__name__ == "ResourceVariable" and hasattr(held, "handle")
    return held if plain else None


def values_of(variable: Any) -> np.ndarray:
    """Read a variable, where TensorFlow holds it without a copy."""
    plain = _on_one_device(variable)
    try:
        if plain is not None:  # one operation, without the detours of Keras
            import tensorflow as tf

            read = tf.raw_ops.ReadVariableOp(resource=plain.handle, dtype=plain.dtype)
            return np.asarray(memoryview(read))
        held = variable.value if hasattr(variable, "_value") else variable
        if hasattr(held, "read_value"):
            return np.asarray(memoryview(held.read_value()))
    except (TypeError, ValueError, BufferError, RuntimeError):
        pass  # a dtype or a place that numpy cannot look at
    return np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)


def write_values(variable: Any, array: np.ndarray) -> None:
    """Write to a variable; on one device by one operation, a fifth of Keras' time.

    Args:
        variable: A variable of either flavour.
        array: Array of its shape, of any dtype that its own can be made from.
    """
    plain = _on_one_device(variable)
    dtype = variable.dtype if plain is None else plain.dtype
    array = array.astype(getattr(dtype, "name", dtype), copy=False)
    if plain is None:
        variable.assign(array)
        return
    import tensorflow as tf

    tf.raw_ops.AssignVariableOp(resource=plain.handle, value=array)


def write_weights(layer: Any, arrays: list[np.ndarray]) -> None:
    """Do what `layer.set_weights` does; as quickly as `write_values` where it can.

    Args:
        layer: A built layer of either flavour.
        arrays: As many as the layer has weights, in its own order.
    """
    variables = list(layer.weights)
    shapes = [tuple(getattr(one, "shape", ())) for one in variables]
    plain = flavour_of(layer) == "keras" and not kind_of(layer).startswith("custom:")
    if not plain or shapes != [array.shape for array in arrays]:
        layer.set_weights(arrays)
        return
    for variable, array in zip(variables, arrays, strict=True):
        write_values(variable, array)


def _itemsize(dtype: Any) -> int:
    name = str(getattr(dtype, "name", dtype))
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def coarsest_dtype(model: Any) -> str:
    """Return the least precise dtype that any layer of a model computes in."""
    digits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
    found = {str(getattr(layer, "compute_dtype", "")) for layer in _all_layers(model)}
    return min(found & set(digits), key=digits.__getitem__, default="float32")


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield from _all_layers(layer)
        yield layer


def _is_float(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.inexact) or dtype.name == "bfloat16"


def _all_finite(value: np.ndarray) -> bool:
    """Return whether all values are finite, quickly where they are."""
    flat = value.ravel()
    with np.errstate(all="ignore"):
        # A sum of squares is finite only if every term is; it may overflow, so
        # only a finite one decides.
        quick = flat.dtype == np.float32 and np.isfinite(np.dot(flat, flat))
    return bool(quick or np.isfinite(flat).all())
