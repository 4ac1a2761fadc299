"""`BatchNormScale`: units that BatchNormalization scales down go first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune.criteria._criterion import (
    Criterion,
    Normalizer,
    Reduction,
    divisor,
    reduced,
)
from tf_spline_prune.graph import Group, Member


@dataclass
class BatchNormScale(Criterion):
    """Score units by their absolute BatchNormalization scale, averaged over layers.

    Scales are compared across the whole model as they are. Groups without a
    BatchNormalization that has a scale cannot be scored and stay.

    Args:
        reduction: How the layers of a group are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`. Defaults to `"mean"`.
        normalizer: What the scales of each layer, and those of each group, are divided
            by: `"none"`, `"mean"`, `"max"` or `"sum"`. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    ```python
    tsp.plan(model, "batchnorm_scale", sparsity=0.5)
    ```

    Source: Liu et al., "Learning Efficient Convolutional Networks through
    Network Slimming", ICCV 2017; the mask of You et al., ICLR 2020.
    """

    reduction: Reduction = "mean"
    normalizer: Normalizer = "none"
    name: ClassVar[str] = "batchnorm_scale"

    def reason_against(self, group: Group) -> str | None:
        """Return why a group cannot be scored, or `None` if it can."""
        if self._gammas(group):
            return None
        return "batchnorm_scale needs a BatchNormalization with a scale"

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        scales = []
        for member in self._gammas(group):
            scale = np.abs(self.graph.rows(member)).mean(axis=1)
            scales.append(scale / divisor(scale, self.normalizer))
        return reduced(scales, self.reduction)

    def _gammas(self, group: Group) -> list[Member]:
        return [member for member in group.members if member.name == "gamma"]
