"""`Allocation`: from rankings and a budget to numbers of units."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning.budget import Budget
from tf_spline_prune.pruning.ranking import Ranking

Scope = Literal["global", "layer", "isomorphic"]


class Allocation:
    """Turns rankings of groups into numbers of units to remove.

    All units stand in one row, by their place among those that they are ranked
    with; a budget is a point in that row, and everything before it goes.
    """

    def __init__(
        self,
        groups: list[Group],
        rankings: list[Ranking],
        scope: Scope,
        floors: list[int],
        round_to: int,
    ) -> None:
        self.groups = groups
        self.rankings = rankings
        self.sizes = np.array([group.num_units for group in groups], int)
        self.floors = np.array(floors, int)
        self.round_to = round_to
        self.pools = [self._pool(group, scope) for group in groups]
        # For each pool, the owner group of each unit, in the order of going.
        self.rows: dict[Any, np.ndarray] = {}
        for pool in dict.fromkeys(self.pools):
            mine = [i for i, p in enumerate(self.pools) if p == pool]
            owner = np.repeat(mine, self.sizes[mine])
            place = np.concatenate([np.arange(self.sizes[i]) for i in mine])
            keys = np.concatenate([rankings[i].keys for i in mine])
            self.rows[pool] = owner[np.lexsort((place, owner, keys))]

    def _pool(self, group: Group, scope: Scope) -> Any:
        if scope == "global":
            return "all"
        if scope == "layer":
            return group.name
        return tuple(sorted((m.role, m.name, m.positions.shape) for m in group.members))

    def removed(self, graph: ChannelGraph, counts: np.ndarray) -> np.ndarray:
        """Mark the first `counts` units of each group as removed."""
        removed = graph.nothing_removed()
        for group, ranking, count in zip(
            self.groups, self.rankings, counts, strict=True
        ):
            removed[group.roots[ranking.order[:count]]] = True
        return removed

    def by_share(self, share: float) -> np.ndarray:
        """Remove the same share of every pool, exactly."""
        counts = np.zeros(len(self.groups), int)
        for row in self.rows.values():
            wanted = math.floor(share * len(row) + 0.5)
            allowed = self._allowed(row)
            if wanted > len(allowed):
                raise BudgetError(
                    "So many units cannot go: `min_units` and `max_sparsity` keep "
                    f"{len(row) - len(allowed)} of {len(row)}. Ask for less, or "
                    f"loosen them. Received: sparsity={share}"
                )
            counts += np.bincount(allowed[:wanted], minlength=len(counts))
        return self._rounded(counts)

    def by_cost(
        self,
        cost_of: Callable[[np.ndarray], int],
        limit: int,
        budget: Budget,
        why_not: str,
    ) -> np.ndarray:
        """Remove the fewest units that bring the cost down to a limit."""
        row = self._one_row()

        def counts(length: int) -> np.ndarray:
            return self._rounded(np.bincount(row[:length], minlength=len(self.groups)))

        low, high = 0, len(row)
        if cost_of(counts(0)) <= limit:
            return counts(0)
        least = cost_of(counts(high))
        if least > limit:
            raise BudgetError(
                f"The target is out of reach: with all units removed that may go, "
                f"{least:,} {budget.measure} remain, and {limit:,} are asked for. Ask "
                "for less, or loosen `min_units`, `max_sparsity` and `layers`. Units "
                f"that may not go at all: {why_not}. Received: "
                f"{budget.kind}={budget.value}"
            )
        while high - low > 1:
            middle = (low + high) // 2
            if cost_of(counts(middle)) > limit:
                low = middle
            else:
                high = middle
        return self._given_back(counts(high), row[:high], cost_of, limit)

    def _given_back(
        self,
        counts: np.ndarray,
        row: np.ndarray,
        cost_of: Callable[[np.ndarray], int],
        limit: int,
    ) -> np.ndarray:
        """Give units back that the last removal, a costly one, made room for."""
        for owner in dict.fromkeys(row[::-1].tolist()):
            while counts[owner]:
                fewer = counts.copy()
                fewer[owner] = max(0, fewer[owner] - self.round_to)
                if cost_of(fewer) > limit:
                    break
                counts = fewer
        return counts

    def _one_row(self) -> np.ndarray:
        """Merge the pools' rows, each unit at its relative place."""
        rows = [self._allowed(row) for row in self.rows.values()]
        if not rows:
            return np.zeros(0, int)
        full = [len(row) for row in self.rows.values()]
        place = np.concatenate(
            [(np.arange(len(r)) + 0.5) / n for r, n in zip(rows, full, strict=True)]
        )
        joined: np.ndarray = np.concatenate(rows)
        return joined[np.argsort(place, kind="stable")]

    def _allowed(self, row: np.ndarray) -> np.ndarray:
        """Leave out of a row the last units of each group, which must stay."""
        allowed = np.zeros(len(row), bool)
        most = self.sizes - np.minimum(self.floors, self.sizes)
        for owner in np.unique(row):
            at = np.flatnonzero(row == owner)
            allowed[at[: most[owner]]] = True
        return row[allowed]

    def _rounded(self, counts: np.ndarray) -> np.ndarray:
        kept = -(-(self.sizes - counts) // self.round_to) * self.round_to
        return np.asarray(np.maximum(self.sizes - kept, 0))
