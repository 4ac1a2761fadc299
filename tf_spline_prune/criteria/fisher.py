"""`Fisher`: units that the loss of hardly any example hangs on."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tf_spline_prune.compat import Calibration, require_loss
from tf_spline_prune.criteria.criterion import Criterion
from tf_spline_prune.criteria.gates import (
    averaged,
    check_loss,
    gate_derivatives,
    joint,
    key_of,
    loss_config,
    reason_against_gates,
    require_labels,
)
from tf_spline_prune.criteria.reduction import Normalizer, Reduction, check_batch_size
from tf_spline_prune.graph import ChannelGraph, Group


@dataclass
class Fisher(Criterion):
    """The mean over examples of the squared derivative by a gate on the unit.

    The derivative is that of `Taylor`, but squared example by example, so that
    examples which pull in opposite directions do not cancel: the diagonal of the
    empirical Fisher information of the gates. It needs inputs and labels.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or
            dict of these as in `compile`; `None` takes the model's compiled loss.
        batch_size: How many examples run at a time. 1 is exact; more is quicker, and
            squares the mean over the batch instead.
        reduction: How a group's readers are joined before squaring: `"sum"` (one gate
            for all), `"mean"`, `"max"` (of the absolute values) or `"first"`.
        normalizer: What the scores of each group are divided by: `"none"`,
            `"mean"`, `"max"` or `"sum"`.

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

    loss: Any = None
    batch_size: int = 1
    reduction: Reduction = "sum"
    normalizer: Normalizer = "none"
    name: ClassVar[str] = "fisher"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_loss(self.loss)
        check_batch_size(self.batch_size)

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Differentiate the loss of each example, once for all groups.

        Args:
            graph: The model's channel graph.
            data: Inputs and labels.
            seed: Not used.

        Raises:
            CalibrationError: If inputs or labels are missing, or do not fit the loss.
            ValueError: If there is no loss.
        """
        data = require_labels(self.name, data)
        require_loss(graph.model, self.loss)
        super().prepare(graph, data, seed)
        groups = [g for g in graph.groups if self.reason_against(g) is None]
        found = gate_derivatives(graph, groups, data, self.loss, self.batch_size)
        self._information = averaged(
            groups, found, lambda derivatives: joint(derivatives, self.reduction) ** 2
        )

    def reason_against(self, group: Group) -> str | None:
        """Say why a group cannot be scored, or `None` if it can."""
        return reason_against_gates(self.graph, group, self.name)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, a loss that is no name by its name."""
        return {**super().get_config(), "loss": loss_config(self.loss)}

    def scores(self, group: Group) -> np.ndarray:
        """Score the units; see the class."""
        return self._information[key_of(group)]
