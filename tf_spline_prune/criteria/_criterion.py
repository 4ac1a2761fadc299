"""The protocol of criteria: how much each unit of a group is worth."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from tf_spline_prune._checks import OneOf, hold
from tf_spline_prune.compat import Calibration
from tf_spline_prune.graph import ChannelGraph, Group

Reduction = Literal["mean", "sum", "max", "first"]
"""How the scores of a group's layers are joined."""
Normalizer = Literal["none", "mean", "max", "sum"]
"""What scores are divided by before groups are ranked together."""
Rows = Callable[[np.ndarray], np.ndarray]
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "max": np.max,
    "sum": np.sum,
}


# What the two knobs that criteria share must be.
KNOBS = {
    "reduction": OneOf(*get_args(Reduction)),
    "normalizer": OneOf(*get_args(Normalizer)),
}


def reduced(parts: Sequence[np.ndarray], reduction: Reduction) -> np.ndarray:
    """Reduce the scores of several layers to one score per unit.

    Args:
        parts: One array of shape `(units,)` per layer, at least one.
        reduction: How.

    Returns:
        Array of shape `(units,)`.
    """
    if reduction == "first":
        return np.asarray(parts[0])
    return np.asarray(_FUNCTIONS[reduction](np.asarray(parts), axis=0))


def reduced_rows(parts: Sequence[Rows], reduction: Reduction) -> Rows:
    """Reduce the distances of several layers, row by row.

    Args:
        parts: For each layer a function that takes indices of shape `(k,)` and
            gives distances of shape `(k, units)`.
        reduction: How.

    Returns:
        One such function.
    """
    if reduction == "first" or len(parts) == 1:
        return parts[0]
    join = np.maximum if reduction == "max" else np.add

    def rows(chosen: np.ndarray) -> np.ndarray:
        total = parts[0](chosen)
        for part in parts[1:]:
            join(total, part(chosen), out=total)
        return total / len(parts) if reduction == "mean" else total

    return rows


def divisor(scores: np.ndarray, normalizer: Normalizer) -> float:
    """Find what to divide scores by, so that they compare with others.

    Args:
        scores: Array of shape `(units,)`.
        normalizer: What they are measured in.

    Returns:
        A positive number: of the absolute scores the mean, the maximum or the sum;
        1 where that is zero, or for `"none"`.
    """
    if normalizer == "none" or not scores.any():
        return 1.0
    return float(_FUNCTIONS[normalizer](np.abs(scores)))


class Criterion(ABC):
    """Score the units of a group; higher means keep.

    A criterion knows no budget, no scope and no other group. Subclasses are
    dataclasses: their fields are their config, which goes into the plan's file.

    Attributes:
        name: The name under which the criterion is asked for.
        reduction: How the scores of a group's layers become one: their `"mean"`,
            `"sum"` or `"max"`, or the `"first"` layer alone.
        normalizer: What makes scores of different groups comparable before they
            are ranked together: nothing (`"none"`), or division by the group's
            `"mean"`, `"max"` or `"sum"`.
        per_saving: Whether the scores are losses that add up over groups, so that
            under a target they are weighed against what a unit saves.
    """

    name: ClassVar[str]
    per_saving: ClassVar[bool] = False
    reduction: Reduction = "mean"
    normalizer: Normalizer = "none"

    def __post_init__(self) -> None:
        hold(self, **KNOBS)

    def prepare(
        self,
        graph: ChannelGraph,
        data: Calibration | None = None,
        seed: int = 0,
    ) -> None:
        """Compute, once per model, whatever the scores need.

        Args:
            graph: The model's channel graph.
            data: Inputs of the model, perhaps with labels, where the criterion reads
                any. Defaults to `None`.
            seed: Seed of whatever is random. Defaults to `0`.
        """
        self.graph = graph
        self.data = data
        self.seed = seed

    def reason_against(self, group: Group) -> str | None:
        """Return why a group cannot be scored, or `None` if it can."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal criterion."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: getattr(self, f.name) for f in fields if f.init}

    @abstractmethod
    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep.

        Args:
            group: A group of the graph that was prepared.

        Returns:
            Array of shape `(units,)`, float64, finite; higher means keep.
        """

    def exchanged(self, group: Group, gone: np.ndarray) -> np.ndarray:
        """Return the units that go, once it is known how many.

        The ones that score lowest are not always those that go best together.

        Args:
            group: A group of the graph that was prepared.
            gone: Indices of the units of lowest score, shape `(k,)`.

        Returns:
            As many indices; `gone` itself unless a criterion knows better.
        """
        return gone


AnyCriterion = str | Criterion | Callable[..., Any]
"""What users may give for a criterion: a name, an instance, a function."""


@dataclass(frozen=True, eq=False)
class UnitPairs:
    """How far apart the units of a group are, pair by pair.

    Attributes:
        worth: Array of shape `(units,)`: of a close pair, the unit of smaller
            worth goes.
        dead: Array of shape `(units,)`, bool: units that do nothing and go first.
        rows: Takes indices of shape `(k,)`, gives distances of shape
            `(k, units)`; so memory is bounded whatever the number of units.
        scale: Takes arrays of units and of their twins, gives the positive
            factors by which a twin's output stands in for the unit's; 0 where it
            cannot.
    """

    worth: np.ndarray
    dead: np.ndarray
    rows: Callable[[np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray, np.ndarray], np.ndarray]


class PairCriterion(Criterion):
    """Measure how far apart units are: of a close pair, one is redundant.

    The planner removes greedily, always one unit of the closest surviving pair,
    so that both members of a duplicate pair are never taken for free.
    """

    @abstractmethod
    def pairs(self, group: Group) -> UnitPairs:
        """Return the distances between the units of a group.

        Args:
            group: A group of the graph that was prepared.

        Returns:
            The distances and what goes with them.
        """

    def scores(self, group: Group) -> np.ndarray:
        """Score each unit by the distance to its nearest neighbour.

        This is the view before any removal; the planner uses `pairs`.

        Returns:
            Array of shape `(units,)`; zero for dead units.
        """
        pairs = self.pairs(group)
        count = group.num_units
        nearest = np.full(count, np.inf)
        for start in range(0, count, 256):
            chosen = np.arange(start, min(start + 256, count))
            distances = pairs.rows(chosen)
            distances[np.arange(len(chosen)), chosen] = np.inf
            nearest[chosen] = distances.min(axis=1) if count > 1 else 0.0
        return np.where(pairs.dead, 0.0, nearest)
