"""Whether a model that was made by its class is what was to be built."""

import contextlib
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.build._config import config_of
from tf_spline_prune.compat.data._samples import random_inputs
from tf_spline_prune.compat.graph._blueprint import given
from tf_spline_prune.compat.graph._graph import Call, Graph, Tensor
from tf_spline_prune.compat.run._states import same_randomness

# What may differ between two layers that compute the same.
_NAMES = ("name", "seed", "build_config", "registered_name", "module")


def difference_of(
    graph: Graph,
    changes: Mapping[str, Mapping[str, Any]],
    made: Graph,
    sketched: bool = False,
) -> tuple[str, str] | None:
    """Compare a graph, but for the changes that were to be made, with another one.

    A class that is told other sizes may also change what hangs on them: a factor, a
    constant, a number of blocks. Then it is not what was to be built.

    Args:
        graph: The graph.
        changes: For a layer's path, the entries of its config that were to change.
        made: The other one.
        sketched: Whether weights that it reads as constants are 0, so that of these
            only the shapes are compared. Defaults to `False`.

    Returns:
        The path of the first call that differs, and how; `None` if none does.
    """
    for one, other in zip(graph.calls, made.calls, strict=False):
        if why := _differs(one, other, changes.get(one.path, {}), sketched):
            return one.path, why
    if len(graph.calls) != len(made.calls):
        return "", f"{len(made.calls)} calls in the place of {len(graph.calls)}"
    return None


def _differs(one: Call, other: Call, changes: Mapping[str, Any], sketched: bool) -> str:
    # What has no weights has a name that Keras numbers over the whole process.
    named = [
        call.path if getattr(call.layer, "weights", ()) else "" for call in (one, other)
    ]
    if one.kind != other.kind or len(set(named)) > 1:
        return f"{other.path} ({other.kind}) is in its place"
    if [*one.needs(), *one.outputs] != [*other.needs(), *other.outputs]:
        return "it takes in other tensors"
    told, found = (_given(call) for call in (one, other))
    expected = {**told, **_known(told, changes)}
    if sketched:
        found = {k: _unsketched(expected.get(k), value) for k, value in found.items()}
    if not _same(_bare(expected), _bare(found)):
        return "it is called with other constants"
    if not hasattr(one.layer, "weights"):
        return ""
    settings = _settings(one.layer, other.layer)
    expected = _bare({**settings[0], **_known(settings[0], changes)})
    if not _same(expected, found := _bare(settings[1])):
        # A layer may also say what it has made of its arguments.
        if not changes and (sketched or _answer_alike(one, other)):
            return ""
        keys = [k for k in expected if not _same(expected[k], found.get(k))]
        return f"its settings {', '.join(keys) or sorted(found)} are others"
    return ""


def _answer_alike(one: Call, other: Call) -> bool:
    """Return whether two layers with the same weights give the same of drawn inputs."""
    specs = {
        str(place): ((2, *shape[1:]), dtype)
        for place, (shape, dtype) in enumerate(
            zip(one.input_shapes, one.input_dtypes, strict=True)
        )
    }
    try:
        drawn = list(random_inputs(specs, 2, seed=0).values())
        tensors = [keras.ops.convert_to_tensor(array) for array in drawn]
        outputs = []
        for call in (one, other):
            args, kwargs = call.fill(dict(zip(call.inputs, tensors, strict=True)))
            with same_randomness(call.layer):
                outputs.append(keras.tree.flatten(call.layer(*args, **kwargs)))
        return all(map(_same, *outputs))
    except Exception:  # whatever a layer raises
        return False


def _given(call: Call) -> dict[str, Any]:
    """Return what a call is given by name; of an operation its settings, too."""
    if hasattr(call.layer, "weights"):
        return {"args": list(call.args), **call.kwargs}
    known = inspect.signature(type(call.layer).__init__).parameters
    told = {key: value for key, value in vars(call.layer).items() if key in known}
    return {**told, **given(call.layer, call.args, call.kwargs, defaults=True)}


def _unsketched(wanted: Any, value: Any) -> Any:
    """Replace weights that read as 0 by the constants in whose place they are."""
    if isinstance(value, (list, tuple)) and isinstance(wanted, (list, tuple)):
        pairs = itertools.zip_longest(wanted[: len(value)], value)
        return [_unsketched(*pair) for pair in pairs]
    return wanted if _is_sketch_of(value, wanted) else value


def _known(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key in settings}


def _is_sketch_of(made: Any, given: Any) -> bool:
    """Return whether a constant is a weight that reads as 0."""
    shapes = [getattr(value, "shape", None) for value in (made, given)]
    if not shapes[0] or shapes[0] != shapes[1]:
        return False
    return not np.any(keras.ops.convert_to_numpy(made))


def _settings(*layers: Any) -> list[dict[str, Any]]:
    """Read the configs of two layers, or what they hold by the names of arguments."""
    if all(hasattr(layer, "weights") for layer in layers):
        with contextlib.suppress(Exception):  # whatever a user's `get_config` raises
            return [config_of(layer) for layer in layers]
    known = inspect.signature(type(layers[0]).__init__).parameters
    return [{k: v for k, v in vars(layer).items() if k in known} for layer in layers]


def _bare(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {
            key: _bare(value)
            for key, value in part.items()
            if key not in _NAMES and not key.endswith("initializer")
        }
    if isinstance(part, (list, tuple)):
        return [_bare(value) for value in part]
    return part


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return bool(one == other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if hasattr(one, "shape") and hasattr(other, "shape"):
        arrays = [keras.ops.convert_to_numpy(value) for value in (one, other)]
        return np.array_equal(*arrays)
    if callable(one) and callable(other):
        return one is other
    return type(one) is type(other) and bool(one == other)
