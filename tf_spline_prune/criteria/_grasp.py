"""`GraSP`: connections by what their removal does to the flow of gradients."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tf_spline_prune._checks import Real, hold
from tf_spline_prune.compat import Gradients
from tf_spline_prune.criteria._connection_criterion import ConnectionCriterion, times
from tf_spline_prune.criteria._connections import Connections
from tf_spline_prune.criteria._criterion import Normalizer, Reduction


@dataclass
class GraSP(ConnectionCriterion):
    """Score weights by how much their removal lowers the norm of the gradient.

    The score is `w * (H g)`, with the gradient `g` and the Hessian `H` of the mean
    loss by the weights that are scored, of logits that are divided by a temperature.
    To first order the removal of `w` changes `g . g` by minus twice this; weights of
    high score carry the gradient, and those of very negative score hold it down. The
    sign counts.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or dict
            of these; `"uniform"`, `"raw"` and `"softmax"` need no labels. Defaults to
            `None`, which takes the model's compiled loss.
        batch_size: How many examples run at a time. Defaults to `128`.
        reduction: How the layers of a group are joined. Defaults to `"sum"`.
        normalizer: What the scores of each group are divided by. Defaults to `"none"`.
        temperature: What logits are divided by; 200 is what was published. 1 takes the
            loss as it is. Defaults to `200.0`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.prune_at_init(model, "grasp", sparsity=0.9, data=(x_train[:512], y_train[:512]))
    ```

    Source: Wang et al., "Picking Winning Tickets Before Training by Preserving
    Gradient Flow", ICLR 2020.
    """

    name: ClassVar[str] = "grasp"
    loss: Any = None
    batch_size: int = 128
    reduction: Reduction = "sum"
    normalizer: Normalizer = "none"
    temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, temperature=Real(0, closed="neither"))

    def saliencies(self, connections: Connections, data: Any) -> Gradients:
        """Multiply weights by the product of Hessian and gradient."""
        found = connections.hessian_times_gradient(
            data, self.loss, self.batch_size, self.temperature
        )
        return times(connections.current, found)

    def worth(self, saliency: np.ndarray) -> np.ndarray:
        """Return the saliencies, sign included: what lowers the gradient goes first."""
        return saliency
