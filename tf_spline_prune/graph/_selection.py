"""Which layers a user means by `layers=`."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_spline_prune.errors import BudgetError
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
    makers = {name: graph.layer(name) for name in graph.makers}
    return meant(
        layers, makers, lambda name: matching(graph, name, "layers"), "produce units"
    )


def meant(
    layers: Selector,
    everyone: Mapping[str, Any],
    match: Callable[[str], set[str]],
    do_what: str,
) -> set[str]:
    """Find what a selector means among layers.

    Args:
        layers: The selector.
        everyone: The layers that can be meant, by name.
        match: Gives the names that one name or regular expression means.
        do_what: What these layers have in common, for the messages.

    Returns:
        Names.

    Raises:
        ValueError: If nothing is meant.
    """
    if layers is None:
        return set(everyone)
    if callable(layers):
        found = {name for name, layer in everyone.items() if layers(layer)}
        if not found:
            raise ValueError(f"`layers` chose none of the layers that {do_what}.")
        return found
    if not isinstance(layers, Iterable):
        raise ValueError(
            "`layers` must be a name, a regular expression, a list of these, or a "
            f"function of the layer. Received: {layers!r}"
        )
    found = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        found |= match(pattern)
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
        BudgetError: If it names a layer whose units are not known.
    """
    for barrier in graph.barriers:
        if barrier.layer == pattern and not barrier.units:
            raise BudgetError(
                f"Units of {pattern!r} cannot be pruned: {barrier.reason}. Leave it "
                f"out. Received: {argument} with {pattern!r}"
            )
    paths = {name: graph.path_of_maker(name) for name in graph.makers}
    return named(pattern, paths, argument, "produces units")


def named(
    pattern: str, paths: Mapping[str, str], argument: str, does_what: str
) -> set[str]:
    """Find the names that one name or regular expression means.

    Args:
        pattern: A name or path, or a regular expression that matches paths whole.
        paths: The path of each name.
        argument: Name of the argument that holds the pattern, for the messages.
        does_what: What a layer does that can be meant, for the messages.

    Returns:
        Names, at least one.

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
        for name in paths
        for path in (name, paths[name])
        if pattern in (path, path.rpartition("/")[2]) or re.fullmatch(pattern, path)
    }
    if not hits:
        near = difflib.get_close_matches(pattern, paths, 3, 0.4)
        raise ValueError(
            f"`{argument}` names no layer that {does_what}. "
            f"Nearest: {near or sorted(paths)[:5]}. Received: {pattern!r}"
        )
    return hits
