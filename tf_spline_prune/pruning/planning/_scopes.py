"""What is ranked together: the pools of groups that a scope means."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from tf_spline_prune._checks import Function, Having, MapOf, OneOf, Options, Text
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._stacks import isomorphic
from tf_spline_prune.pruning.planning._budget import check_fraction

NamedScope = Literal["auto", "global", "layer", "isomorphic", "uniform", "regions"]
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
            f"layers. Received: {scope!r}"
        )
    pools: list[Hashable] = []
    for group in groups:
        mine = {name: found[name] for name in group.makers if name in found}
        if len(set(mine.values())) > 1:
            raise ValueError(
                "`scope` puts layers with coupled units into different pools. Put them "
                f"into one pool. Received: {mine}"
            )
        # A tuple, so that no pool of a user has the same key.
        own: Hashable = ("group", group.name)
        pools.append(("pool", next(iter(mine.values()))) if mine else own)
    return pools, record


def _named(group: Group, scope: str) -> Hashable:
    if scope in ("layer", "uniform"):
        return group.name
    if scope == "isomorphic":
        return isomorphic(group)
    return "all"


def _of_mapping(
    graph: ChannelGraph, scope: Mapping[str, str | Iterable[str]]
) -> tuple[dict[str, Hashable], dict[str, list[str]]]:
    record: dict[str, list[str]] = {}
    asked: list[tuple[str, Hashable]] = []
    for pool, patterns in scope.items():
        if not isinstance(patterns, Iterable):
            raise ValueError(
                "A pool of `scope` must be a list of layer names or regular "
                f"expressions. Received: {pool!r}: {patterns!r}"
            )
        record[str(pool)] = [patterns] if isinstance(patterns, str) else [*patterns]
        asked += [(pattern, pool) for pattern in record[str(pool)]]
    return graph.nameable.each(asked, "scope", "pools"), record


def _of_function(
    graph: ChannelGraph, scope: Callable[[Any], Hashable | None]
) -> tuple[dict[str, Hashable], dict[str, list[str]]]:
    found = graph.nameable.each(scope, "scope", "pools")
    record: dict[str, list[str]] = {}
    for name, pool in found.items():
        if not isinstance(pool, Hashable):
            raise ValueError(
                "A `scope` function must return something hashable, or None for a "
                f"pool of its own. Received: {pool!r} for {name!r}"
            )
        record.setdefault(str(pool), []).append(name)
    return found, record


def fractions_of_layers(graph: ChannelGraph, sparsity: Any) -> dict[str, float]:
    """Find the fraction that is asked of each layer.

    Args:
        graph: The model's channel graph.
        sparsity: A dictionary from layer names or regular expressions to fractions,
            or a function from a layer to its fraction or `None`.

    Returns:
        The fraction by name of a layer that produces units; only those asked for.

    Raises:
        ValueError: If a name means nothing, a fraction is out of range, a layer has
            two fractions, or no layer has one.
    """
    if isinstance(sparsity, Mapping):
        asked = [(of, _fraction(one, of)) for of, one in sparsity.items()]
        found = graph.nameable.each(asked, "sparsity", "fractions")
    else:
        found = graph.nameable.each(sparsity, "sparsity", "fractions")
        found = {name: _fraction(one, name) for name, one in found.items()}
    if not found:
        raise ValueError(
            "`sparsity` names no layer, so there is nothing to prune. Received: "
            f"{sparsity!r}"
        )
    return found


def _fraction(value: Any, of: Any) -> float:
    return check_fraction(value, f"sparsity[{of!r}]")


def fractions_of_groups(
    graph: ChannelGraph,
    groups: Sequence[Group],
    barriers: Sequence[Barrier],
    fractions: Mapping[str, float],
    sparsity: Any,
) -> list[float]:
    """Find the fraction that each group loses.

    A group is pruned together, so the fraction of one of its layers is that of
    all. A group without a fraction stays.

    Args:
        graph: The model's channel graph.
        groups: The groups that may be pruned.
        barriers: Who else has units, and why they stay.
        fractions: What `fractions_of_layers` gave.
        sparsity: What the user gave.

    Returns:
        One fraction per group.

    Raises:
        ValueError: If two layers of one group have different fractions.
        BudgetError: If a layer that is named may not be pruned.
    """
    found = []
    for group in groups:
        asked = {name: fractions[name] for name in group.makers if name in fractions}
        if len(set(asked.values())) > 1:
            raise ValueError(
                "`sparsity` gives layers with coupled units different fractions. Give "
                f"them the same one. Received: {asked}"
            )
        found.append(next(iter(asked.values()), 0.0))
    free = {name for group in groups for name in group.makers}
    if isinstance(sparsity, Mapping):
        reasons = {barrier.layer: barrier.reason for barrier in barriers}
        for pattern, fraction in sparsity.items():
            hits = graph.nameable.matching(pattern, "sparsity")
            # An expression may also hit what must stay.
            if fraction and not hits & free:
                name = min(hits)
                raise BudgetError(
                    f"Units of {name!r} cannot be pruned: "
                    f"{reasons.get(name, 'barred')}. Leave it out. Received: "
                    f"sparsity={{{pattern!r}: {fraction}}}"
                )
    return found


def recorded(fractions: Mapping[str, float], sparsity: Any) -> dict[str, float]:
    """Return the fractions as a plan records them: the user's own, or by layer."""
    if isinstance(sparsity, Mapping):
        return {str(n): check_fraction(one, "sparsity") for n, one in sparsity.items()}
    return dict(fractions)
