"""`FPGM`: units near the geometric median of their layer go first."""

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
from tf_spline_prune.graph import Group

# Distances of so many pairs are held at a time.
_PAIRS = 2**24


@dataclass
class FPGM(Criterion):
    """Score units by the summed distance of their weights to those of all others.

    A unit in the middle of its layer can be made up for by the others, however
    large its weights are. Each layer's sums are divided by their mean first, as
    those of `Magnitude` are.

    Args:
        reduction: How the layers of a group are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`. Defaults to `"mean"`.
        normalizer: What the sums of each layer, and those of each group, are divided
            by: `"mean"`, `"max"`, `"sum"` or `"none"`. Defaults to `"mean"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    ```python
    tsp.plan(model, "fpgm", sparsity=0.5)
    ```

    Source: He et al., "Filter Pruning via Geometric Median for Deep Convolutional
    Neural Networks Acceleration", CVPR 2019.
    """

    reduction: Reduction = "mean"
    normalizer: Normalizer = "mean"
    name: ClassVar[str] = "fpgm"

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        sums = []
        for member in group.producers:
            total = _distance_sums(self.graph.rows(member))
            sums.append(total / divisor(total, self.normalizer))
        return reduced(sums, self.reduction)


def _distance_sums(rows: np.ndarray) -> np.ndarray:
    """Sum the distances of each row to all others.

    Args:
        rows: Array of shape `(units, d)`.

    Returns:
        Array of shape `(units,)`, float64.
    """
    # Distances do not see a shift or a scale; around the mean rounding is least.
    centre = rows.mean(axis=0, dtype="float64").astype(rows.dtype)
    rows = (rows - centre).astype("float32", copy=False)
    scale = float(max(rows.max(initial=0.0), -rows.min(initial=0.0)))
    if not 0 < scale < np.inf:
        return np.full(len(rows), scale)
    rows /= np.float32(scale)
    squares = np.einsum("nd,nd->n", rows, rows)
    count = len(rows)
    step = max(1, _PAIRS // count)
    sums = np.empty(count)
    for start in range(0, count, step):
        # One array times itself takes half as long as two arrays.
        block = rows if step >= count else rows[start : start + step]
        distance = block @ rows.T
        distance *= -2
        distance += squares
        distance += squares[start : start + step, None]
        np.maximum(distance, 0, out=distance)
        np.sqrt(distance, out=distance)
        at = np.arange(len(distance))
        distance[at, at + start] = 0.0
        sums[start : start + step] = distance.sum(axis=1, dtype="float64")
    return sums * scale
