"""`Random`: the baseline that every criterion has to beat."""

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune.criteria._criterion import Criterion
from tf_spline_prune.graph import Group


@dataclass
class Random(Criterion):
    """Score units at random, fixed by the plan's seed and the group's name.

    Example:

    ```python
    tsp.plan(model, "random", sparsity=0.5, seed=1)
    ```
    """

    name: ClassVar[str] = "random"

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        rng = np.random.default_rng([self.seed, zlib.crc32(group.name.encode())])
        return rng.random(group.num_units)
