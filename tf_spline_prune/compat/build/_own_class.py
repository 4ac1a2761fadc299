"""Which entries of a config say the sizes of a model or layer of a user's class.

A class that is made from a few numbers, as a backbone from its width and the number of
its heads, can be made again with smaller ones, so that it keeps its methods. What an
entry does is found by trying: a twin of the object is made with another number, in
a scope in which variables have shapes and no values (Keras 3).
"""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.backend.common import global_state

from tf_spline_prune.compat._flavour import flavour_of, is_layer, kind_of
from tf_spline_prune.compat.build._config import config_of, from_config
from tf_spline_prune.compat.build._mended_config import completed, told_config
from tf_spline_prune.compat.graph._blueprint import Node
from tf_spline_prune.compat.run._states import streams_kept
from tf_spline_prune.errors import ModelError

Place = tuple[str | int, ...]
"""Keys and positions that lead to an entry of a config."""
Shapes = list[tuple[int, ...]]

_NO_SIZES = ("dtype", "name", "build_config", "trainable", "seed", "registered_name")
# For a number that stands in the place of an open size; see `Node.input_shapes`.
_ANY = 16


class NotMade(ModelError):
    """A class that could not make one of its own with other sizes.

    Attributes:
        path: Path of the layer; `""` is the model.
        why: What it raised.
    """

    def __init__(self, owner: Any, path: str, error: Exception) -> None:
        self.path, self.why = path, f"{type(error).__name__}: {error}"
        super().__init__(
            "A layer made of layers cannot be made again with other sizes. Received: "
            f"{path or owner.name!r} of the class {type(owner).__name__}, which "
            f"raised {self.why}"
        )


@dataclass(frozen=True)
class SizeEntry:
    """An entry of a config that says how large some axes of weights are.

    Attributes:
        place: Keys and positions that lead to the entry.
        value: Its value.
        axes: The axes that grow and shrink with it: numbers of weights, in the order of
            `weights`, and axes.
    """

    place: Place
    value: int
    axes: frozenset[tuple[int, int]]


# What was found, by class, config, shapes of the weights, and sizes.
_TRIED: dict[Any, list[SizeEntry] | None] = {}
_MOST = 64
_MOST_TIMES = 4


def is_own_class(owner: Any) -> bool:
    """Return whether a layer or model of Keras 3 is of a user's class."""
    return flavour_of(owner) == "keras" and kind_of(owner).startswith("custom:")


def size_entries(
    owner: Any, sizes: Collection[int], node: Node | None = None
) -> list[SizeEntry] | None:
    """Find the entries of a config that say sizes, by trying others.

    Args:
        owner: A built model or layer of a user's class.
        sizes: Numbers of units that there are. Only entries are tried that are one of
            them, a quarter of it to four times of it.
        node: How a layer is called. Defaults to `None`, for a model.

    Returns:
        The entries; `None` if the class cannot be made again from its config, or if
        that is a whole graph.
    """
    config = _config(owner)
    if config is None or "input_layers" in config:
        return None
    # Of a dozen blocks of one class all answer alike.
    held = tuple(tuple(weight.shape) for weight in owner.weights)
    key = (type(owner), repr({**config, "name": ""}), held, tuple(sorted(sizes)))
    if key not in _TRIED:
        while len(_TRIED) >= _MOST:
            _TRIED.pop(next(iter(_TRIED)))
        _TRIED[key] = _by_trying(owner, config, sizes, node)
    return _TRIED[key]


def _by_trying(
    owner: Any, config: dict[str, Any], sizes: Collection[int], node: Node | None
) -> list[SizeEntry] | None:
    """Do what `size_entries` does."""
    held = [tuple(weight.shape) for weight in owner.weights]
    if _shapes(owner, config, node) != held:
        return None
    found = []
    for place, value in _numbers(config):
        if not any(_may_say(value, size) for size in sizes):
            continue
        for other in dict.fromkeys((2 * value, value // 2)):
            shapes = _shapes(owner, changed(config, {place: other}), node)
            if shapes is None or list(map(len, shapes)) != list(map(len, held)):
                continue
            moved = [
                ((number, axis), now - was)
                for number, pair in enumerate(zip(held, shapes, strict=True))
                for axis, (was, now) in enumerate(zip(*pair, strict=True))
                if was != now
            ]
            if moved and all((by > 0) == (other > value) for _, by in moved):
                axes = frozenset(axis for axis, _ in moved)
                found.append(SizeEntry(place, value, axes))
                break
    return found


def _may_say(value: int, size: int) -> bool:
    """Return whether a number may say a size: as it is, a part or a multiple of it."""
    whole = size % value == 0 or value % size == 0
    return whole and size <= _MOST_TIMES * value and value <= _MOST_TIMES * size


def resized(owner: Any, values: Mapping[Place, int], node: Node | None = None) -> Any:
    """Make a model or layer of the same class, with other numbers in its config.

    What it takes from others and has no weights, such as a preprocessor, it shares.

    Args:
        owner: A built model or layer of a user's class.
        values: The new numbers, by their places.
        node: How a layer is called; it is left unbuilt. Defaults to `None`.

    Returns:
        The new one, with fresh weights.

    Raises:
        Exception: Whatever the class raises.
    """
    config = _config(owner)
    if config is None:
        raise ValueError("its class has no `get_config` that it can be made from")
    if node is not None:
        config["name"] = node.path.rpartition("/")[2]
    config = changed(config, values)
    made = from_config(owner, config)
    if node is not None and config.keys() != config_of(made).keys():
        told_config(made, config)  # for its own could not be loaded
    return made


def twins(owner: Any, made: Any) -> list[tuple[Any, Any]]:
    """Pair the layers in two objects of one class that were made from like configs.

    Args:
        owner: The one.
        made: The other.

    Returns:
        Pairs of layers, the two themselves first.

    Raises:
        ValueError: If they hold layers of other kinds.
    """
    both = [list(one._flatten_layers()) for one in (owner, made)]
    kinds = [[type(layer) for layer in layers] for layers in both]
    if kinds[0] != kinds[1]:
        raise ValueError("it is made of other layers than before")
    return list(zip(*both, strict=True))


def changed(config: Any, values: Mapping[Place, int]) -> Any:
    """Copy a config with other numbers at some places."""
    for place, value in values.items():
        config = _put(config, place, value)
    return config


def _put(part: Any, place: Place, value: int) -> Any:
    if not place:
        return value
    first, *rest = place
    inner = _put(part[first], tuple(rest), value)
    if isinstance(part, Mapping):
        return {**part, first: inner}
    items = [*part]
    items[int(first)] = inner
    return tuple(items) if isinstance(part, tuple) else items


def _config(owner: Any) -> dict[str, Any] | None:
    """Return a config with the weightless layers in it themselves, such as tokenizers.

    What these hold beside their config would be lost.
    """
    try:
        config = config_of(owner)
    except Exception:  # whatever a user's `get_config` raises
        return None
    config = completed(owner, config)
    for key in config:
        held: Any = getattr(owner, key, None)
        if is_layer(held) and not held.weights and isinstance(config[key], Mapping):
            config[key] = held
    return config


def _numbers(part: Any, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """List the places of whole numbers above 1 in a config."""
    if type(part) is int and part > 1:
        yield place, part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            if key not in _NO_SIZES:
                yield from _numbers(value, (*place, key))
    elif isinstance(part, (list, tuple)):
        for number, value in enumerate(part):
            yield from _numbers(value, (*place, number))


def _shapes(owner: Any, config: Any, node: Node | None) -> Shapes | None:
    """Return the shapes of the weights of a twin; `None` if there is none."""
    with contextlib.suppress(Exception):
        return [tuple(weight.shape) for weight in _sketch(owner, config, node).weights]
    return None


def sketch(owner: Any, values: Mapping[Place, int]) -> Any:
    """Make a model as `resized` does, with weights that take no memory and read as 0.

    Args:
        owner: A built model of a user's class.
        values: The new numbers, by their places.

    Returns:
        The model.

    Raises:
        Exception: Whatever the class raises.
    """
    made = _sketch(owner, changed(_config(owner), values), None)
    for one, other in twins(owner, made):
        if other.name != one.name:  # Keras numbers what has no name
            other.name = one.name
    return made


def _sketch(owner: Any, config: Any, node: Node | None) -> Any:
    try:
        with _no_values(), streams_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one is built otherwise than usual
            twin = from_config(owner, config)
            if len(twin.weights) != len(owner.weights):
                _build(owner, twin, node)
    except Exception:
        # One that compiles itself, as a task does, makes variables with values; so
        # only the models that it is made of are without.
        parts = {
            key: _sketch(held, told["config"], None)
            for key, told in config.items()
            if isinstance(told, Mapping)
            and hasattr(held := getattr(owner, key, None), "layers")
        }
        if not parts:
            raise
        with streams_kept():
            twin = from_config(owner, {**config, **parts})
    for weight in twin.weights:
        if getattr(weight, "_value", weight) is None:
            weight._initializer = keras.initializers.Zeros()
    return twin


@contextlib.contextmanager
def _no_values() -> Iterator[None]:
    """Let variables have shapes and no values; nor does Keras give them any later."""
    name = "uninitialized_variables"
    held = list(global_state.get_global_attribute(name, []))
    with keras.StatelessScope(initialize_variables=False):
        try:
            yield
        finally:
            global_state.set_global_attribute(name, held)


def _build(owner: Any, twin: Any, node: Node | None) -> None:
    """Build a layer as another one was built."""
    with contextlib.suppress(Exception):  # many cannot say how they were built
        if how := owner.get_build_config():
            twin.build_from_config(how)
        if len(twin.weights) == len(owner.weights):
            return
    if node is None:
        return
    given = {
        identity: keras.KerasTensor([n or _ANY for n in shape], dtype)
        for identity, shape, dtype in zip(
            node.inputs, node.input_shapes, node.input_dtypes, strict=True
        )
    }
    args, kwargs = node.fill(given)
    twin(*args, **kwargs)
