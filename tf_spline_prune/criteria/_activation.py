"""`Activation`: units that are hardly ever active go first."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from tf_spline_prune._checks import COUNT, OneOf, hold
from tf_spline_prune.compat import (
    Calibration,
    Call,
    Values,
    Watcher,
    counted,
    fitting_batch,
    watch,
)
from tf_spline_prune.criteria._criterion import (
    Criterion,
    Normalizer,
    Reduction,
    divisor,
    reduced,
)
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph._readings import (
    Reading,
    by_call,
    pairings,
    read_by,
    readings,
)

Statistic = Literal["mean", "apoz", "l2"]


@dataclass
class Activation(Criterion):
    """Score units by how active they are where they are consumed.

    Attention heads are seen at the input of the projection out of them.

    Args:
        statistic: `"mean"`: the mean absolute value; `"apoz"`: the fraction of values
            that are not zero, so that a high average percentage of zeros is pruned
            first; `"l2"`: the root of the sum, over inputs, of the squared mean
            absolute value over the positions of each, and of a head the length of the
            vector of these over its dimensions. Defaults to `"mean"`.
        batch_size: How many inputs run at a time. Defaults to `64`.
        reduction: How a group's consumers are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`. Defaults to `"mean"`.
        normalizer: What the scores of each consumer, and those of each group, are
            divided by: `"mean"`, `"max"`, `"sum"` or `"none"`. Defaults to `"mean"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, tsp.criteria.Activation("apoz"), data=x_train[:512], sparsity=0.5)
    ```

    Source: Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach
    towards Efficient Deep Architectures", arXiv 1607.03250 (`"apoz"`); Molchanov
    et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", ICLR 2017, section 2.2 (`"mean"`); Muralidharan et al., "Compact
    Language Models via Pruning and Knowledge Distillation", NeurIPS 2024, section 2.2
    (`"l2"`).
    """

    statistic: Statistic = "mean"
    batch_size: int = 64
    reduction: Reduction = "mean"
    normalizer: Normalizer = "mean"
    name: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, statistic=OneOf(*get_args(Statistic)), batch_size=COUNT)

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Run the data through the model, once for all groups.

        Args:
            graph: The model's channel graph.
            data: Inputs; labels are not read. Defaults to `None`.
            seed: Not used. Defaults to `0`.

        Raises:
            CalibrationError: If there are no data.
        """
        if data is None:
            raise CalibrationError(
                f"The criterion {self.name!r} looks at activations, so it needs "
                "inputs. Pass `data=x`. Received: no data"
            )
        super().prepare(graph, data, seed)
        # Keys meet queries; how active they are at the projection tells half of it.
        self._readings = {
            group.name: readings(graph, group, inside=True)
            for group in graph.groups
            if not any(one.inside for one in pairings(graph, group) or ())
        }
        everyone = [one for found in self._readings.values() for one in found]
        self._sums: dict[Reading, np.ndarray] = {}
        self._counts: dict[Reading, float] = {}
        at = by_call(everyone)
        size = data.at_once or fitting_batch(graph.graph, self.batch_size)
        seen = dict.fromkeys((call.key for call in graph.graph.calls), 0)

        def visit(call: Call, values: Values) -> None:
            examples = min(size, len(data) - seen[call.key])
            seen[call.key] += examples
            for reading, tensor in read_by(at[call.name], call, values):
                counts = counted(values, tensor, reading.places(tensor))
                # A reshape may have moved positions to the batch axis.
                tensor = reading.moved(tensor)
                tensor = tensor.reshape(examples, -1, *tensor.shape[2:])
                places = np.full(examples, float(tensor.shape[1]))
                if counts is not None:
                    counts = counts.reshape(examples, -1)
                    places = counts.sum(axis=1, dtype="float64")
                new = self._statistic(reading, tensor, counts, places)
                self._sums[reading] = self._sums.get(reading, 0.0) + new
                self._counts[reading] = self._counts.get(reading, 0.0) + places.sum()

        keys = [call.key for call in graph.graph.calls if call.name in at]
        watch(graph.graph, data, self.batch_size, [Watcher(keys, visit)])

    def _statistic(
        self,
        reading: Reading,
        tensor: np.ndarray,
        counts: np.ndarray | None,
        places: np.ndarray,
    ) -> np.ndarray:
        """Sum over the examples of a batch.

        Args:
            reading: The reading.
            tensor: Array of shape `(n, places, size of the axis, sizes beside it)`.
            counts: Array of shape `(n, places)`, bool; `None` if all places count.
            places: Array of shape `(n,)`: how many count.

        Returns:
            Array of shape `(size of the axis, sizes beside it)`, or, of squares, of
            shape `(units,)`.
        """
        values = tensor != 0 if self.statistic == "apoz" else np.abs(tensor)
        if counts is not None:
            values = values * counts[:, :, None, None]
        totals = values.sum(axis=1, dtype="float64")
        if self.statistic != "l2":
            return np.asarray(totals.sum(axis=0))
        mean = totals / np.maximum(places, 1)[:, None, None]
        mean = mean[:, reading.positions]
        if not reading.in_blocks:  # positions of one kind, such as those of images
            mean = mean.mean(axis=2, keepdims=True)
        return np.asarray(np.square(mean).sum(axis=(0, 2, 3)))

    def reason_against(self, group: Group) -> str | None:
        """Return why a group cannot be scored, or `None` if it can."""
        if self._readings.get(group.name):
            return None
        return f"{self.name} needs a layer that consumes the units of another one"

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        found = []
        for reading in self._readings[group.name]:
            mean = self._sums[reading]
            if self.statistic == "l2":
                mean = np.sqrt(mean)
            else:
                mean = mean[reading.positions].mean(axis=(1, 2))
                mean = mean / self._counts[reading]
            found.append(mean / divisor(mean, self.normalizer))
        return reduced(found, self.reduction)
