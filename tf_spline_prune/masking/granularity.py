"""`Granularity`: what a mask removes at once."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tf_spline_prune._checks import received
from tf_spline_prune.masking.cells import Cells
from tf_spline_prune.masking.layout import Layout

Pooling = Literal["mean", "max"]


class Granularity(ABC):
    """What a mask removes at once: single weights, blocks, or an m:n pattern.

    `Granularity.of` reads what a user writes.

    Attributes:
        spec: What `of` reads to give an equal granularity.
        most: The largest share of a tensor that it can remove.
    """

    most: float = 1.0

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
        self, scores: np.ndarray, layout: Layout, pooling: Pooling = "mean"
    ) -> Cells:
        """Cut a tensor into cells.

        Args:
            scores: Array in the shape of a weight tensor; higher means keep.
            layout: Its axes.
            pooling: How the scores of a block become one.

        Returns:
            Its cells, in order of place, then inputs, then outputs.

        Raises:
            ValueError: If the tensor has too few axes.
        """


@dataclass(frozen=True)
class _Weights(Granularity):
    @property
    def spec(self) -> str:
        return "weight"

    def cells(
        self, scores: np.ndarray, layout: Layout, pooling: Pooling = "mean"
    ) -> Cells:
        sizes = np.broadcast_to(1, scores.size)
        return Cells(
            scores.ravel(), sizes, scores.size, lambda gone: ~gone.reshape(scores.shape)
        )


@dataclass(frozen=True)
class _Blocks(Granularity):
    inputs: int
    outputs: int

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

    def cells(
        self, scores: np.ndarray, layout: Layout, pooling: Pooling = "mean"
    ) -> Cells:
        pooled = view = layout.inputs_by_outputs(scores)
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
            return layout.restored(np.repeat(rows, lengths[1], axis=-1))

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

    def cells(
        self, scores: np.ndarray, layout: Layout, pooling: Pooling = "mean"
    ) -> Cells:
        view = layout.inputs_by_outputs(scores)
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
            return layout.restored(kept.reshape(view.shape)[..., :inputs, :])

        sizes = np.broadcast_to(counts, losses.shape).ravel()
        return Cells(losses.ravel(), sizes, scores.size, mask)
