"""Groups that lose their units together, as the config of a class says."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import is_own_class
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._stacks import Sized, Stack, alike, isomorphic
from tf_spline_prune.pruning.planning._allocation import Allocation, CostOf
from tf_spline_prune.pruning.planning._budget import Budget
from tf_spline_prune.pruning.planning._ranking import Ranking


def stays_of_its_class(graph: ChannelGraph) -> bool:
    """Return whether a model is of blocks whose sizes the config of its class says."""
    if not is_own_class(graph.model):
        return False
    structure = {group.name: isomorphic(group) for group in graph.groups}
    return any(
        len(stack.groups) > 1 and len({structure[name] for name in stack.groups}) == 1
        for stack in graph.sizes.of(None).stacks or ()
    )


def stacks_of(
    graph: ChannelGraph, groups: Sequence[Group], uniform: bool
) -> tuple[list[Stack], dict[str, str]]:
    """Find which groups lose their units together, and which must stay.

    Args:
        graph: The model's channel graph.
        groups: The groups that may be pruned.
        uniform: Whether all blocks lose the same, so that the model stays of its class,
            if that says its sizes.

    Returns:
        The stacks, and for the name of each group that no config can say why it stays.
    """
    names = {group.name for group in groups}
    if uniform:
        if not is_own_class(graph.model) or not (whole := graph.sizes.of(None)).stacks:
            return list(alike(groups)), {}
        return _said(whole, names)
    stacks: list[Stack] = []
    unsaid: dict[str, str] = {}
    for node in graph.closed.values():
        found, others = _said(graph.sizes.of(node), names)
        stacks += found
        unsaid |= others
    said = {name for stack in stacks for name in stack.groups}
    rest = [g for g in groups if g.name not in said and g.name not in unsaid]
    return stacks + [Stack((g.name,), g.num_units) for g in rest], unsaid


def _said(sized: Sized, names: set[str]) -> tuple[list[Stack], dict[str, str]]:
    """Tell what a config says from what it does not."""
    stacks = [one for one in sized.stacks or () if names.issuperset(one.groups)]
    said = {name for stack in stacks for name in stack.groups}
    why = f"the config of {sized.kind} says no size for them alone"
    if sized.stacks is None:
        why = f"{sized.kind}, which holds them, cannot be made again from its config"
    return stacks, {n: why for n in sized.inside if n in names and n not in said}


def as_barriers(groups: Sequence[Group], unsaid: dict[str, str]) -> list[Barrier]:
    """List groups as barriers, for the reasons given."""
    return [
        Barrier(maker, group.num_units, unsaid[group.name])
        for group in groups
        if group.name in unsaid
        for maker in group.makers
    ]


@dataclass(frozen=True)
class _Lane:
    """What is counted as one group; a unit of it is a unit, or more, of each."""

    name: str
    num_units: int


class JointAllocation(Allocation):
    """Turns rankings of groups into numbers of units that fall together in stacks.

    What is lost with a step of a stack is the sum over its groups.

    Args:
        groups: The groups.
        rankings: Their rankings.
        stacks: The stacks, each group in one.
        pools: The pool of each group; a stack is in that of its first group.
        floors: How many units of each group must stay.
        round_to: Of what the number that stays is a multiple.
        originals: How many units each group had at first; as many as now if `None`.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        rankings: Sequence[Ranking],
        stacks: Sequence[Stack],
        pools: Sequence[Hashable],
        floors: Sequence[int],
        round_to: int,
        originals: Sequence[int] | None = None,
    ) -> None:
        super().__init__(groups, rankings, pools, floors, round_to, originals)
        numbers = {group.name: number for number, group in enumerate(groups)}
        self._members = [[numbers[name] for name in stack.groups] for stack in stacks]
        self._lane = np.zeros(len(groups), int)
        self._step = np.ones(len(groups), int)
        for lane, (stack, mine) in enumerate(zip(stacks, self._members, strict=True)):
            self._lane[mine] = lane
            self._step[mine] = self.sizes[mine] // stack.levels
        self._lanes = Allocation(
            [_Lane(", ".join(stack.groups), stack.levels) for stack in stacks],  # type: ignore[misc]
            [
                self._ranking(mine, stack.levels)
                for stack, mine in zip(stacks, self._members, strict=True)
            ],
            [pools[mine[0]] for mine in self._members],
            [
                max(-(-self.floors[i] // self._step[i]) for i in mine)
                for mine in self._members
            ],
            [
                math.lcm(
                    *(math.lcm(self._step[i], round_to) // self._step[i] for i in mine)
                )
                for mine in self._members
            ],
            [
                min(self.originals[i] // self._step[i] for i in mine)
                for mine in self._members
            ],
        )

    def _ranking(self, mine: Sequence[int], levels: int) -> Ranking:
        """Rank the steps of a stack, each by what goes with its last units."""
        keys = np.zeros(levels)
        for number in mine:
            step = int(self._step[number])
            keys += self.rankings[number].keys[step - 1 :: step][:levels]
        order = np.arange(levels)
        return Ranking(order, keys, np.full(levels, -1), np.zeros(levels))

    def _each(self, counts: np.ndarray) -> np.ndarray:
        """Return how many units of each group go with so many steps of each stack."""
        return np.asarray(counts[self._lane] * self._step)

    def by_fraction(self, fraction: float) -> np.ndarray:
        """Remove the same fraction of every pool, as nearly as the steps allow."""
        return self._each(self._lanes.by_fraction(fraction))

    def by_fractions(self, fractions: Sequence[float]) -> np.ndarray:
        """Remove of each stack the largest fraction that is asked of a group."""
        most = [max(fractions[i] for i in mine) for mine in self._members]
        return self._each(self._lanes.by_fractions(most))

    def by_cost(
        self,
        cost_of: CostOf,
        limit: float,
        budget: Budget,
        why_not: str,
        price: CostOf,
        candidates: int | None = None,
        steady: bool = True,
    ) -> np.ndarray:
        """Remove the fewest steps that bring the cost down to a limit."""
        return self._each(
            self._lanes.by_cost(
                lambda counts: cost_of(self._each(counts)),
                limit,
                budget,
                why_not,
                lambda counts: price(self._each(counts)),
                candidates,
                steady,
            )
        )
