"""The derivative of the loss by a gate on each unit, from its consumers' weights.

A gate is a factor, 1 as things are, on a unit where it is read. Readers are linear
in what they read, so the derivative by the gate is the sum of `w * dL/dw` over all
weights `w` that read the unit.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    Either,
    Function,
    ListOf,
    MapOf,
    Options,
    Text,
    hold,
)
from tf_spline_prune.compat import Calibration, Progress, require_loss, value_and_grad
from tf_spline_prune.criteria._criterion import (
    Criterion,
    Normalizer,
    Reduction,
    reduced,
)
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group, Member
from tf_spline_prune.graph._grouping import sums_of

_LOSS = Either(Text("a name"), Function("a Keras loss, a function"), None)
LOSS: Options = [
    Text("the name of a loss"),
    Function("a Keras loss, a function of labels and outputs"),
    ListOf(_LOSS, "these"),
    MapOf(Text("the name of an output"), _LOSS, "a dictionary of these"),
    None,
]
"""What the checks of arguments want of a loss."""


def loss_config(loss: Any) -> Any:
    """Return a loss's name in words that fit into a file."""
    if isinstance(loss, dict):
        return {str(key): loss_config(part) for key, part in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [loss_config(part) for part in loss]
    if loss is None or isinstance(loss, str):
        return loss
    return str(getattr(loss, "__name__", type(loss).__name__))


def require_labels(name: str, data: Calibration | None) -> Calibration:
    """Check that there are inputs and labels.

    Args:
        name: The name of the criterion.
        data: What the criterion was given.

    Returns:
        The data.

    Raises:
        CalibrationError: If inputs or labels are missing.
    """
    if data is None or data.labels is None:
        lacking = "no data" if data is None else "inputs without labels"
        raise CalibrationError(
            f"The criterion {name!r} differentiates the loss, so it needs inputs and "
            f"labels. Pass `data=(x, y)`. Received: {lacking}"
        )
    return data


def reason_against_gates(graph: ChannelGraph, group: Group, name: str) -> str | None:
    """Return why weights do not tell the derivative by a gate on a group's units.

    Args:
        graph: The channel graph.
        group: A group of it.
        name: The name of the criterion.

    Returns:
        The reason, or `None` if they do.
    """
    if not group.consumers:
        return f"{name} needs a layer whose weights consume the units"
    for meeting in graph.contractions:
        if np.isin(graph.units_of(meeting.labels), group.roots).any():
            return f"{name} cannot look into {meeting.call}, which multiplies tensors"
    return None


def gate_derivatives(
    graph: ChannelGraph,
    groups: Sequence[Group],
    data: Calibration,
    loss: Any,
    batch_size: int,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Differentiate the loss by gates, batch by batch.

    Args:
        graph: The channel graph.
        groups: Groups of it that weights read.
        data: Inputs and labels.
        loss: As in `compat.value_and_grad`.
        batch_size: How many examples run at a time.

    Yields:
        The number of examples of a batch, and for each group an array of shape
        `(consumers, units)`: the derivatives of the mean loss of the batch.
    """
    wanted: dict[str, set[str]] = {}
    for member in (member for group in groups for member in group.consumers):
        wanted.setdefault(member.path, set()).add(member.name)
    function = value_and_grad(graph.model, loss, wanted)
    progress = Progress(math.ceil(len(data) / batch_size), "batch")
    for inputs, labels in data.batches(batch_size):
        _, gradients = function(inputs, labels)

        def derivative(member: Member, found: Any = gradients) -> np.ndarray:
            weight = graph.arrays[member.path][member.name]
            return sums_of(member, np.multiply, weight, found[member.path][member.name])

        yield (
            len(inputs[0]),
            [np.array([derivative(m) for m in group.consumers]) for group in groups],
        )
        progress.step()


def averaged(
    groups: Sequence[Group],
    batches: Iterator[tuple[int, list[np.ndarray]]],
    of: Callable[[np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Average something of the derivatives over all examples.

    Args:
        groups: The groups that the batches are of.
        batches: What `gate_derivatives` gives.
        of: What is averaged, of the derivatives of one batch.

    Returns:
        The averages by the name of the group.
    """
    total: list[Any] = [0.0] * len(groups)
    count = 0
    for size, derivatives in batches:
        count += size
        for index, derivative in enumerate(derivatives):
            total[index] = total[index] + size * of(derivative)
    return {group.name: one / count for group, one in zip(groups, total, strict=True)}


def joint(derivatives: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Join the consumers of a group; of the signed derivatives, `"max"` looks at size.

    Args:
        derivatives: Array of shape `(consumers, units)`.
        reduction: How.

    Returns:
        Array of shape `(units,)`, not negative.
    """
    parts = np.abs(derivatives) if reduction == "max" else derivatives
    return np.abs(reduced(list(parts), reduction))


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
        """Return the arguments, a loss that is no name by its name."""
        config = super().get_config()
        return {k: loss_config(v) if k == "loss" else v for k, v in config.items()}


@dataclass
class GateCriterion(LossCriterion):
    """Looks at the derivatives of the loss by a gate on each unit, batch by batch.

    Subclasses say what of a batch is averaged, and how that becomes a score. The model
    runs in inference mode; penalties on weights are not part of the loss.

    Args:
        loss: A name, a Keras loss, a function `loss(y_true, y_pred)`, or a list or
            dict of these as in `compile`; `None` takes the model's compiled loss.
        batch_size: How many examples run at a time.
        reduction: How a group's consumers are joined: `"sum"` is one gate for all.
        normalizer: What the scores of each group are divided by.

    Raises:
        ValueError: If an argument is out of range.
    """

    @abstractmethod
    def of_batch(self, derivatives: np.ndarray) -> np.ndarray:
        """Return what is averaged over batches.

        Args:
            derivatives: Array of shape `(consumers, units)`: of the mean loss of a
                batch, by a gate for each consumer.

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
        """Return the average over batches of what `of_batch` gave."""
        return self._averages[group.name]

    def reason_against(self, group: Group) -> str | None:
        """Return why a group cannot be scored, or `None` if it can."""
        return reason_against_gates(self.graph, group, self.name)
