"""`ConnectionCriterion`: what the criteria share that score single weights."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tf_spline_prune.compat import Calibration, Gradients, require_loss
from tf_spline_prune.criteria._connections import Connections, is_unsupervised
from tf_spline_prune.criteria._criterion import reduced
from tf_spline_prune.criteria._gates import LossCriterion, require_labels
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph._grouping import sums_of


@dataclass
class ConnectionCriterion(LossCriterion):
    """Score connections by what the weight does to a scalar of the network.

    The saliency of a weight is the weight times a derivative by it; that of a unit
    is the sum of those of the weights that make it. It is what a common factor on
    these weights would do, and meant for networks that were not trained yet.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or dict
            of these. `"uniform"`, `"raw"` and `"softmax"` need no labels: every class
            alike, or the network's own answer, stands in for them. Defaults to `None`,
            which takes the model's compiled loss.
        batch_size: How many examples run at a time. Defaults to `128`.
        reduction: How the layers of a group are joined; `"sum"` is one factor for all.
            Defaults to `"sum"`.
        normalizer: What the scores of each group are divided by. Defaults to `"none"`.

    Attributes:
        rounds: In how many rounds `prune_at_init` prunes, if it is not told.
        regrows: Whether a weight that is gone may come back in a later round.

    Raises:
        ValueError: If an argument is out of range.
    """

    rounds: ClassVar[int] = 1
    regrows: ClassVar[bool] = False
    batch_size: int = 128

    @abstractmethod
    def saliencies(self, connections: Connections, data: Any) -> Gradients:
        """Return the signed saliency of each weight.

        Args:
            connections: The weights, as masks have left them by now.
            data: What `check_data` gave.

        Returns:
            Arrays by layer path and weight name.
        """

    def worth(self, saliency: np.ndarray) -> np.ndarray:
        """Compute scores from saliencies of weights or units; higher means keep."""
        return np.abs(saliency)

    def check_data(self, model: Any, data: Calibration | None) -> Calibration | None:
        """Check that the data which the criterion needs are there.

        Args:
            model: The model.
            data: What was given.

        Returns:
            The data.

        Raises:
            CalibrationError: If inputs or labels are missing.
            ValueError: If there is no loss.
        """
        if not is_unsupervised(self.loss):
            require_loss(model, self.loss)
            return require_labels(self.name, data)
        if data is None:
            raise CalibrationError(
                f"The criterion {self.name!r} needs inputs. Pass `data=x`. Received: "
                "no data"
            )
        return data

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Compute the saliencies of all weights that produce units.

        Args:
            graph: The model's channel graph.
            data: Inputs, and labels where the loss reads any. Defaults to `None`.
            seed: Not used. Defaults to `0`.

        Raises:
            CalibrationError: If inputs or labels are missing, or do not fit the loss.
            CriterionError: If the loss is not finite.
            ValueError: If there is no loss.
        """
        super().prepare(graph, self.check_data(graph.model, data), seed)
        names: dict[str, set[str]] = {}
        for member in (m for group in graph.groups for m in group.producers):
            names.setdefault(member.path, set()).add(member.name)
        connections = Connections(graph.model, names)
        self._saliencies = self.saliencies(connections, self.data)

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        parts = [
            sums_of(member, np.asarray, self._saliencies[member.path][member.name])
            for member in group.producers
        ]
        return self.worth(reduced(parts, self.reduction))


def times(weights: Gradients, derivatives: Gradients) -> Gradients:
    """Multiply weights by derivatives, array by array."""
    return {
        path: {name: weights[path][name] * found for name, found in arrays.items()}
        for path, arrays in derivatives.items()
    }
