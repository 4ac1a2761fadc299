"""`Fisher`: units that the loss of hardly any example hangs on."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tf_spline_prune.criteria._gates import GateCriterion, joint
from tf_spline_prune.graph import Group


@dataclass
class Fisher(GateCriterion):
    """Score units by the mean squared derivative of the loss by a gate on them.

    The derivative is that of `Taylor`, but squared example by example, so that
    examples which pull in opposite directions do not cancel: the diagonal of the
    empirical Fisher information of the gates. It needs inputs and labels.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or dict
            of these. Defaults to `None`, which takes the model's compiled loss.
        batch_size: How many examples run at a time. 1 is exact; more is quicker, and
            squares the mean over the batch instead. Defaults to `1`.
        reduction: How a group's consumers are joined before squaring: `"sum"` (one gate
            for all), `"mean"`, `"max"` (of the absolute values) or `"first"`. Defaults
            to `"sum"`.
        normalizer: What the scores of each group are divided by: `"none"`, `"mean"`,
            `"max"` or `"sum"`. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, "fisher", data=(x_train[:256], y_train[:256]), sparsity=0.5)
    ```

    Source: Theis et al., "Faster gaze prediction with dense networks and Fisher
    pruning", arXiv 1801.05787; Liu et al., "Group Fisher Pruning for Practical
    Network Compression", ICML 2021, for groups.
    """

    batch_size: int = 1
    name: ClassVar[str] = "fisher"

    def of_batch(self, derivatives: np.ndarray) -> np.ndarray:
        """Return the squared derivatives of one gate for all consumers."""
        return joint(derivatives, self.reduction) ** 2

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        return self.average(group)
