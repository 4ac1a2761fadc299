"""`Magnitude`: units with small weights go first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune._checks import OneOf, hold
from tf_spline_prune.criteria._criterion import (
    Criterion,
    Normalizer,
    Reduction,
    divisor,
    reduced,
)
from tf_spline_prune.graph import Group


@dataclass
class Magnitude(Criterion):
    """Score units by the p-norm of their incoming weights, averaged over layers.

    Each layer's norms are divided by their mean first, so that layers of
    different scale count the same.

    Args:
        p: 1 or 2. Defaults to `2`.
        reduction: How the layers of a group are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`. Defaults to `"mean"`.
        normalizer: What the norms of each layer, and those of each group, are divided
            by: `"mean"`, `"max"`, `"sum"` or `"none"`. Defaults to `"mean"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    ```python
    tsp.plan(model, tsp.criteria.Magnitude(p=1), sparsity=0.5)
    ```

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """

    p: int = 2
    reduction: Reduction = "mean"
    normalizer: Normalizer = "mean"
    name: ClassVar[str] = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, p=OneOf(1, 2))

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        norms = []
        for member in group.producers:
            norm = self.graph.lengths(member, self.p)
            norms.append(norm / divisor(norm, self.normalizer))
        return reduced(norms, self.reduction)
