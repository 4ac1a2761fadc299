"""What is ranked together: the pools of groups that a scope means."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from tf_spline_prune._checks import Function, Having, MapOf, OneOf, Options, Text
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning.selection import matching

NamedScope = Literal["auto", "global", "layer", "isomorphic", "regions"]
# Pools by name, or what a function says of each layer.
Scope = (
    NamedScope | Mapping[str, str | Iterable[str]] | Callable[[Any], Hashable | None]
)


SCOPE: Options = [
    OneOf(*get_args(NamedScope)),
    MapOf(
        Text("the name of a pool"),
        Having("__iter__", what="names of layers"),
        "a dictionary from names to lists of layers",
    ),
    Function("a function of a layer"),
]
"""What the checks of arguments want of a scope."""


def scope_for(criterion: Criterion, scope: Scope) -> Scope:
    """Choose the scope that suits a criterion, where the user leaves it open."""
    if scope == "auto":
        return "layer" if criterion.name == "reconstruction" else "global"
    return scope


def pools_of(
    graph: ChannelGraph, groups: Sequence[Group], scope: Scope
) -> tuple[list[Hashable], str | dict[str, list[str]]]:
    """Find for each group the pool in which it is ranked.

    Args:
        graph: The model's channel graph.
        groups: The groups.
        scope: What the user gave.

    Returns:
        One pool a group, and the scope as a plan records it: its name, or for
        each pool the layers or expressions in it.

    Raises:
        ValueError: If a name means nothing, a layer or group is in two pools, or
            no layer is in any.
    """
    if isinstance(scope, str):
        return [_named(group, scope) for group in groups], scope
    found, record = (
        _of_mapping(graph, scope)
        if isinstance(scope, Mapping)
        else _of_function(graph, scope)
    )
    if not found:
        raise ValueError(
            "`scope` names no layer, so it says nothing. Give the name of a scope, or "
            f"name layers. Received: {scope!r}"
        )
    pools: list[Hashable] = []
    for group in groups:
        mine = {name: found[name] for name in group.makers if name in found}
        if len(set(mine.values())) > 1:
            raise ValueError(
                "`scope` puts layers whose units live or die together into different "
                f"pools. Put them into one. Received: {mine}"
            )
        # A tuple, so that no pool of a user has the same key.
        own: Hashable = ("group", group.name)
        pools.append(("pool", next(iter(mine.values()))) if mine else own)
    return pools, record


def _named(group: Group, scope: str) -> Hashable:
    if scope == "layer":
        return group.name
    if scope == "isomorphic":
        return tuple(sorted((m.role, m.name, m.positions.shape) for m in group.members))
    return "all"


def _of_mapping(
    graph: ChannelGraph, scope: Mapping[str, str | Iterable[str]]
) -> tuple[dict[str, Hashable], dict[str, list[str]]]:
    found: dict[str, Hashable] = {}
    record: dict[str, list[str]] = {}
    for pool, patterns in scope.items():
        if not isinstance(patterns, Iterable):
            raise ValueError(
                "A pool of `scope` must be a list of layer names or regular "
                f"expressions. Received: {pool!r}: {patterns!r}"
            )
        record[str(pool)] = [patterns] if isinstance(patterns, str) else [*patterns]
        for pattern in record[str(pool)]:
            for name in matching(graph, pattern, "scope"):
                if found.setdefault(name, pool) != pool:
                    raise ValueError(
                        f"`scope` puts the layer {name!r} into two pools. Received: "
                        f"{found[name]!r} and, by {pattern!r}, {pool!r}"
                    )
    return found, record


def _of_function(
    graph: ChannelGraph, scope: Callable[[Any], Hashable | None]
) -> tuple[dict[str, Hashable], dict[str, list[str]]]:
    found: dict[str, Hashable] = {}
    record: dict[str, list[str]] = {}
    for name in graph.makers:
        pool = scope(graph.layer(name))
        if pool is None:
            continue
        if not isinstance(pool, Hashable):
            raise ValueError(
                "A `scope` function must return something hashable, or None for a "
                f"pool of its own. Received: {pool!r} for {name!r}"
            )
        found[name] = pool
        record.setdefault(str(pool), []).append(name)
    return found, record
