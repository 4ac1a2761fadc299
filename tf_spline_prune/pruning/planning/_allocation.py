"""`Allocation`: from rankings and a budget to numbers of units."""

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import Progress, Tensor
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import Barrier, ChannelGraph, Group
from tf_spline_prune.graph._cost import CostOfCounts
from tf_spline_prune.partition.codes._max_regions import log_regions
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.planning._budget import Budget, amount
from tf_spline_prune.pruning.planning._latency import CANDIDATES, LatencyOfCounts
from tf_spline_prune.pruning.planning._ranking import Ranking, reasons

# What a choice costs: a function of how many units of each group are gone.
CostOf = Callable[[np.ndarray], float]


class Allocation:
    """Turns rankings of groups into numbers of units to remove.

    All units stand in one row, by their place among those that they are ranked
    with; a budget is a point in that row, and everything before it goes.

    Where units went before, the row and the fractions are those of all units that there
    were: so several steps end where one does.

    Args:
        groups: The groups.
        rankings: Their rankings.
        pools: The pool of each group.
        floors: How many units of each group must stay.
        round_to: Of what the number that stays is a multiple; one number per group, or
            one for all.
        originals: How many units each group had at first; as many as now if `None`.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        rankings: Sequence[Ranking],
        pools: Sequence[Hashable],
        floors: Sequence[int],
        round_to: int | Sequence[int],
        originals: Sequence[int] | None = None,
    ) -> None:
        self.groups = groups
        self.rankings = rankings
        self.sizes = np.array([group.num_units for group in groups], int)
        self.originals = np.array(self.sizes if originals is None else originals, int)
        self.floors = np.array(floors, int)
        self.round_to = np.broadcast_to(np.array(round_to, int), len(groups))
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

    def by_fraction(self, fraction: float) -> np.ndarray:
        """Remove the same fraction of every pool, exactly."""
        counts = np.zeros(len(self.groups), int)
        for pool, row in self.rows.items():
            wanted = self._wanted(fraction, self.whole[pool], self.gone[pool])
            allowed = self._allowed(row)
            names = [self.groups[owner].name for owner in np.unique(row)]
            self._require(wanted, len(allowed), len(row), names, fraction)
            counts += np.bincount(allowed[:wanted], minlength=len(counts))
        return self._rounded(counts)

    @staticmethod
    def _wanted(fraction: float, whole: int, gone: int) -> int:
        """Count how many more units go for a fraction of all that there were."""
        return max(0, math.floor(fraction * whole + 0.5) - gone)

    def by_fractions(self, fractions: Sequence[float]) -> np.ndarray:
        """Remove of each group its own fraction, exactly."""
        counts = np.floor(np.array(fractions, float) * self.sizes + 0.5).astype(int)
        most = self.sizes - np.minimum(self.floors, self.sizes)
        for number, group in enumerate(self.groups):
            self._require(
                int(counts[number]),
                int(most[number]),
                group.num_units,
                [group.name],
                {group.name: fractions[number]},
            )
        return self._rounded(counts)

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
        """Remove the fewest units that bring the cost down to a limit.

        Args:
            cost_of: What a choice costs.
            limit: What it may cost.
            budget: What the user asked for, for the messages.
            why_not: Why other units must stay, for the messages.
            price: What stands in for the cost where many choices are compared.
            candidates: How many choices may be tried, the whole model not counted;
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
        left = math.inf if candidates is None else candidates - 1

        def enough(counts: np.ndarray) -> bool:
            return cost_of(counts) <= limit

        row = self._one_row(price, enough if candidates is None else None)

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
                "The target is out of reach: with all prunable units pruned, "
                f"{amount(least)} {budget.measure} remain, and {amount(limit)} were "
                "asked for. Ask for less, or loosen `min_units`, `max_sparsity` and "
                f"`layers`. Unprunable units: {why_not}. Received: "
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
        """Return the choice at each point of the row, from none to all."""
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
        """Restore units that the last removal, a costly one, made room for."""
        for owner in dict.fromkeys(row[::-1].tolist()):
            while counts[owner] and left > 0:
                left -= 1
                fewer = counts.copy()
                fewer[owner] = max(0, fewer[owner] - self.round_to[owner])
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
                "So many units cannot be pruned: `min_units` and `max_sparsity` keep "
                f"{size - allowed} of the {size} units of {', '.join(names)}. Ask for "
                f"less, or loosen them. Received: sparsity={sparsity}"
            )


# Groups go in steps of about this fraction of their units, once they are big.
_STEPS = 128


class RegionAllocation(Allocation):
    """Takes each unit from the group where the region bound loses the least.

    Again and again the next-ranked unit of that group goes for which the logarithm
    of `RegionBound` falls least for each unit of cost saved (with `sparsity`: for
    each unit). Groups of 256 units and more go in steps of several, about 1/128 of
    the group; the last step is taken back as far as the budget allows.

    The criterion decides which units of a group go, the bound how many.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        groups: Sequence[Group],
        rankings: Sequence[Ranking],
        floors: Sequence[int],
        round_to: int,
        originals: Sequence[int] | None = None,
    ) -> None:
        pools = ["all"] * len(groups)
        super().__init__(groups, rankings, pools, floors, round_to, originals)
        self.bound = RegionBound(graph, groups)

    def by_fraction(self, fraction: float) -> np.ndarray:
        """Remove a fraction of all units, exactly."""
        total = int(self.sizes.sum())
        whole = int(self.originals.sum())
        wanted = self._wanted(fraction, whole, whole - total)
        allowed = int((self.sizes - np.minimum(self.floors, self.sizes)).sum())
        names = [group.name for group in self.groups]
        self._require(wanted, allowed, total, names, fraction)
        row = self._one_row(
            lambda counts: float(-counts.sum()), lambda counts: counts.sum() >= wanted
        )
        return self._rounded(np.bincount(row[:wanted], minlength=len(self.groups)))

    def _one_row(
        self, price: CostOf, enough: Callable[[np.ndarray], bool] | None = None
    ) -> np.ndarray:
        """Order all units by what the bound loses with them, greedily.

        Between two steps only the group that lost units is looked at again, and
        those that narrow the network, whose loss hangs on all others. The price of
        the others can only have risen, for a unit saves less in a smaller network,
        so a group is looked at again when it comes first (a lazy heap).
        """
        counts = np.zeros(len(self.groups), int)
        steps = self.originals // (_STEPS * self.round_to)
        steps = np.maximum(1, steps) * self.round_to
        least = -(-self.floors // self.round_to) * self.round_to
        log, depths = self.bound(counts)
        cost = price(counts)
        version = np.zeros(len(counts), int)
        narrowing: set[int] = set()
        heap: list[tuple[float, float, int, int, int]] = []
        moment, order = 0, []

        def next_size(owner: int) -> int:
            kept = self.sizes[owner] - counts[owner]
            multiple = self.round_to[owner]
            last = (kept - 1) // multiple * multiple
            target = last - (steps[owner] - multiple)
            return int(kept - max(target, min(least[owner], kept)))

        def look(owner: int) -> None:
            size = next_size(owner)
            narrowing.discard(owner)
            version[owner] += 1
            if size <= 0:
                return
            fewer = counts.copy()
            fewer[owner] += size
            after, narrowed = self.bound(fewer)
            loss, saved = max(0.0, log - after), cost - price(fewer)
            rate = loss / saved if saved > 0 else math.inf
            if narrowed != depths:
                narrowing.add(owner)
            heapq.heappush(heap, (rate, loss / size, owner, version[owner], moment))

        for owner in range(len(counts)):
            look(owner)
        progress = Progress(int((self.sizes / steps).sum()), "step")
        while heap:
            _, _, owner, seen, when = heapq.heappop(heap)
            if seen != version[owner]:
                continue
            if when != moment:
                look(owner)
                continue
            size = next_size(owner)
            order.append(np.full(size, owner))
            counts[owner] += size
            moment += 1
            before = depths
            log, depths = self.bound(counts)
            cost = price(counts)
            if enough is not None and enough(counts):
                break
            again = range(len(counts)) if depths != before else {owner, *narrowing}
            for other in list(again):
                look(other)
            progress.step()
        return np.concatenate(order) if order else np.zeros(0, int)


class RegionBound:
    """The logarithm of an upper bound on a network's number of linear regions.

    A network whose hidden layers have `n_1 .. n_L` units and whose input has the
    dimension `n_0` has at most

        prod_l sum_{j = 0 .. d_l} C(n_l, j),  d_l = min(n_0, n_1, .., n_l)

    linear regions: what reaches layer l spans `d_l` dimensions at most, and `n_l`
    hyperplanes cut such a space into no more pieces. The bound is that of one
    knot a unit.

    Each call of a layer that produces units counts as one layer of the chain, whether
    or not an activation follows it; depthwise layers and what only shapes tensors
    do not, and neither do the layers that make the model's outputs. The channels
    of a convolution count as its units, and those of an image as the dimensions
    of the input, whatever the number of positions. Where tensors run side by side,
    as along a shortcut, only the layers through which everything passes narrow
    what comes after them, so it stays an upper bound for branched networks.

    Args:
        graph: The model's channel graph.
        groups: The groups whose numbers of units are free.

    Source: Raghu et al., "On the Expressive Power of Deep Neural Networks", 2017;
    Montúfar, "Notes on the number of linear regions", 2017; Serra et al., "Bounding
    and Counting Linear Regions", 2018. As a guide for pruning: Cai et al., "Getting
    Away with More Network Pruning: From Sparsity to Geometry and Linear Regions",
    CPAIOR 2023.
    """

    def __init__(self, graph: ChannelGraph, groups: Sequence[Group]) -> None:
        self._owner = graph.owners(groups)
        self._sizes = np.array([group.num_units for group in groups], int)
        self.inputs, events = self._read(graph)
        # For each event: whether it is a layer, or else a place that all must pass.
        self._is_layer = [is_layer for is_layer, _, _ in events]
        self._full = np.array([full for _, full, _ in events], int)
        self._places = np.zeros((len(events), len(groups)), int)
        for row, (_, _, owners) in enumerate(events):
            self._places[row, owners] = 1

    def __call__(self, counts: np.ndarray) -> tuple[float, tuple[int, ...]]:
        """Return the bound of a choice.

        Args:
            counts: Array of shape `(groups,)`: how many units of each are gone.

        Returns:
            The natural logarithm of the bound, and the dimension `d` at each step,
            which tells whether two choices narrow the network alike.
        """
        total, depth, depths = 0.0, self.inputs, []
        widths = (self._full - self._places @ counts).tolist()
        for is_layer, width in zip(self._is_layer, widths, strict=True):
            if is_layer:
                total += log_regions(width, min(width, depth))
            else:
                depth = min(depth, width)
            depths.append(depth)
        return total, tuple(depths)

    def _read(
        self, graph: ChannelGraph
    ) -> tuple[int, list[tuple[bool, int, list[int]]]]:
        """List in the order of computation what produces units and what narrows."""
        calls = graph.graph.calls
        last: dict[Tensor, int] = {}  # when each tensor is consumed for the last time
        for number, call in enumerate(calls):
            last.update(dict.fromkeys(call.inputs, number))
        alive = {tensor for tensor in graph.graph.input_tensors if tensor in last}
        size = sum(
            graph.axes[tensor].shape[-1] or 1
            for tensor in alive
            if graph.axes[tensor].rank > 1
        )
        made = [tensor for call in calls for tensor in call.outputs]
        ends = self._units(graph, [tensor for tensor in made if tensor not in last])
        makers: dict[str, list[np.ndarray]] = {}
        for name, roots in graph.makers.items():
            makers.setdefault(graph.path_of_maker(name), []).append(np.unique(roots))
        events: list[tuple[bool, int, list[int]]] = []
        for number, call in enumerate(calls):
            for roots in makers.get(call.path, ()):
                if not np.isin(roots, ends).any():
                    events.append((True, len(roots), self._owners(roots)))
            alive.update(call.outputs)
            alive = {tensor for tensor in alive if last.get(tensor, -1) > number}
            if len(alive) == 1:
                roots = self._units(graph, alive)
                cut = (False, len(roots), self._owners(roots))
                if len(roots) and self._whole(roots) and cut not in events[-1:]:
                    events.append(cut)
        return max(1, size), events

    def _owners(self, roots: np.ndarray) -> list[int]:
        owners = np.unique(self._owner[roots])
        return [int(owner) for owner in owners if owner >= 0]

    def _whole(self, roots: np.ndarray) -> bool:
        """Return whether a tensor holds all units of each group that it holds."""
        owners, counts = np.unique(self._owner[roots], return_counts=True)
        known = owners >= 0
        return bool((self._sizes[owners[known]] == counts[known]).all())

    @staticmethod
    def _units(graph: ChannelGraph, tensors: Iterable[Tensor]) -> np.ndarray:
        """Return the units that lie on the axes of tensors."""
        found = [
            graph.units_of(labels)
            for tensor in tensors
            for labels in graph.axes[tensor].kept.values()
        ]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, int)


Achieved = tuple[float, float]


def solve(
    budget: Budget,
    allocation: Allocation,
    graph: ChannelGraph,
    barriers: Sequence[Barrier],
    fractions: Sequence[float] | None,
) -> tuple[np.ndarray, Achieved]:
    """Find how many units of each group go.

    Args:
        budget: What the user asked for.
        allocation: The groups, in the order of going.
        graph: The model's channel graph.
        barriers: Who must stay, for the messages.
        fractions: The fraction of each group, where `sparsity` names layers.

    Returns:
        Array of shape `(groups,)`, and what the budget counts before and after:
        units, or the cost that the target bounds.

    Raises:
        BudgetError: If the target is above what is there or out of reach.
    """
    if budget.measure is None:
        if fractions is None:
            counts = allocation.by_fraction(float(budget.value))
            total = int(allocation.sizes.sum())
        else:
            counts = allocation.by_fractions(fractions)
            total = sum(
                size
                for size, fraction in zip(
                    allocation.sizes.tolist(), fractions, strict=True
                )
                if fraction
            )
        return counts, (total, total - int(counts.sum()))
    groups = list(allocation.groups)
    costs = CostOfCounts(graph, groups, budget.weight_dtype)
    none = np.zeros(len(groups), int)
    if budget.kind == "target_latency":
        return _by_latency(budget, allocation, graph, barriers, costs)

    def cost_of(counts: np.ndarray) -> int:
        return costs(str(budget.measure), counts)

    full = cost_of(none)
    counts = allocation.by_cost(
        cost_of, budget.limit(full), budget, reasons(barriers), cost_of
    )
    return counts, (full, cost_of(counts))


def _by_latency(
    budget: Budget,
    allocation: Allocation,
    graph: ChannelGraph,
    barriers: Sequence[Barrier],
    costs: CostOfCounts,
) -> tuple[np.ndarray, Achieved]:
    def build(counts: np.ndarray) -> Any:
        return build_pruned(graph, allocation.removed(graph, counts), graph.arrays)

    groups: list[Group] = list(allocation.groups)
    latency_of = LatencyOfCounts(graph, groups, budget.latency, build)
    full, _ = latency_of(np.zeros(len(groups), int))
    limit = budget.limit(full)

    def cost_of(counts: np.ndarray) -> float:
        before, after = latency_of(counts)
        # A fraction is one of what the model took in the same measurement.
        return after * full / before if isinstance(budget.value, float) else after

    def price(counts: np.ndarray) -> float:
        return costs("macs", counts) or costs("params", counts)

    counts = allocation.by_cost(
        cost_of,
        limit,
        budget,
        reasons(barriers),
        price,
        None if latency_of.is_table else CANDIDATES,
        steady=not latency_of.is_table,
    )
    return counts, latency_of(counts)
