"""Comparing what was written with the model it was written from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tf_spline_prune.compat import mask_slots, require_flavour, say
from tf_spline_prune.errors import ExportError
from tf_spline_prune.litert import Servable
from tf_spline_prune.masking import strip_masks

TOLERANCES = {None: 1e-4, "float16": 1e-2, "dynamic": 0.1, "int8": 0.2}
BATCH = 4
SEED = 0

STEADY = 1e-4  # what two runs of one computation may differ by
_DRAWS = 32
_ERRORS = 8  # standard errors that chance is granted: met by chance never

Arrays = Mapping[str, np.ndarray]
Compared = Literal["answers", "states", "averages"]

_FROZEN = (
    "The model answers the same inputs differently from call to call, and the written "
    "model does not: it is frozen, and was removed. Expected: something that is as "
    "random, or has the same state, as the model. Use `export_saved_model`, or build "
    "the model without what changes (`training=True`, `stateful=True`). Received: "
    "model {!r}"
)


@dataclass(frozen=True)
class Comparison:
    """What came out of a comparison.

    Attributes:
        difference: The largest relative difference of all outputs; `None` where
            answers cannot be compared one by one.
        compared: `"answers"`; `"states"`, if answers change from call to call, and
            were compared from the same state on; `"averages"`, if they are random,
            and their averages agree within chance.
    """

    difference: float | None
    compared: Compared


def compare(
    servable: Servable,
    answer: Callable[[Arrays], Arrays],
    inputs: Arrays | None = None,
    tolerance: float = TOLERANCES[None],
) -> Comparison:
    """Compare the outputs of a written model with those of its source.

    The difference is `max|a - b| / max|b|`, an output at a time. A float32 network
    differs by about 1e-6 when its sums are taken in another order, one with weights
    of 16 bits by about 1e-3, of 8 bits by about 1e-2; a conversion that went wrong
    differs by far more.

    Both run twice, so that what changes from call to call has to change alike.
    Random answers that no state determines are compared by the averages of 32.

    Args:
        servable: The source, in float32.
        answer: Runs the written model, just loaded: arrays by input name in, arrays
            by output name out.
        inputs: What both run on, by input name; `None`: four random inputs (fewer
            or more if the model fixes its batch size).
        tolerance: The largest difference that is taken for rounding.

    Returns:
        The largest relative difference of all outputs, and what it is one of.

    Raises:
        ExportError: If it is above the tolerance, or names or shapes differ, or
            what is random in the model is not in what was written.
    """
    if inputs is None:
        inputs = servable.random_inputs(BATCH, SEED)
    expected, found = servable.answers(inputs, 2), [answer(inputs), answer(inputs)]
    shapes = {name: np.shape(array) for name, array in expected[0].items()}
    written = {name: np.shape(array) for name, array in found[0].items()}
    if written != shapes:
        raise ExportError(
            "The written model has other outputs than the model, and was removed. "
            f"Expected: {shapes}. Received: {written}."
        )
    varies = _largest(expected[:1], expected[1:]) > 0
    if varies and _largest(expected[:1], servable.answers(inputs, 1)) > STEADY:
        _compare_averages(servable, answer, inputs, tolerance)
        return Comparison(None, "averages")
    worst = _largest(found, expected)
    if not worst <= tolerance:
        if varies and _largest(found[:1], found[1:]) == 0:
            raise ExportError(_FROZEN.format(servable.name))
        raise ExportError(
            "The outputs of the written model differ from those of the model, and it "
            "was removed. A layer behaves differently outside Keras, or cannot be "
            "quantised; export parts of the model to find it. Expected: a relative "
            f"difference of at most {tolerance:g}. Received: {worst:.2g}, model "
            f"{servable.name!r}."
        )
    return Comparison(worst, "states" if varies else "answers")


def _compare_averages(
    servable: Servable,
    answer: Callable[[Arrays], Arrays],
    inputs: Arrays,
    tolerance: float,
) -> None:
    """Raise `ExportError` if two kinds of random answers differ beyond chance."""
    expected = servable.answers(inputs, _DRAWS)
    found = [answer(inputs) for _ in range(_DRAWS)]
    worst, kept, frozen = 0.0, 1.0, True
    for name in expected[0]:
        ours = np.stack([one[name] for one in expected]).astype("float64")
        theirs = np.stack([one[name] for one in found]).astype("float64")
        error = np.sqrt((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / _DRAWS)
        apart = np.abs(ours.mean(0) - theirs.mean(0)) - _ERRORS * error
        # NumPy's maximum is NaN if one of them is; Python's is not.
        worst = np.maximum(worst, np.max(apart) / (np.abs(ours).max() or 1.0))
        alike = (ours == ours[0]).reshape(_DRAWS, -1).all(axis=1).mean()
        kept = min(kept, alike)
        frozen = frozen and bool((theirs == theirs[0]).all())
    if frozen and kept <= 0.5:  # else a rare event may just not have happened
        raise ExportError(_FROZEN.format(servable.name))
    if not worst <= tolerance:
        raise ExportError(
            "The random outputs of the written model differ from those of the model, "
            f"and it was removed. Expected: averages of {_DRAWS} answers that differ "
            f"by no more than chance and {tolerance:g} of the largest answer. "
            f"Received: {worst:.2g} more than chance, model {servable.name!r}."
        )


def _largest(found: Sequence[Arrays], expected: Sequence[Arrays]) -> float:
    # NumPy's maximum is NaN if one of them is; Python's is not.
    return float(
        np.max(
            [
                relative_difference(a[name], b[name])
                for a, b in zip(found, expected, strict=True)
                for name in b
            ]
        )
    )


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


def unmasked(model: Any) -> Any:
    """Strip the masks of a model, if it has any, and say so.

    Masks would double the size of what is shipped, and TFMOT's write variables at
    every inference.

    Args:
        model: A model of either flavour.

    Returns:
        The model, or a plain copy of a masked one.
    """
    require_flavour(model)
    if not mask_slots(model):
        return model
    say("The masks are stripped for the export; what they removed is zero in it.")
    return strip_masks(model)
