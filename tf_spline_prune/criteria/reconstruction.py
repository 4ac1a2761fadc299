"""`Reconstruction`: the units that the others can best make up for go first."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Call,
    Progress,
    call_layer,
    run_eagerly,
    to_numpy,
)
from tf_spline_prune.criteria.criterion import Criterion
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph.readings import Reading, readings

# Beyond this many units the products of all pairs do not fit into memory.
_MOST_UNITS = 8192


@dataclass
class Reconstruction(Criterion):
    """How much of what the readers compute is lost with a unit, at the very least.

    The layers that read a group see its units through their weights. When a unit
    goes, the weights of the others can make up for a part of it: the part that is a
    linear function of the others on the calibration data. What is left, as a share
    of the variance of the reader's output, is the loss. Units go one by one, always
    the one of least loss, and the weights are made up for after each; so the loss is
    known exactly for layers that read single positions, and for convolutions as far
    as neighbouring positions are alike. Losses of several readers add up.

    The counterpart that carries the making up out is `least_squares`.

    Args:
        ridge: Noise that is added to every unit, as a share of the mean variance.
        batch_size: How many inputs run at a time.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, "reconstruction", target_macs=0.5, data=x_train[:512])
    ```

    Source: the loss is that of optimal brain surgeon (Hassibi and Stork, NIPS 1992)
    for the squared error of a layer's output; backward elimination on activations as
    in Luo et al., "ThiNet", ICCV 2017.
    """

    ridge: float = 1e-3
    batch_size: int = 32
    name: ClassVar[str] = "reconstruction"

    def __post_init__(self) -> None:
        if not self.ridge > 0 or self.batch_size < 1:
            raise ValueError(
                "`ridge` must be positive and `batch_size` at least 1. Received: "
                f"ridge={self.ridge}, batch_size={self.batch_size}"
            )

    def prepare(
        self, graph: ChannelGraph, data: Calibration | None = None, seed: int = 0
    ) -> None:
        """Run the data through the model, and keep how units vary together."""
        super().prepare(graph, data=data, seed=seed)
        if data is None:
            raise CalibrationError(
                "The criterion 'reconstruction' looks at activations. Give it inputs: "
                "`data=x_train[:512]`."
            )
        self._readings: dict[str, list[Reading]] = {}
        for group in graph.groups:
            if group.num_units <= _MOST_UNITS:
                self._readings[group.name] = readings(graph, group)
        self._moments = _moments(
            graph,
            [one for found in self._readings.values() for one in found],
            data,
            self.batch_size,
        )

    def reason_against(self, group: Group) -> str | None:
        """Say why a group cannot be scored, or `None` if it can."""
        if group.num_units > _MOST_UNITS:
            return f"reconstruction compares up to {_MOST_UNITS} units"
        if not self._readings[group.name]:
            return "reconstruction needs a layer that reads them"
        return None

    def scores(self, group: Group) -> np.ndarray:
        """Score the units; see the class."""
        readers = []
        for reading in self._readings[group.name]:
            moments = self._moments[reading]
            weights = np.concatenate(
                [
                    self.graph.rows(member)
                    for member in group.consumers
                    if member.path == reading.path
                ],
                axis=1,
            )
            readers.append(_Reader(moments, weights.astype("float64"), self.ridge))
        return _eliminate(readers, group.num_units)


class _Reader:
    """One reader of a group: what it loses with each unit that is left."""

    def __init__(self, covariance: np.ndarray, weights: np.ndarray, ridge: float):
        count = len(covariance)
        noise = ridge * np.trace(covariance) / count
        covariance = covariance + (noise or 1.0) * np.eye(count)
        self.inverse = np.linalg.inv(covariance)
        if weights.shape[1] > count:  # only the products of its rows matter
            values, vectors = np.linalg.eigh(weights @ weights.T)
            weights = vectors * np.sqrt(np.maximum(values, 0))
        self.weights = weights
        self.energy = float(np.einsum("um,uv,vm->", weights, covariance, weights))

    def losses(self) -> np.ndarray:
        """Give the loss with each unit, as a share of the output's variance."""
        if not self.energy > 0:
            return np.zeros(len(self.weights))
        squares = np.einsum("um,um->u", self.weights, self.weights)
        return np.asarray(squares / np.diag(self.inverse) / self.energy)

    def remove(self, unit: int) -> None:
        """Take a unit away; the weights of the others make up for it."""
        column = self.inverse[:, unit] / self.inverse[unit, unit]
        self.weights -= np.outer(column, self.weights[unit])
        self.inverse -= np.outer(column, self.inverse[unit])


def _eliminate(readers: list[_Reader], count: int) -> np.ndarray:
    scores = np.zeros(count)
    left = np.arange(count)
    highest = 0.0
    for step in range(count):
        losses = sum(reader.losses() for reader in readers)
        place = int(np.argmin(losses))
        highest = max(highest, float(losses[place]))
        # Later ones score higher, also where their loss is not.
        scores[left[place]] = highest * (1 + 1e-9 * step)
        for reader in readers:
            reader.remove(place)
            reader.weights = np.delete(reader.weights, place, 0)
            reader.inverse = np.delete(np.delete(reader.inverse, place, 0), place, 1)
        left = np.delete(left, place)
    return scores


def _moments(
    graph: ChannelGraph,
    wanted: list[Reading],
    data: Calibration,
    batch_size: int,
) -> dict[Reading, np.ndarray]:
    """Run the data once, and give the covariances of the units at each reading."""
    by_call: dict[str, list[Reading]] = {}
    for reading in wanted:
        by_call.setdefault(reading.call, []).append(reading)
    sums: dict[Reading, np.ndarray] = {}
    products: dict[Reading, np.ndarray] = {}
    counts: dict[Reading, int] = dict.fromkeys(wanted, 0)

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for reading in by_call.get(call.name, ()):
            given = [
                t for t in keras.tree.flatten((args, kwargs)) if hasattr(t, "shape")
            ]
            rows = reading.per_unit(to_numpy(given[reading.input]).astype("float32"))
            counts[reading] += len(rows)
            sums[reading] = sums.get(reading, 0) + rows.sum(axis=0, dtype="float64")
            products[reading] = products.get(reading, 0) + (rows.T @ rows).astype(
                "float64"
            )
        return call_layer(call, args, kwargs)

    progress = Progress(-(-len(data) // batch_size), "batch")
    for inputs, _ in data.batches(batch_size):
        run_eagerly(graph.graph, inputs, apply)
        progress.step()
    found = {}
    for reading in wanted:
        mean = sums[reading] / counts[reading]
        found[reading] = products[reading] / counts[reading] - np.outer(mean, mean)
    return found
