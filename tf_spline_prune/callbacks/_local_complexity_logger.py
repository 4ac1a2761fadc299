"""`LocalComplexityLogger`: where the partition is dense, epoch by epoch."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    LAYERS,
    POSITIVE,
    SEED,
    Data,
    MapOf,
    Text,
    checked,
)
from tf_spline_prune.compat import Callback, trace
from tf_spline_prune.partition import PartitionCoder
from tf_spline_prune.partition.codes._knots import knots_of
from tf_spline_prune.partition.codes._local_complexity import ComplexityMeter
from tf_spline_prune.partition.codes._max_regions import log_regions
from tf_spline_prune.partition.probes import check_probe


class LocalComplexityLogger(Callback):
    """Log after each epoch how many knots pass near given inputs.

    For each name in `points` it puts two numbers into the logs, where History,
    TensorBoard and CSVLogger see them: `local_complexity/NAME`, the mean over the
    inputs of the knots near them in all layers, and `regions/NAME`, the number of
    different regions that the inputs themselves lie in.

    Args:
        points: Inputs by name, such as those of the training data, of the test data
            and random ones: arrays of shape `(n, *input shape)`, or lists or dicts of
            such arrays for a model with several inputs.
        radius: Distance of the corners around each input.
        directions: Number of directions; the corners are twice as many. Defaults to
            `20`.
        layers: Names of the layers to count. Defaults to `None`, which means all that
            have knots.
        every: Epochs from one measurement to the next; NaN is logged in between.
            Defaults to `1`.
        seed: Seed of the directions. Defaults to `0`.

    Attributes:
        curves: For each name and layer the mean number of knots near the inputs, one
            an epoch that was measured.
        region_bounds: For each layer the base-2 logarithm of the most pieces into
            which its knots can cut a region of the layers before; max-pooling, whose
            knots are no hyperplanes each, is left out.

    Raises:
        ValueError: If there are no points, or an argument is out of range.

    Example:

    ```python
    logger = tsp.LocalComplexityLogger(
        {"train": x_train[:256], "random": tsp.probes.noise((28, 28, 1), 256)}, 0.05
    )
    history = model.fit(train, epochs=20, callbacks=[logger]).history
    tsp.visualize.plot_local_complexity(history)
    ```

    Source: Humayun, Balestriero and Baraniuk, "Deep Networks Always Grok and Here is
    Why", ICML 2024.
    """

    @checked(
        points=MapOf(
            Text("a name"),
            Data(),
            "a dictionary of inputs by name",
            hint="Such as {'train': x_train[:256]}.",
        ),
        radius=POSITIVE,
        directions=COUNT,
        layers=LAYERS,
        every=COUNT,
        seed=SEED,
    )
    def __init__(
        self,
        points: Mapping[str, Any],
        radius: float,
        directions: int = 20,
        layers: Iterable[str] | None = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.points = dict(points)
        self.radius = radius
        self.directions = directions
        self.layers = None if layers is None else tuple(layers)
        self.every = every
        self.seed = seed
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.region_bounds: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measure nothing yet, but refuse what cannot be measured."""
        self._meter = ComplexityMeter(
            self.model, self.radius, self.directions, self.layers, self.seed
        )
        self._coder = PartitionCoder(self.model, self.layers, max_units_per_layer=None)
        self.curves = {name: {} for name in self.points}
        graph = trace(self.model)
        for x in self.points.values():
            codes = self._coder([one[:1] for one in check_probe(x, graph.inputs)])
        size = sum(math.prod(int(s or 1) for s in i.shape[1:]) for i in graph.inputs)
        pools = {
            call.name
            for call in graph.calls
            if (knots := knots_of(call)) and knots.source == "pool"
        }
        self.region_bounds = {
            layer: log_regions(count, size) / math.log(2)
            for layer, count in codes.num_knots.items()
            if layer not in pools
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, and put the numbers into the logs."""
        logs = {} if logs is None else logs
        for name, x in self.points.items():
            mean = regions = float("nan")
            if epoch % self.every == 0:
                near = self._meter(x)
                for layer, counts in near.items():
                    curve = self.curves[name].setdefault(layer, [])
                    curve.append(float(counts.mean()))
                mean = float(np.sum(list(near.values()), axis=0).mean())
                regions = float(self._coder(x).num_regions)
            logs[self._named_in_fit(f"local_complexity/{name}")] = mean
            logs[self._named_in_fit(f"regions/{name}")] = regions
