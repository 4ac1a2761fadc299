"""`GateCriterion`: what the criteria share that differentiate the loss by gates."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import Calibration, require_loss
from tf_spline_prune.criteria.gates import (
    averaged,
    gate_derivatives,
    reason_against_gates,
    require_labels,
)
from tf_spline_prune.criteria.loss_criterion import LossCriterion
from tf_spline_prune.graph import ChannelGraph, Group


@dataclass
class GateCriterion(LossCriterion):
    """Looks at the derivatives of the loss by a gate on each unit, batch by batch.

    Subclasses say what of a batch is averaged, and how that becomes a score. The model
    runs in inference mode; penalties on weights are not part of the loss.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or
            dict of these as in `compile`; `None` takes the model's compiled loss.
        batch_size: How many examples run at a time.
        reduction: How a group's readers are joined: `"sum"` is one gate for all.
        normalizer: What the scores of each group are divided by.

    Raises:
        ValueError: If an argument is out of range.
    """

    @abstractmethod
    def of_batch(self, derivatives: np.ndarray) -> np.ndarray:
        """Give what is averaged over batches.

        Args:
            derivatives: Array of shape `(readers, units)`: of the mean loss of a
                batch, by a gate for each reader.

        Returns:
            The array to average.
        """

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Differentiate the loss, once for all groups.

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
        self._averages = averaged(groups, found, self.of_batch)

    def average(self, group: Group) -> np.ndarray:
        """Give the average over batches of what `of_batch` gave."""
        return self._averages[group.name]

    def reason_against(self, group: Group) -> str | None:
        """Say why a group cannot be scored, or `None` if it can."""
        return reason_against_gates(self.graph, group, self.name)
