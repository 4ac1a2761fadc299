"""Which share of which group goes, where `sparsity` names layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.pruning.budget import check_share
from tf_spline_prune.pruning.selection import matching


def shares_of_layers(graph: ChannelGraph, sparsity: Any) -> dict[str, float]:
    """Find the share that is asked of each layer.

    Args:
        graph: The model's channel graph.
        sparsity: A dictionary from layer names or regular expressions to shares,
            or a function from a layer to its share or `None`.

    Returns:
        The share by name of a layer that makes units; only those asked for.

    Raises:
        ValueError: If a name means nothing, a share is out of range, a layer has
            two shares, or no layer has one.
    """
    found: dict[str, float] = {}
    if not isinstance(sparsity, Mapping):
        for name in graph.makers:
            share = sparsity(graph.layer(name))
            if share is not None:
                found[name] = check_share(share, f"sparsity[{name!r}]")
    else:
        for pattern, value in sparsity.items():
            share = check_share(value, f"sparsity[{pattern!r}]")
            for name in matching(graph, pattern, "sparsity"):
                if found.setdefault(name, share) != share:
                    raise ValueError(
                        f"`sparsity` asks two shares of the layer {name!r}. Received: "
                        f"{found[name]} and, by {pattern!r}, {share}"
                    )
    if not found:
        raise ValueError(
            "`sparsity` names no layer, so there is nothing to prune. Received: "
            f"{sparsity!r}"
        )
    return found


def shares_of_groups(
    graph: ChannelGraph,
    groups: Sequence[Group],
    barriers: Sequence[Barrier],
    shares: Mapping[str, float],
    sparsity: Any,
) -> list[float]:
    """Find the share that each group loses.

    A group lives or dies together, so the share of one of its layers is that of
    all. A group without a share stays.

    Args:
        graph: The model's channel graph.
        groups: The groups that may be pruned.
        barriers: Who else has units, and why they stay.
        shares: What `shares_of_layers` gave.
        sparsity: What the user gave.

    Returns:
        One share a group.

    Raises:
        ValueError: If two layers of one group have different shares.
        BudgetError: If a layer that is named may not be pruned.
    """
    found = []
    for group in groups:
        asked = {name: shares[name] for name in group.makers if name in shares}
        if len(set(asked.values())) > 1:
            raise ValueError(
                "`sparsity` asks different shares of layers whose units live or die "
                f"together. Give them one share. Received: {asked}"
            )
        found.append(next(iter(asked.values()), 0.0))
    free = {name for group in groups for name in group.makers}
    if isinstance(sparsity, Mapping):
        reasons = {barrier.layer: barrier.reason for barrier in barriers}
        for pattern, share in sparsity.items():
            hits = matching(graph, pattern, "sparsity")
            # An expression may also hit what must stay.
            if share and not hits & free:
                name = min(hits)
                raise BudgetError(
                    f"Units of {name!r} may not go: {reasons.get(name, 'barred')}. "
                    f"Leave it out. Received: sparsity={{{pattern!r}: {share}}}"
                )
    return found


def recorded(shares: Mapping[str, float], sparsity: Any) -> dict[str, float]:
    """Give the shares as a plan records them: the user's own, or by layer."""
    if isinstance(sparsity, Mapping):
        return {str(n): check_share(one, "sparsity") for n, one in sparsity.items()}
    return dict(shares)
