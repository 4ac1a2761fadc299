"""Which weights of a model stay."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune.compat import MaskSlot, zeroed
from tf_spline_prune.errors import BudgetError, CriterionError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._grouping import sums_of
from tf_spline_prune.masking._granularity import (
    Cells,
    Granularity,
    Pooling,
    aim,
    lowest,
)
from tf_spline_prune.masking._slots import KernelAxes

Scope = Literal["layer", "output", "global"]


def choose(
    scores: Sequence[np.ndarray],
    sparsity: float | Sequence[float],
    granularity: Any = "weight",
    scope: Scope = "layer",
    pooling: Pooling = "mean",
    axes: Sequence[KernelAxes] | None = None,
    max_sparsity: float | None = None,
) -> list[np.ndarray]:
    """Choose the weights that stay: those of the highest scores.

    Single weights go in exactly the number that is asked for, also among equal
    scores, where the first ones go first: nothing hangs on chance. Whole blocks go
    until what is gone is as near to the target as whole blocks can come; a block at
    a ragged edge counts by the weights that it has. Of an m:n pattern with a
    sparsity below m/n, the groups go that lose least by it, and at or above m/n all
    of them; where n does not divide the inputs, the last group is filled up with
    zeros, which it loses first. Every tensor keeps at least one weight, or one block.

    Args:
        scores: One array per weight tensor, in its shape; higher means keep.
        sparsity: Fraction of the weights that shall go, in [0, 1), of all of them; or
            one fraction per tensor, and then the scope is `"layer"`.
        granularity: What `Granularity.of` reads: `"weight"`, `(4, 1)`, `"2:4"`.
        scope: What is ranked together: each tensor alone (`"layer"`), each of its
            outputs alone (`"output"`; where blocks span several outputs, these), or
            all tensors (`"global"`).
        pooling: Whether the score of a block is the `"mean"` or the `"max"` of the
            scores of its weights.
        axes: The axes of each tensor, for blocks and patterns. Defaults to
            `[..., inputs, outputs]` for all.
        max_sparsity: The largest fraction that one tensor may lose, in [0, 1]; 1 for no
            limit but the last weight. Defaults to 1; in the scope `"global"` to 0.99,
            or halfway between `sparsity` and 1 where that is more: no layer runs dry
            because its weights are small.

    Returns:
        One bool array per tensor, in its shape; true means keep.

    Raises:
        ValueError: If an argument is out of range, a score is not finite, or a tensor
            has too few axes for the granularity.
        BudgetError: If `sparsity` is above `max_sparsity`, or so many weights of all
            tensors together cannot go.

    Example:

    ```python
    keep, = choose([np.abs(kernel)], 0.8, granularity=(4, 1))
    ```
    """
    kind = Granularity.of(granularity)
    for name, value, known in (
        ("scope", scope, get_args(Scope)),
        ("pooling", pooling, get_args(Pooling)),
    ):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}. Received: {value!r}")
    arrays = [_checked(array, place) for place, array in enumerate(scores)]
    if axes is None:
        axes = [KernelAxes()] * len(arrays)
    _check_length("axes", axes, arrays)
    if isinstance(sparsity, (Sequence, np.ndarray)) and np.ndim(sparsity):
        scope = "output" if scope == "output" else "layer"
        fractions = [_fraction(fraction) for fraction in sparsity]
        _check_length("sparsity", fractions, arrays)
    else:
        fractions = [_fraction(sparsity)] * len(arrays)
    if max_sparsity is None:
        usual = max(0.99, (1 + max(fractions, default=0.0)) / 2)
        max_sparsity = usual if scope == "global" else 1.0
    elif not 0 <= max_sparsity <= 1:
        raise ValueError(
            f"`max_sparsity` must lie in [0, 1]. Received: max_sparsity={max_sparsity}"
        )
    if max(fractions, default=0.0) > max_sparsity:
        raise BudgetError(
            "`sparsity` must not be above `max_sparsity`. Received: sparsity="
            f"{max(fractions)}, max_sparsity={max_sparsity}"
        )
    if scope == "output":
        return [
            _by_output(array, fraction, kind, pooling, one, max_sparsity)
            for array, fraction, one in zip(arrays, fractions, axes, strict=True)
        ]
    cells = [
        kind.cells(a, kernel_axes, pooling)
        for a, kernel_axes in zip(arrays, axes, strict=True)
    ]
    if scope == "global" and cells:
        return _together(cells, fractions[0], max_sparsity)
    return [
        _together([one], fraction, max_sparsity)[0]
        for one, fraction in zip(cells, fractions, strict=True)
    ]


def _by_output(
    scores: np.ndarray,
    fraction: float,
    kind: Granularity,
    pooling: Pooling,
    axes: KernelAxes,
    max_sparsity: float,
) -> np.ndarray:
    """Choose within each output, or within those that the blocks span."""
    view = axes.inputs_by_outputs(scores)
    parts = []
    for start in range(0, view.shape[-1], kind.cell[1]):
        part = np.ascontiguousarray(view[..., start : start + kind.cell[1]])
        cells = kind.cells(part, KernelAxes(), pooling)
        parts += _together([cells], fraction, max_sparsity)
    return axes.restored(np.concatenate(parts, axis=-1))


def _together(
    tensors: Sequence[Cells], fraction: float, max_sparsity: float
) -> list[np.ndarray]:
    """Choose among the cells of several tensors by one ranking.

    A tensor alone loses what it can; several must meet their target.
    """
    free = [cells.may_go(max_sparsity) for cells in tensors]
    sizes = np.concatenate([cells.sizes for cells in tensors])
    target = aim(sizes, sum(cells.num_weights for cells in tensors), fraction)
    most = sizes.sum() - sizes[~np.concatenate(free)].sum()
    if len(tensors) > 1 and target - most > sizes.max(initial=0) / 2:
        raise BudgetError(
            f"So many weights cannot be pruned: at most {most:,} can, and {target:,} "
            "were asked for; every tensor keeps one weight, and none loses more than "
            f"`max_sparsity`. Received: sparsity={fraction}, "
            f"max_sparsity={max_sparsity}"
        )
    # What must stay is as if it were the best.
    scores = np.concatenate(
        [np.where(m, c.scores, np.inf) for c, m in zip(tensors, free, strict=True)]
    )
    gone = lowest(scores, min(target, most), sizes)
    parts = np.split(gone, np.cumsum([len(may) for may in free])[:-1])
    return [cells.mask(part) for cells, part in zip(tensors, parts, strict=True)]


def _checked(array: Any, place: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype("float64")
    if not np.isfinite(array).all():
        raise ValueError(
            "Scores must be finite numbers. Received: NaN or infinite scores of "
            f"tensor {place}, of shape {array.shape}"
        )
    return array


def _fraction(value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "fiu" or not 0 <= number < 1:
        raise ValueError(
            "`sparsity` is the fraction of weights to prune, a number of at least 0 "
            f"and less than 1. Received: sparsity={value!r}"
        )
    return float(number)


def _check_length(name: str, values: Sequence[Any], arrays: Sequence[Any]) -> None:
    if len(values) != len(arrays):
        raise ValueError(
            f"`{name}` must have one item per tensor, {len(arrays)}. Received: "
            f"{len(values)} items"
        )


_SAMPLE = 1024
_SMALL = 2**14  # so few are ranked sooner than guessed about


class Thinning:
    """Removes the weights of smallest magnitude, each tensor by itself.

    What `choose` would decide, in less time. Weights that are gone are zero after every
    step of the optimizer, so as a rule the weights alone tell the mask: if exactly as
    many of them are zero as were removed the last time. Else the mask is read.

    Args:
        slots: The masked weights.
    """

    def __init__(self, slots: Sequence[MaskSlot]) -> None:
        self.slots = slots
        self._gone = [0] * len(slots)

    def __call__(self, fractions: Sequence[float]) -> None:
        """Remove weights, beside those that are gone.

        Args:
            fractions: For each slot the fraction of weights that shall be gone, in [0,
                1), those included that are. One weight stays.

        Raises:
            CriterionError: If a weight is NaN or infinite; then nothing is changed.
        """
        thinned = [self._thinned(*each) for each in enumerate(fractions)]
        for place, (slot, new) in enumerate(zip(self.slots, thinned, strict=True)):
            if new is not None:
                keep, array = new
                slot.write(keep, array)
                self._gone[place] = keep.size - int(np.count_nonzero(keep))

    def _thinned(
        self, place: int, fraction: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the new mask and the new weights of a slot, if they are new."""
        slot = self.slots[place]
        array = slot.read()
        sizes = np.abs(array)
        keep = sizes > 0
        gone = array.size - int(np.count_nonzero(keep))
        known = 0 < gone == self._gone[place]
        if not known:
            keep = slot.keep().copy()
            gone = keep.size - int(np.count_nonzero(keep))
        count = round(round(fraction * array.size, 4))
        more = min(count, array.size - 1) - gone
        if more <= 0:
            return None
        if not sizes.max() < math.inf:
            raise CriterionError(
                "Weights that are NaN or infinite cannot be ranked. Train again from a "
                f"finite state. Received: {slot.key!r}"
            )
        fall = lightest(sizes, keep, more)
        array = array.copy() if known else zeroed(array, keep)
        keep.reshape(-1)[fall] = False
        array.reshape(-1)[fall] = 0
        return keep, array


def lightest(sizes: np.ndarray, keep: np.ndarray, count: int) -> np.ndarray:
    """Find the smallest of the magnitudes that are not gone.

    Args:
        sizes: Array of magnitudes, finite.
        keep: Array of its shape, bool: true where a weight is not gone yet.
        count: How many; at least 1, and at most as many as there are.

    Returns:
        Their places in the flat array. Among equal magnitudes the first ones.
    """
    sizes, keep = sizes.reshape(-1), keep.reshape(-1)
    places = ((sizes <= _guess(sizes, keep, count)) & keep).nonzero()[0]
    if len(places) < count:  # the guess was too low
        places = keep.nonzero()[0]
    return places[lowest(sizes[places], count)]


def _guess(sizes: np.ndarray, keep: np.ndarray, count: int) -> float:
    """Guess from a sample a magnitude that hardly ever has fewer below it."""
    if sizes.size <= _SMALL:
        return math.inf
    drawn = _places(sizes.size)
    sample = sizes[drawn][keep[drawn]]
    fraction = count / np.count_nonzero(keep)
    # Three standard deviations of a place in the sample.
    slack = 3 * math.sqrt(len(sample) * fraction * (1 - fraction)) + 3
    place = int(len(sample) * fraction + slack)
    if place >= len(sample):
        return math.inf
    return float(np.partition(sample, place)[place])


@functools.lru_cache(64)
def _places(size: int) -> np.ndarray:
    """Draw the places of a sample: the same ones each time."""
    return np.sort(np.random.default_rng(0).integers(size, size=_SAMPLE))


def masks_of_units(
    graph: ChannelGraph, removed: np.ndarray, slots: list[MaskSlot]
) -> list[np.ndarray]:
    """Return the masks that remove units.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        slots: The masked weights.

    Returns:
        For each slot an array of the weight's shape, bool: true means keep.
    """
    masks = []
    for slot in slots:
        keep = np.ones(tuple(slot.weight.shape), bool)
        fact = graph.weights.get((slot.path, slot.name))
        for axis, labels in enumerate(fact.axes if fact else ()):
            if labels is not None:
                gone = removed[graph.units_of(labels)]
                np.moveaxis(keep, axis, 0)[gone] = False
        masks.append(keep)
    return masks


def units_gone(graph: ChannelGraph, slots: list[MaskSlot]) -> np.ndarray:
    """Find the units that masks have removed: none of what makes them is left.

    Returns:
        Array of shape `(labels,)`, bool, indexed by unit.
    """
    masks = {(slot.path, slot.name): slot.keep() for slot in slots}
    gone = graph.nothing_removed()
    for group in graph.groups:
        left = []
        for member in group.producers:
            keep = masks.get((member.path, member.name))
            if keep is None:  # a weight without a mask keeps its units
                left.append(np.ones(group.num_units, bool))
                continue
            left.append(sums_of(member, np.asarray, keep) > 0)
        gone[group.roots] = ~np.any(left, axis=0)
    return gone
