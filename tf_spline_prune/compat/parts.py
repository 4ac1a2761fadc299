"""Layers inside Keras' own layers: attention's projections, wrapped layers."""

from typing import Any

from tf_spline_prune.compat.kinds import kind_of

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


def parts_of(layer: Any) -> dict[str, Any]:
    """Name the layers that a Keras layer is made of.

    Args:
        layer: A built layer of either flavour.

    Returns:
        The layers by a name that both flavours share, such as `"query"` or
        `"forward"`; empty for most layers.
    """
    layer = repeated(layer)
    held = {
        name: getattr(layer, attribute, None)
        for name, attribute in _HELD.get(kind_of(layer), {}).items()
    }
    return {name: part for name, part in held.items() if part is not None}


def repeated(layer: Any) -> Any:
    """Give the layer that TimeDistributed repeats; any other layer is itself."""
    while kind_of(layer) == "TimeDistributed":
        layer = layer.layer
    return layer


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
