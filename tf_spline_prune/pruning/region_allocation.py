"""`RegionAllocation`: the widths that keep the bound on linear regions large."""

import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np

from tf_spline_prune.compat import Progress
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.pruning.allocation import Allocation, CostOf
from tf_spline_prune.pruning.ranking import Ranking
from tf_spline_prune.pruning.region_bound import RegionBound

# Groups go in steps of about this share of their units, once they are big.
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

    def by_share(self, share: float) -> np.ndarray:
        """Remove a share of all units, exactly."""
        total = int(self.sizes.sum())
        whole = int(self.originals.sum())
        wanted = self._wanted(share, whole, whole - total)
        allowed = int((self.sizes - np.minimum(self.floors, self.sizes)).sum())
        names = [group.name for group in self.groups]
        self._require(wanted, allowed, total, names, share)
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
            last = (kept - 1) // self.round_to * self.round_to
            target = last - (steps[owner] - self.round_to)
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
