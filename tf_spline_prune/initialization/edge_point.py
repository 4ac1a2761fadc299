"""`EdgePoint`: the standard deviations at which a deep network starts best."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EdgePoint:
    """A point on the edge of chaos of an activation.

    Attributes:
        weight_std: Standard deviation of a unit's incoming weights, times the square
            root of their number.
        bias_std: Standard deviation of the biases.
        q: The mean square of the pre-activations that stays from layer to layer. A
            function such as ReLU, that scales with its input, keeps any; 1 is given.

    Example:

    ```python
    tsp.initialization.edge_of_chaos("tanh", bias_std=0.2).weight_std    # 1.304
    ```
    """

    weight_std: float
    bias_std: float
    q: float
