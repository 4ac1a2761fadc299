"""Layers inside Keras' own layers: attention's projections, wrapped layers."""

from typing import Any

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
    held = {
        name: getattr(layer, attribute, None)
        for name, attribute in _HELD.get(type(layer).__name__, {}).items()
    }
    return {name: part for name, part in held.items() if part is not None}


def part_configs(config: dict[str, Any]) -> dict[str, Any]:
    """Copy a config so that layers inside it are built for their new inputs.

    Keras 3 stores the shape that an inner layer was built for; a layer that is
    made again must not be built for the old one.
    """

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            if "class_name" in part and "config" in part:
                part = {k: v for k, v in part.items() if k != "build_config"}
            return {key: strip(value) for key, value in part.items()}
        return part

    return {key: strip(value) for key, value in config.items()}
