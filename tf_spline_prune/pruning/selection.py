"""Which layers a user means by `layers=`."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from tf_spline_prune.graph import ChannelGraph

Selector = str | Iterable[str] | Callable[[Any], bool] | None


def selected(graph: ChannelGraph, layers: Selector) -> set[str]:
    """Find the layers that a selector means.

    Args:
        graph: The model's channel graph.
        layers: `None` for all; the path or name of a layer, or a regular
            expression that matches paths whole; a list of these; or a function
            of the layer.

    Returns:
        Names of layers that make units.

    Raises:
        ValueError: If nothing is meant, or a name means nothing.
    """
    everyone = set(graph.makers)
    if layers is None:
        return everyone
    if callable(layers):
        found = {path for path in everyone if layers(graph.layer(path))}
        if not found:
            raise ValueError("`layers` chose none of the layers that make units.")
        return found
    found = set()
    if not isinstance(layers, Iterable):
        raise ValueError(
            "`layers` must be a name, a regular expression, a list of these, or a "
            f"function of the layer. Received: {layers!r}"
        )
    for pattern in [layers] if isinstance(layers, str) else layers:
        found |= matching(graph, pattern, "layers")
    if not found:
        raise ValueError("`layers` is empty, so there is nothing to prune.")
    return found


def matching(graph: ChannelGraph, pattern: str, argument: str) -> set[str]:
    """Find the layers that one name or regular expression means.

    Args:
        graph: The model's channel graph.
        pattern: The path or name of a layer, or a regular expression that matches
            paths whole.
        argument: Name of the argument that holds it, for the messages.

    Returns:
        Names of layers that make units, at least one.

    Raises:
        ValueError: If it means nothing.
    """
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"`{argument}` holds what is neither a name nor a regular expression: "
            f"{error}. Received: {pattern!r}"
        ) from error
    hits = {
        name
        for name in graph.makers
        for path in (name, graph.path_of_maker(name))
        if pattern in (path, path.rpartition("/")[2]) or re.fullmatch(pattern, path)
    }
    if not hits:
        near = difflib.get_close_matches(pattern, graph.makers, 3, 0.4)
        raise ValueError(
            f"`{argument}` names no layer that makes units. "
            f"Nearest: {near or sorted(graph.makers)[:5]}. Received: {pattern!r}"
        )
    return hits
