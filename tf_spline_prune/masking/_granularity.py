"""`Granularity`: what a mask removes at once."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.masking._slots import KernelAxes

_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Cells:
    """What goes together: single weights, blocks, or the groups of a pattern.

    Every granularity cuts a tensor into cells. From there on a cell is a score and
    a size, and the choice is the same for all of them.

    Attributes:
        scores: Array of shape `(cells,)`; the lowest go first.
        sizes: Array of shape `(cells,)`: how many weights go with each.
        num_weights: Number of weights of the tensor.
        mask: Takes a bool array of shape `(cells,)`, the cells that go; gives the
            mask in the tensor's shape, where true means keep.
    """

    scores: np.ndarray
    sizes: np.ndarray
    num_weights: int
    mask: Callable[[np.ndarray], np.ndarray]

    def may_go(self, max_sparsity: float) -> np.ndarray:
        """Mark the cells that may go at all.

        Where a tensor would lose its last weight, its best cell stays; among equals
        the last one.

        Args:
            max_sparsity: The largest fraction of its weights that the tensor loses.

        Returns:
            Bool array of shape `(cells,)`.
        """
        free = self.sizes > 0
        if free.any() and self.sizes.sum() == self.num_weights:
            free[len(free) - 1 - self.scores[::-1].argmax()] = False
        if max_sparsity < 1:
            most = aim(self.sizes, self.num_weights, max_sparsity)
            free &= lowest(self.scores, most, self.sizes)
        return free


def aim(sizes: np.ndarray, num_weights: int, fraction: float) -> float:
    """Return how many weights are to be pruned.

    Args:
        sizes: Array of shape `(cells,)`: how many weights go with each cell.
        num_weights: Number of weights that the fraction is of.
        fraction: Fraction of the weights that shall go.

    Returns:
        The product, cleared of float noise, and no more than can go; in whole cells
        where all have one size, as `round` does it.
    """
    # A fraction that went through float32 is off by 6e-8 at most.
    target = round(min(fraction * num_weights, sizes.sum()), 4)
    if not len(sizes) or sizes.min() != sizes.max() or not sizes[0]:
        return target
    return int(sizes[0]) * round(target / int(sizes[0]))


def lowest(
    scores: np.ndarray, target: float, sizes: np.ndarray | None = None
) -> np.ndarray:
    """Mark the cells of lowest score whose sizes add up nearest to a target.

    Cells are taken in order of score, among equals in order of place, and none is
    left out. Of two sums that are equally near, the smaller one is taken; where all
    sizes are the same, the one that `round` gives.

    Args:
        scores: Array of shape `(cells,)`.
        target: What the sizes shall add up to.
        sizes: Array of shape `(cells,)`; 1 for each if `None`.

    Returns:
        Bool array of shape `(cells,)`.
    """
    if not len(scores) or target <= 0:
        return np.zeros(len(scores), bool)
    if sizes is None or sizes.min() == sizes.max():  # counting is much faster
        target = target if sizes is None else target / sizes[0]
        last = _score_at(scores, None, target)
        gone = scores < last
        ties = np.flatnonzero(scores == last)
        more = round(target) - np.count_nonzero(gone)
    else:
        last = _score_at(scores, sizes, target)
        gone = scores < last
        ties = np.flatnonzero(scores == last)
        sums = np.cumsum(np.concatenate([[sizes @ gone], sizes[ties]]))
        more = np.abs(sums - target).argmin()
    gone[ties[:more]] = True
    return gone


def _score_at(
    scores: np.ndarray, sizes: np.ndarray | None, target: float
) -> np.floating:
    """Find the score of the cell with which the sum of sizes reaches the target.

    Two scores around it are guessed from a sample, and the cells outside are left
    out, again and again. `np.partition` knows no sizes, and is twenty times slower
    where most scores are equal: the zeros of a tensor that has a mask.
    """
    draw = np.random.default_rng(0)  # changes the time only
    apart = 2.5  # standard deviations of a place in the sample
    while len(scores) > _SAMPLE:
        total = len(scores) if sizes is None else sizes.sum()
        sample = np.sort(scores[draw.integers(len(scores), size=_SAMPLE)])
        fraction = min(target / max(total, 1), 1.0)
        slack = apart * math.sqrt(_SAMPLE * fraction * (1 - fraction))
        first, last = (
            sample[min(max(int(_SAMPLE * fraction + by), 0), _SAMPLE - 1)]
            for by in (-slack, slack)
        )
        part = scores < first
        below = _sum(sizes, part)
        if below < target:
            inside = scores <= last
            upto = _sum(sizes, inside)
            if upto < target:
                part = ~inside
                if not part.any():
                    return last
                target -= upto
            elif first == last:
                return first
            else:
                part ^= inside
                target -= below
        # Many equal scores: a single one, on whose side all the others are.
        apart = 0.0 if 2 * np.count_nonzero(part) > len(part) else 2.5
        scores, sizes = scores[part], None if sizes is None else sizes[part]
    if sizes is None:
        place = min(math.ceil(target), len(scores)) - 1
        return np.partition(scores, place)[place]
    order = np.argsort(scores)
    sums = np.cumsum(sizes[order])
    place = min(int(np.searchsorted(sums, target)), len(order) - 1)
    return scores[order[place]]


def _sum(sizes: np.ndarray | None, part: np.ndarray) -> int:
    return int(np.count_nonzero(part) if sizes is None else sizes @ part)


Pooling = Literal["mean", "max"]


class Granularity(ABC):
    """What a mask removes at once: single weights, blocks, or an m:n pattern.

    `Granularity.of` reads what a user writes.

    Attributes:
        spec: What `of` reads to give an equal granularity.
        most: The largest fraction of a tensor that it can remove.
        cell: How many consecutive inputs and outputs a block or a group spans.
        zeros: How many weights of a group go; 0 where all of them do.
    """

    most: float = 1.0
    cell: tuple[int, int] = (1, 1)
    zeros: int

    @staticmethod
    def of(spec: Any) -> "Granularity":
        """Read a granularity.

        Args:
            spec: `"weight"`; a block `(inputs, outputs)`, so many consecutive
                inputs of so many consecutive outputs, where `(4, 1)` is the block
                that LiteRT's sparse Dense kernel reads; `"m:n"`, such as `"2:4"`,
                m zeros in each n consecutive inputs; or a granularity.

        Returns:
            The granularity.

        Raises:
            ValueError: If it is none of these.

        Example:

        ```python
        Granularity.of("2:4").spec     # "2:4"
        ```
        """
        if isinstance(spec, Granularity):
            return spec
        if isinstance(spec, str):
            pattern = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", spec)
            if spec == "weight":
                return _Weights()
            if pattern:
                return _Pattern(*map(int, pattern.groups()))
            if spec == "unit":
                raise ValueError(
                    "Whole units are chosen by the plan of structured pruning, not "
                    "weight by weight. Received: granularity='unit'"
                )
        elif isinstance(spec, (tuple, list)) and len(spec) == 2:
            block = _Blocks(*spec)
            return _Weights() if (block.inputs, block.outputs) == (1, 1) else block
        raise ValueError(
            "`granularity` must be 'weight', a block of (inputs, outputs) such as "
            "(4, 1), or a pattern such as '2:4'. Received: granularity="
            f"{received(spec)}"
        )

    @property
    @abstractmethod
    def spec(self) -> Any:
        """What `of` reads to give an equal granularity."""

    @abstractmethod
    def cells(
        self, scores: np.ndarray, kernel_axes: KernelAxes, pooling: Pooling = "mean"
    ) -> Cells:
        """Cut a tensor into cells.

        Args:
            scores: Array in the shape of a weight tensor; higher means keep.
            kernel_axes: Its axes.
            pooling: How the scores of a block become one.

        Returns:
            Its cells, in order of place, then inputs, then outputs.

        Raises:
            ValueError: If the tensor has too few axes.
        """


@dataclass(frozen=True)
class _Weights(Granularity):
    zeros = 0

    @property
    def spec(self) -> str:
        return "weight"

    def cells(
        self, scores: np.ndarray, kernel_axes: KernelAxes, pooling: Pooling = "mean"
    ) -> Cells:
        sizes = np.broadcast_to(1, scores.size)
        return Cells(
            scores.ravel(), sizes, scores.size, lambda gone: ~gone.reshape(scores.shape)
        )


@dataclass(frozen=True)
class _Blocks(Granularity):
    inputs: int
    outputs: int
    zeros = 0

    def __post_init__(self) -> None:
        for size in (self.inputs, self.outputs):
            whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
            if not whole or size < 1:
                raise ValueError(
                    "A block must have a whole number of inputs and of outputs, at "
                    f"least 1. Received: granularity={(self.inputs, self.outputs)}"
                )

    @property
    def spec(self) -> tuple[int, int]:
        return (int(self.inputs), int(self.outputs))

    @property
    def cell(self) -> tuple[int, int]:  # type: ignore[override]
        return self.spec

    def cells(
        self, scores: np.ndarray, kernel_axes: KernelAxes, pooling: Pooling = "mean"
    ) -> Cells:
        pooled = view = kernel_axes.inputs_by_outputs(scores)
        *places, inputs, outputs = view.shape
        lengths = []
        for axis, size in ((-2, self.inputs), (-1, self.outputs)):
            starts = np.arange(0, view.shape[axis], size)
            lengths.append(np.diff(starts, append=view.shape[axis]))
            if pooling == "max":
                pooled = np.maximum.reduceat(pooled, starts, axis=axis)
            else:
                pooled = np.add.reduceat(pooled, starts, axis=axis, dtype="float64")
        counts = np.multiply.outer(*lengths)
        if pooling == "mean":
            pooled = pooled / counts

        def mask(gone: np.ndarray) -> np.ndarray:
            kept = ~gone.reshape(pooled.shape)
            rows = np.repeat(kept, lengths[0], axis=-2)
            return kernel_axes.restored(np.repeat(rows, lengths[1], axis=-1))

        sizes = np.broadcast_to(counts, pooled.shape).ravel()
        return Cells(pooled.ravel(), sizes, scores.size, mask)


@dataclass(frozen=True)
class _Pattern(Granularity):
    zeros: int
    of_inputs: int

    def __post_init__(self) -> None:
        if not 1 <= self.zeros < self.of_inputs:
            raise ValueError(
                "A pattern 'm:n' means m zeros in each n consecutive inputs, with m "
                f"at least 1 and less than n. Received: granularity={self.spec!r}"
            )

    @property
    def spec(self) -> str:
        return f"{self.zeros}:{self.of_inputs}"

    @property
    def most(self) -> float:  # type: ignore[override]
        return self.zeros / self.of_inputs

    @property
    def cell(self) -> tuple[int, int]:  # type: ignore[override]
        return (self.of_inputs, 1)

    def cells(
        self, scores: np.ndarray, kernel_axes: KernelAxes, pooling: Pooling = "mean"
    ) -> Cells:
        view = kernel_axes.inputs_by_outputs(scores)
        *places, inputs, outputs = view.shape
        padding = -inputs % self.of_inputs
        if padding:
            ends = [(0, 0)] * len(places) + [(0, padding), (0, 0)]
            view = np.pad(view, ends, constant_values=-np.inf)  # goes first
        groups = view.reshape(
            *places, (inputs + padding) // self.of_inputs, self.of_inputs, outputs
        )
        first = np.argsort(groups, axis=-2, kind="stable")[..., : self.zeros, :]
        zeros = np.zeros(groups.shape, bool)
        np.put_along_axis(zeros, first, True, axis=-2)
        lost = np.where(zeros & np.isfinite(groups), groups, 0)
        losses = lost.sum(axis=-2, dtype="float64")
        counts = np.full((groups.shape[-3], 1), self.zeros)
        counts[-1:] = max(0, self.zeros - padding)

        def mask(gone: np.ndarray) -> np.ndarray:
            kept = ~(zeros & gone.reshape(losses.shape)[..., None, :])
            return kernel_axes.restored(kept.reshape(view.shape)[..., :inputs, :])

        sizes = np.broadcast_to(counts, losses.shape).ravel()
        return Cells(losses.ravel(), sizes, scores.size, mask)
