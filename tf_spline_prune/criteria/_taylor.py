"""`Taylor`: units whose removal changes the loss least, to first order."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune.criteria._gates import GateCriterion, joint
from tf_spline_prune.graph import Group


@dataclass
class Taylor(GateCriterion):
    """Score units by the first-order change of the loss without them.

    The score is `|sum of w * dL/dw|` over the weights `w` that read the unit: the
    size of the derivative of the mean loss by a gate on the unit. The model runs
    in inference mode; penalties on weights are not part of the loss. It needs
    inputs and labels.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or dict
            of these. Defaults to `None`, which takes the model's compiled loss.
        batch_size: How many examples run at a time. Defaults to `64`.
        reduction: How a group's consumers are joined: `"sum"` (before the absolute
            value is taken, so that it is one gate for all), `"mean"`, `"max"` (of the
            absolute values) or `"first"`. Defaults to `"sum"`.
        normalizer: What the scores of each group are divided by: `"none"`, `"mean"`,
            `"max"` or `"sum"`. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, "taylor", data=(x_train[:512], y_train[:512]), sparsity=0.5)
    ```

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning",
    CVPR 2019, section 3.2 (there squared, which ranks alike).
    """

    name: ClassVar[str] = "taylor"

    def of_batch(self, derivatives: np.ndarray) -> np.ndarray:
        """Return the derivatives themselves, which add up over batches."""
        return derivatives

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        return joint(self.average(group), self.reduction)
