"""Comparing what was written with the model it was written from."""

from collections.abc import Callable, Mapping

import numpy as np

from tf_spline_prune.errors import ExportError
from tf_spline_prune.litert import Servable

TOLERANCES = {None: 1e-4, "float16": 1e-2, "dynamic": 0.1, "int8": 0.2}
BATCH = 4
SEED = 0

Arrays = Mapping[str, np.ndarray]


def compare(
    servable: Servable,
    answer: Callable[[Arrays], Arrays],
    inputs: Arrays | None = None,
    tolerance: float = TOLERANCES[None],
) -> float:
    """Compare the outputs of a written model with those of its source.

    The difference is `max|a - b| / max|b|`, an output at a time. A float32 network
    differs by about 1e-6 when its sums are taken in another order, one with weights
    of 16 bits by about 1e-3, of 8 bits by about 1e-2; a conversion that went wrong
    differs by far more.

    Args:
        servable: The source, in float32.
        answer: Runs the written model: arrays by input name in, arrays by output
            name out.
        inputs: What both run on, by input name; `None`: four random inputs (fewer
            or more if the model fixes its batch size).
        tolerance: The largest difference that is taken for rounding.

    Returns:
        The largest relative difference of all outputs.

    Raises:
        ExportError: If it is above the tolerance, or names or shapes differ.
    """
    if inputs is None:
        inputs = servable.random_inputs(BATCH, SEED)
    expected, found = servable.predict(inputs), answer(inputs)
    shapes = {name: np.shape(array) for name, array in expected.items()}
    written = {name: np.shape(array) for name, array in found.items()}
    if written != shapes:
        raise ExportError(
            "The written model has other outputs than the model, and was removed. "
            f"Expected: {shapes}. Received: {written}."
        )
    # NumPy's maximum is NaN if one of them is; Python's is not.
    worst = float(
        np.max([relative_difference(found[n], expected[n]) for n in expected])
    )
    if not worst <= tolerance:
        raise ExportError(
            "The written model answers differently from the model, and was removed. "
            "A layer behaves differently outside Keras, or does not bear to be "
            "quantised; export parts of the model to find it. Expected: a relative "
            f"difference of at most {tolerance:g}. Received: {worst:.2g}, model "
            f"{servable.model.name!r}."
        )
    return worst


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return max|a - b| / max|b|; the same NaN or infinity on both sides is 0."""
    a, b = np.asarray(found, "float64"), np.asarray(expected, "float64")
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not differ.any():
        return 0.0
    finite = np.abs(b[np.isfinite(b)])
    with np.errstate(invalid="ignore"):
        error = np.abs(a - b)[differ].max()
    size = finite.max() if finite.size else 0.0
    return float(error / size if size else error)
