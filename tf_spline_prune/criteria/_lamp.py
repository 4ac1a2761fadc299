"""`LAMP`: units that matter least beside the larger ones of their layer."""

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


@dataclass
class LAMP(Criterion):
    """Score units by their fraction of the squared norms at least as large.

    The score of unit `u` is `|w_u|^2` over the sum of `|w_v|^2` of all units `v` of
    its layer with `|w_v| >= |w_u|`. The largest unit of every layer has the score 1,
    so no layer runs dry, and layers compare without any further measure.

    Args:
        reduction: How the layers of a group are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`. Defaults to `"mean"`.
        normalizer: What the scores of each layer, and those of each group, are divided
            by: `"none"`, `"mean"`, `"max"` or `"sum"`. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    ```python
    tsp.plan(model, "lamp", target_macs=0.5)
    ```

    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning",
    ICLR 2021, equation 1, there for weights, here for units.
    """

    reduction: Reduction = "mean"
    normalizer: Normalizer = "none"
    name: ClassVar[str] = "lamp"

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        fractions = []
        for member in group.producers:
            fraction = fractions_among_larger(self.graph.lengths(member))
            fractions.append(fraction / divisor(fraction, self.normalizer))
        return reduced(fractions, self.reduction)


def fractions_among_larger(lengths: np.ndarray) -> np.ndarray:
    """Return the fraction of each square among the squares that are at least as large.

    Args:
        lengths: Array of shape `(things,)`, none negative.

    Returns:
        Array of shape `(things,)`; 0 where the length is 0.
    """
    squares = (lengths / (lengths.max(initial=0.0) or 1.0)) ** 2
    order = np.argsort(squares)
    ordered = squares[order]
    at_least = np.cumsum(ordered[::-1])[::-1]  # of this one and the larger ones
    starts = np.flatnonzero(np.diff(ordered, prepend=-1.0))  # equals share a sum
    totals = np.repeat(at_least[starts], np.diff(starts, append=len(ordered)))
    fractions = np.zeros(len(squares))
    np.divide(ordered, totals, out=ordered, where=totals > 0)
    fractions[order] = ordered
    return fractions
