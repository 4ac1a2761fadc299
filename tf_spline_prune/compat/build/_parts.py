"""Layers inside layers: attention's projections, wrapped layers, composites."""

import re
from collections.abc import Iterator
from typing import Any

from keras.src.utils.naming import to_snake_case

from tf_spline_prune.compat._flavour import inside_masks, kind_of

_PARTS = {
    "query": "_query_dense",
    "key": "_key_dense",
    "value": "_value_dense",
    "gate": "_gate_dense",
    "attention_output": "_output_dense",
}
_HELD = {
    "MultiHeadAttention": _PARTS,
    "GroupQueryAttention": _PARTS,
    "GroupedQueryAttention": _PARTS,
    "Bidirectional": {"forward": "forward_layer", "backward": "backward_layer"},
}
# Where Keras' own layers hold the one layer, or cell, that does their work.
_ONE_INSIDE = ("layer", "cell")


def parts_of(layer: Any) -> dict[str, Any]:
    """List the layers that a layer is made of.

    A layer that only wraps another one, as TimeDistributed, a mask wrapper, or an RNN
    around its cell, has the parts of that one.

    Args:
        layer: A built layer or model of either flavour.

    Returns:
        The layers by name; empty for most layers. Attention and Bidirectional have
        names that both flavours share, such as `"query"` or `"forward"`. Else a part
        has the name that its user gave it; without one, that of the attribute which
        holds it; and in a list, that of its class, with a number after the first.
    """
    layer = working_layer(layer)
    kind = kind_of(layer)
    if kind in _HELD:
        held = {
            name: getattr(layer, attribute, None)
            for name, attribute in _HELD[kind].items()
        }
        return {name: part for name, part in held.items() if part is not None}
    flatten = getattr(layer, "_flatten_layers", None)
    inside = list(flatten(include_self=False, recursive=False)) if flatten else []
    if not inside:
        return {}
    attributes = {id(value): name for name, value in reversed(vars(layer).items())}
    parts: dict[str, Any] = {}
    for part in inside:
        name = stem = _name_of(part, attributes.get(id(part)))
        count = 1
        while name in parts:
            name = f"{stem}_{count}"
            count += 1
        parts[name] = part
    return parts


def all_parts(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through the parts of a layer, and theirs.

    Args:
        layer: A built layer or model of either flavour.
        prefix: What stands before each path.

    Yields:
        Paths, such as `"block/feedforward"`, and layers.
    """
    for name, part in parts_of(layer).items():
        yield f"{prefix}{name}", part
        yield from all_parts(part, f"{prefix}{name}/")


def working_layer(layer: Any) -> Any:
    """Return the layer that does the work of one that only wraps it, or itself."""
    while True:
        inner = inside_masks(layer)
        if inner is layer and not kind_of(layer).startswith("custom:"):
            held = (getattr(layer, name, None) for name in _ONE_INSIDE)
            inner = next((part for part in held if hasattr(part, "weights")), layer)
        if inner is layer or kind_of(layer) in _HELD:
            return layer
        layer = inner


def _name_of(part: Any, attribute: str | None) -> str:
    """Return a name for a part that a copy of the layer which holds it has too.

    Keras numbers the layers without a name over the whole process.
    """
    name = str(part.name)
    kind = to_snake_case(type(inside_masks(part)).__name__)
    if re.fullmatch(rf"(private)?{kind}(_\d+)?", name):
        name = attribute.strip("_") if attribute else kind
    return name.replace("/", "_")


def in_policy(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Copy a config with another dtype policy for all layers inside the layer.

    Args:
        config: What `get_config` gave.
        dtype: The dtype policy.

    Returns:
        The copy; entries of the layer itself stay.
    """

    def change(part: Any) -> Any:
        if isinstance(part, (list, tuple)):  # or what tf_keras wraps lists in
            items = [change(item) for item in part]
            return tuple(items) if isinstance(part, tuple) else items
        if not isinstance(part, dict):
            return part
        part = {key: change(value) for key, value in part.items()}
        inside = part.get("config")
        if "class_name" in part and isinstance(inside, dict) and "dtype" in inside:
            part["config"] = {**inside, "dtype": dtype}
        return part

    return {key: change(value) for key, value in config.items()}


def part_configs(config: dict[str, Any], resized: bool) -> dict[str, Any]:
    """Copy a config so that a layer can be built for other sizes.

    Keras 3 stores the shape that an inner layer was built for; a layer that is
    made again must not be built for the old one. An initial value that is a whole
    matrix has the old size too.

    Args:
        config: What `get_config` gave, perhaps with changes.
        resized: Whether weights of the layer change their shapes.

    Returns:
        The copy.
    """

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            if "class_name" in part and "config" in part:
                part = {k: v for k, v in part.items() if k != "build_config"}
                if resized and part["class_name"] == "Constant":
                    value = part["config"].get("value")
                    return part if isinstance(value, (int, float)) else "zeros"
            return {key: strip(value) for key, value in part.items()}
        return part

    return {key: strip(value) for key, value in config.items()}
