"""`recalibrate_batchnorm`: statistics of normalisations, measured again."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, Integer, checked
from tf_spline_prune.compat import (
    Calibration,
    Call,
    Graph,
    Passes,
    Progress,
    Values,
    copied,
    fitting_batch,
    numpy_of,
    read_weights,
    require_flavour,
    trace,
    warn_of_lost_training,
)
from tf_spline_prune.graph import norm_axis


@checked(batch_size=COUNT, max_bytes=Integer(1))
def recalibrate_batchnorm(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    max_bytes: int = 2**29,
) -> Any:
    """Recalibrate the moving statistics of all BatchNormalization layers.

    Pruning shifts what comes into a normalisation, so that the mean and variance that
    it learnt no longer fit. They are measured exactly over all the data, one layer
    after the other: each sees what comes through those that are mended already. No
    labels and no training are needed.

    Args:
        model: A built model of either flavour. It is not changed.
        data: Inputs: an array of shape `(n, *input shape)`, a list of arrays or a dict
            for several inputs, or batches such as a `tf.data.Dataset`. Labels are
            left aside. A few hundred inputs are enough.
        batch_size: How many inputs run at a time. Defaults to `32`.
        max_bytes: How much memory intermediate results may take; where they need more,
            they are computed again. Defaults to `2**29`.

    Returns:
        A copy of the model with new moving means and variances, uncompiled.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced.
        CalibrationError: If the data are empty, misshapen or not finite.
        ValueError: If an argument is out of range.

    Example:

    ```python
    small = tsp.recalibrate_batchnorm(small, x_train[:512])
    ```

    Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network
    Pruning", ECCV 2020.
    """
    require_flavour(model)
    graph = trace(model)
    data = Calibration.of(data, graph)
    mended = copied(graph)
    recalibrate(trace(mended), data, batch_size, max_bytes)
    warn_of_lost_training(model, mended)
    return mended


def recalibrate(
    graph: Graph, data: Calibration, batch_size: int = 32, max_bytes: int = 2**29
) -> None:
    """Do what `recalibrate_batchnorm` does, in place.

    Args:
        graph: The model, traced; its weights change.
        data: As in `recalibrate_batchnorm`, and so the rest.
        batch_size: See there.
        max_bytes: See there.
    """
    passes = Passes([graph], data, fitting_batch(graph, batch_size), max_bytes)
    last = {graph.call_of[key].path: key for key in passes.order}
    norms = [
        graph.uses[graph.call_of[key].path]
        for key in passes.order
        if graph.call_of[key].kind == "BatchNormalization"
        and last[graph.call_of[key].path] == key
    ]
    progress = Progress(len(norms), "layer")
    for calls in norms:
        _measure(passes, calls)
        progress.step()


def _measure(passes: Passes, calls: list[Call]) -> None:
    """Measure what goes into a normalisation, over all its uses, and set it."""
    total = squares = shift = np.zeros(0)
    count = 0

    def visit(call: Call, values: list[Values]) -> None:
        nonlocal total, squares, shift, count
        x = numpy_of(values[0], call.inputs[0])
        axis = norm_axis(call, x.ndim)
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        if not count:
            shift = rows.mean(axis=0)  # squares of small numbers lose less
            total = squares = np.zeros(len(shift))
        rows = rows - shift
        count += len(rows)
        total = total + rows.sum(axis=0, dtype="float64")
        squares = squares + np.square(rows).sum(axis=0, dtype="float64")

    passes.run(calls, visit)
    mean = total / count
    layer = calls[0].layer
    weights = dict(read_weights(layer))
    weights["moving_mean"] = mean + shift
    weights["moving_variance"] = np.maximum(squares / count - mean**2, 0.0)
    layer.set_weights(list(weights.values()))
