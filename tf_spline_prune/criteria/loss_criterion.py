"""`LossCriterion`: what the criteria share that differentiate a loss."""

from dataclasses import dataclass
from typing import Any

from tf_spline_prune._checks import COUNT, hold
from tf_spline_prune.criteria.criterion import Criterion
from tf_spline_prune.criteria.gates import LOSS, loss_config
from tf_spline_prune.criteria.reduction import Normalizer, Reduction


@dataclass
class LossCriterion(Criterion):
    """Scores units or weights by derivatives of a loss.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or
            dict of these as in `compile`; `None` takes the model's compiled loss.
        batch_size: How many examples run at a time.
        reduction: How the layers of a group are joined.
        normalizer: What the scores of each group are divided by.

    Raises:
        ValueError: If an argument is out of range.
    """

    loss: Any = None
    batch_size: int = 64
    reduction: Reduction = "sum"
    normalizer: Normalizer = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, loss=LOSS, batch_size=COUNT)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, a loss that is no name by its name."""
        config = super().get_config()
        return {k: loss_config(v) if k == "loss" else v for k, v in config.items()}
