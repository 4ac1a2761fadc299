"""`SynFlow`: connections by the strength of the paths through them, without data."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tf_spline_prune.compat import Calibration, Gradients
from tf_spline_prune.criteria._connection_criterion import ConnectionCriterion, times
from tf_spline_prune.criteria._connections import Connections
from tf_spline_prune.criteria._criterion import Normalizer, Reduction


@dataclass
class SynFlow(ConnectionCriterion):
    """Score weights by the strength of the paths through the network they carry.

    Every parameter is replaced by its absolute value, the input by ones, and
    activations let everything through; R is the sum of what goes into a last softmax.
    The score of a weight is `|w| * dR/d|w|`. In networks without biases the scores of
    each layer add up to R, and those that go into a unit to those that leave it, so
    that in many rounds no layer runs dry. It needs no data and looks at no loss.
    Numbers are float64 throughout.

    Args:
        reduction: How the layers of a group are joined. Defaults to `"sum"`.
        normalizer: What the scores of each group are divided by. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.prune_at_init(model, "synflow", sparsity=0.99)
    ```

    Source: Tanaka et al., "Pruning neural networks without any data by iteratively
    conserving synaptic flow", NeurIPS 2020.
    """

    name: ClassVar[str] = "synflow"
    rounds: ClassVar[int] = 100
    loss: None = field(default=None, init=False)
    batch_size: int = field(default=1, init=False)
    reduction: Reduction = "sum"
    normalizer: Normalizer = "none"

    def check_data(self, model: Any, data: Calibration | None) -> Calibration | None:
        """Accept anything: no data are needed."""
        return data

    def saliencies(self, connections: Connections, data: Any) -> Gradients:
        """Multiply absolute weights by the derivatives of the flow."""
        found = times(connections.current, connections.flow())
        for arrays in found.values():
            for array in arrays.values():
                np.abs(array, out=array)
        return found

    def worth(self, saliency: np.ndarray) -> np.ndarray:
        """Return the flow itself, which is never negative."""
        return saliency
