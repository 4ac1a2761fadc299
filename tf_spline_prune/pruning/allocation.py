"""`Allocation`: from rankings and a budget to numbers of units."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning.budget import Budget, amount
from tf_spline_prune.pruning.ranking import Ranking

# What a choice costs: a function of how many units of each group are gone.
CostOf = Callable[[np.ndarray], float]


class Allocation:
    """Turns rankings of groups into numbers of units to remove.

    All units stand in one row, by their place among those that they are ranked
    with; a budget is a point in that row, and everything before it goes.

    Where units went before, the row and the shares are those of all units that there
    were: so several steps end where one does.

    Args:
        groups: The groups.
        rankings: Their rankings.
        pools: The pool of each group.
        floors: How many units of each group must stay.
        round_to: Of what the number that stays is a multiple.
        originals: How many units each group had at first; as many as now if `None`.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        rankings: Sequence[Ranking],
        pools: Sequence[Hashable],
        floors: Sequence[int],
        round_to: int,
        originals: Sequence[int] | None = None,
    ) -> None:
        self.groups = groups
        self.rankings = rankings
        self.sizes = np.array([group.num_units for group in groups], int)
        self.originals = np.array(self.sizes if originals is None else originals, int)
        self.floors = np.array(floors, int)
        self.round_to = round_to
        # For each pool, how many units there were, and how many of them are gone.
        self.whole: dict[Hashable, int] = {}
        self.gone: dict[Hashable, int] = {}
        # For each pool, the owner group of each unit, in the order of going.
        self.rows: dict[Hashable, np.ndarray] = {}
        for pool in dict.fromkeys(pools):
            mine = [i for i, p in enumerate(pools) if p == pool]
            owner = np.repeat(mine, self.sizes[mine])
            place = np.concatenate([np.arange(self.sizes[i]) for i in mine])
            keys = np.concatenate([rankings[i].keys for i in mine])
            self.rows[pool] = owner[np.lexsort((place, owner, keys))]
            self.whole[pool] = int(self.originals[mine].sum())
            self.gone[pool] = self.whole[pool] - len(owner)

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
        for pool, row in self.rows.items():
            wanted = self._wanted(share, self.whole[pool], self.gone[pool])
            allowed = self._allowed(row)
            names = [self.groups[owner].name for owner in np.unique(row)]
            self._require(wanted, len(allowed), len(row), names, share)
            counts += np.bincount(allowed[:wanted], minlength=len(counts))
        return self._rounded(counts)

    @staticmethod
    def _wanted(share: float, whole: int, gone: int) -> int:
        """Count how many more units go for a share of all that there were."""
        return max(0, math.floor(share * whole + 0.5) - gone)

    def by_shares(self, shares: Sequence[float]) -> np.ndarray:
        """Remove of each group its own share, exactly."""
        counts = np.floor(np.array(shares, float) * self.sizes + 0.5).astype(int)
        most = self.sizes - np.minimum(self.floors, self.sizes)
        for number, group in enumerate(self.groups):
            self._require(
                int(counts[number]),
                int(most[number]),
                group.num_units,
                [group.name],
                {group.name: shares[number]},
            )
        return self._rounded(counts)

    def by_cost(
        self,
        cost_of: CostOf,
        limit: float,
        budget: Budget,
        why_not: str,
        price: CostOf,
        probes: int | None = None,
        steady: bool = True,
    ) -> np.ndarray:
        """Remove the fewest units that bring the cost down to a limit.

        Args:
            cost_of: What a choice costs.
            limit: What it may cost.
            budget: What the user asked for, for the messages.
            why_not: Why other units must stay, for the messages.
            price: What stands in for the cost where many choices are compared.
            probes: How many choices may be tried, the whole model not counted;
                `None` is as many as it takes.
            steady: Whether the cost falls with every unit; otherwise each point
                of the row is tried.

        Returns:
            Array of shape `(groups,)`: how many units of each go.

        Raises:
            BudgetError: If no choice costs so little.
        """
        none = np.zeros(len(self.groups), int)
        if cost_of(self._rounded(none)) <= limit:
            return self._rounded(none)
        left = math.inf if probes is None else probes - 1

        def enough(counts: np.ndarray) -> bool:
            return cost_of(counts) <= limit

        row = self._one_row(price, enough if probes is None else None)

        def counts(length: int) -> np.ndarray:
            return self._rounded(np.bincount(row[:length], minlength=len(self.groups)))

        low, high = 0, len(row)
        least = cost_of(counts(high))
        if not steady:
            costs = [cost_of(choice) for choice in self._prefixes(row)]
            least = min(costs)
            high = next((n for n, c in enumerate(costs) if c <= limit), high)
            low = high
        if least > limit:
            raise BudgetError(
                f"The target is out of reach: with all units removed that may go, "
                f"{amount(least)} {budget.measure} remain, and {amount(limit)} are "
                "asked for. Ask for less, or loosen `min_units`, `max_sparsity` and "
                f"`layers`. Units that may not go at all: {why_not}. Received: "
                f"{budget.kind}={budget.value}"
            )
        while high - low > 1 and left > 0:
            left -= 1
            middle = (low + high) // 2
            if cost_of(counts(middle)) > limit:
                low = middle
            else:
                high = middle
        return self._given_back(counts(high), row[:high], cost_of, limit, left)

    def _prefixes(self, row: np.ndarray) -> Iterator[np.ndarray]:
        """Give the choice at each point of the row, from none to all."""
        counts = np.zeros(len(self.groups), int)
        yield self._rounded(counts)
        for owner in row:
            counts[owner] += 1
            yield self._rounded(counts)

    def _given_back(
        self,
        counts: np.ndarray,
        row: np.ndarray,
        cost_of: CostOf,
        limit: float,
        left: float,
    ) -> np.ndarray:
        """Give units back that the last removal, a costly one, made room for."""
        for owner in dict.fromkeys(row[::-1].tolist()):
            while counts[owner] and left > 0:
                left -= 1
                fewer = counts.copy()
                fewer[owner] = max(0, fewer[owner] - self.round_to)
                if cost_of(fewer) > limit:
                    break
                counts = fewer
        return counts

    def _one_row(
        self, price: CostOf, enough: Callable[[np.ndarray], bool] | None = None
    ) -> np.ndarray:
        """Merge the pools' rows, each unit at its relative place.

        Args:
            price: What a choice costs, where that decides.
            enough: Tells of a choice that no further unit need be put in order.

        Returns:
            The owner group of each unit, in the order of going.
        """
        rows = {pool: self._allowed(row) for pool, row in self.rows.items()}
        if not rows:
            return np.zeros(0, int)
        place = np.concatenate(
            [
                (self.gone[pool] + np.arange(len(row)) + 0.5) / self.whole[pool]
                for pool, row in rows.items()
            ]
        )
        joined: np.ndarray = np.concatenate([*rows.values()])
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

    def _require(
        self,
        wanted: int,
        allowed: int,
        size: int,
        names: Sequence[str],
        sparsity: object,
    ) -> None:
        if wanted > allowed:
            raise BudgetError(
                "So many units cannot go: `min_units` and `max_sparsity` keep "
                f"{size - allowed} of the {size} units of {', '.join(names)}. Ask for "
                f"less, or loosen them. Received: sparsity={sparsity}"
            )
