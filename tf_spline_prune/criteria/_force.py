"""`FORCE`: connections by what they would do in the network that is left."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tf_spline_prune.compat import Gradients
from tf_spline_prune.criteria._connection_criterion import ConnectionCriterion, times
from tf_spline_prune.criteria._connections import Connections
from tf_spline_prune.criteria._snip import fractions


@dataclass
class FORCE(ConnectionCriterion):
    """Score weights by how much they change the loss of the network that is left.

    The score is that of SNIP, with the gradient of the pruned network and the weight
    as it was at first. So a weight that is gone has a score too, and comes back if
    the network that is left needs it. It is made for many rounds; in one it is SNIP.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or dict
            of these; `"uniform"`, `"raw"` and `"softmax"` need no labels. Defaults to
            `None`, which takes the model's compiled loss.
        batch_size: How many examples run at a time. Defaults to `128`.
        reduction: How the layers of a group are joined. Defaults to `"sum"`.
        normalizer: What the scores of each group are divided by. Defaults to `"none"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.prune_at_init(model, "force", sparsity=0.95, data=(x, y), rounds=60)
    ```

    Source: de Jorge et al., "Progressive Skeletonization: Trimming more fat from a
    network at initialization", ICLR 2021.
    """

    name: ClassVar[str] = "force"
    rounds: ClassVar[int] = 60
    regrows: ClassVar[bool] = True

    def saliencies(self, connections: Connections, data: Any) -> Gradients:
        """Multiply the first weights by the gradients of what is left."""
        found = connections.gradients(data, self.loss, self.batch_size)
        return fractions(times(connections.weights, found))
