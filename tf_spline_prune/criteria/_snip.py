"""`SNIP`: connections by what their removal does to the loss before training."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tf_spline_prune.compat import Gradients
from tf_spline_prune.criteria._connection_criterion import ConnectionCriterion, times
from tf_spline_prune.criteria._connections import Connections


@dataclass
class SNIP(ConnectionCriterion):
    """Score weights by the first-order change of the loss without them.

    The score is `|w * dL/dw|` over the sum of all; the derivative is that of the mean
    loss over all data, so that signs cancel before the absolute value is taken.

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
    tsp.prune_at_init(model, "snip", sparsity=0.9, data=(x_train[:512], y_train[:512]))
    ```

    Source: Lee et al., "SNIP", ICLR 2019; in rounds, de Jorge et al., "Progressive
    Skeletonization", ICLR 2021.
    """

    name: ClassVar[str] = "snip"

    def saliencies(self, connections: Connections, data: Any) -> Gradients:
        """Multiply weights by gradients, and make the sizes add up to 1."""
        found = connections.gradients(data, self.loss, self.batch_size)
        return fractions(times(connections.current, found))


def fractions(saliencies: Gradients) -> Gradients:
    """Divide saliencies by the sum of their sizes."""
    total = sum(
        float(np.abs(array).sum())
        for arrays in saliencies.values()
        for array in arrays.values()
    )
    return {
        path: {name: array / (total or 1.0) for name, array in arrays.items()}
        for path, arrays in saliencies.items()
    }
