"""`Magnitude`: units with small weights go first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune.criteria.criterion import Criterion, Normalizer
from tf_spline_prune.graph import Group


@dataclass
class Magnitude(Criterion):
    """The p-norm of a unit's incoming weights, averaged over the group's layers.

    Each layer's norms are divided by their mean first, so that layers of
    different scale count the same.

    Args:
        p: 1 or 2.

    Raises:
        ValueError: If `p` is neither.

    Example:

    ```python
    tsp.plan(model, tsp.criteria.Magnitude(p=1), sparsity=0.5)
    ```

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """

    p: int = 2
    name: ClassVar[str] = "magnitude"
    normalizer: ClassVar[Normalizer] = "mean"

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise ValueError(f"`p` must be 1 or 2. Received: p={self.p}")

    def scores(self, group: Group) -> np.ndarray:
        """Score the units; see the class."""
        norms = []
        for member in group.producers:
            norm = self.graph.lengths(member, self.p)
            norms.append(norm / norm.mean() if norm.any() else norm)
        return np.asarray(np.mean(norms, axis=0))
