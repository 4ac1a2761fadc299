"""`Activation`: units that are hardly ever active go first."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Progress,
    call_layer,
    compiled,
    to_numpy,
    without_masks,
)
from tf_spline_prune.criteria.criterion import Criterion
from tf_spline_prune.criteria.reduction import (
    Normalizer,
    Reduction,
    check_batch_size,
    divisor,
    reduced,
)
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph.readings import Reading, readings

Statistic = Literal["mean", "apoz"]
Place = tuple[str, int, int]  # call, input, axis


@dataclass
class Activation(Criterion):
    """How active a unit is where it is read, over calibration data and positions.

    Args:
        statistic: `"mean"`: the mean absolute value; `"apoz"`: the share of values
            that are not zero, so that a high average percentage of zeros goes first.
        batch_size: How many inputs run at a time.
        reduction: How a group's readers are joined: `"mean"`, `"sum"`, `"max"` or
            `"first"`.
        normalizer: What the scores of each reader, and those of each group, are
            divided by: `"mean"`, `"max"`, `"sum"` or `"none"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, tsp.criteria.Activation("apoz"), data=x_train[:512], sparsity=0.5)
    ```

    Source: Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach
    towards Efficient Deep Architectures", arXiv 1607.03250 (`"apoz"`); Molchanov
    et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", ICLR 2017, section 2.2 (`"mean"`).
    """

    statistic: Statistic = "mean"
    batch_size: int = 64
    reduction: Reduction = "mean"
    normalizer: Normalizer = "mean"
    name: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in get_args(Statistic):
            raise ValueError(
                f"`statistic` must be one of {get_args(Statistic)}. Received: "
                f"{self.statistic!r}"
            )
        check_batch_size(self.batch_size)

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Run the data through the model, once for all groups.

        Args:
            graph: The model's channel graph.
            data: Inputs; labels are not read.
            seed: Not used.

        Raises:
            CalibrationError: If there are no data.
        """
        if data is None:
            raise CalibrationError(
                f"The criterion {self.name!r} looks at activations, so it needs "
                "inputs. Pass `data=x`. Received: no data"
            )
        super().prepare(graph, data, seed)
        places = {
            _place(reading): None
            for group in graph.groups
            for reading in readings(graph, group)
        }
        self._means = self._averages(data, list(places))

    def _averages(
        self, data: Calibration, places: list[Place]
    ) -> dict[Place, np.ndarray]:
        """Average the statistic of what enters the readers, axis by axis."""
        graph = self.graph.graph
        entries = {
            call.name: _entries(call, [p for p in places if p[0] == call.name])
            for call in graph.leaves()
        }

        def statistics(inputs: list[Any]) -> list[Any]:
            found: dict[Place, Any] = {}

            def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                for place, entry in entries[call.name].items():
                    tensor = keras.tree.flatten((args, kwargs))[entry]
                    found[place] = self._statistic(tensor, place[2])
                return call_layer(call, args, kwargs)

            graph.run([keras.ops.convert_to_tensor(x) for x in inputs], apply)
            return [found[place] for place in places]

        run = compiled(statistics, self.graph.model)
        progress = Progress(math.ceil(len(data) / self.batch_size), "batch")
        total: list[Any] = [0.0] * len(places)
        for inputs, _ in data.batches(self.batch_size) if places else ():
            for index, mean in enumerate(run(inputs)):
                mean = to_numpy(mean).astype("float64")
                total[index] = total[index] + len(inputs[0]) * mean
            progress.step()
        return {p: one / len(data) for p, one in zip(places, total, strict=True)}

    def _statistic(self, tensor: Any, axis: int) -> Any:
        others = [a for a in range(len(tensor.shape)) if a != axis]
        if self.statistic == "apoz":
            values = keras.ops.cast(keras.ops.not_equal(tensor, 0), "float32")
        else:
            values = keras.ops.abs(keras.ops.cast(tensor, "float32"))
        return keras.ops.mean(values, axis=others)

    def reason_against(self, group: Group) -> str | None:
        """Say why a group cannot be scored, or `None` if it can."""
        if readings(self.graph, group):
            return None
        return f"{self.name} needs a layer that reads the units of another one"

    def scores(self, group: Group) -> np.ndarray:
        """Score the units; see the class."""
        found = []
        for reading in readings(self.graph, group):
            mean = self._means[_place(reading)][reading.positions].mean(axis=1)
            found.append(mean / divisor(mean, self.normalizer))
        return reduced(found, self.reduction)


def _place(reading: Reading) -> Place:
    return reading.call, reading.input, reading.axis


def _entries(call: Call, places: Iterable[Place]) -> dict[Place, int]:
    """Find which of the flattened arguments of a call each place means."""
    _, unmasked = without_masks(call)
    slots = {tensor: _Slot(number) for number, tensor in enumerate(call.inputs)}
    leaves = keras.tree.flatten(call.fill(dict(slots)))
    at = {int(x): n for n, x in enumerate(leaves) if isinstance(x, _Slot)}
    return {p: at[int(slots[call.inputs[unmasked[p[1]]]])] for p in places}


class _Slot(int):
    """The number of a tensor, to be told from the plain integers among arguments."""
