"""What goes into a model by name: that it is all there, and fits."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import received


def named_arrays(given: Any, names: Collection[str]) -> dict[str, np.ndarray]:
    """Give the arrays by name, and make sure that they are all there.

    Args:
        given: Arrays by name; of a model with one input also the array itself.
        names: The names of the inputs.

    Returns:
        Arrays, in the order of `names`.

    Raises:
        ValueError: If there are other names, or something is no array.
    """
    if not isinstance(given, Mapping):
        if len(names) != 1:
            raise ValueError(
                "The model has several inputs, so the arrays must be named. "
                f"Expected: a dictionary with the keys {list(names)}. "
                f"Received: {received(given)}"
            )
        given = {next(iter(names)): given}
    if set(given) != set(names):
        raise ValueError(
            "The names of the arrays are not those of the model's inputs. "
            f"Expected: {list(names)}. Received: {received(list(given))}"
        )
    return {name: _array(name, given[name]) for name in names}


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception:  # whatever a list of unequal lists, or a user's class, raises
        array = np.asarray(None)
    words = array.dtype.kind in "USO" and all(
        isinstance(item, (str, bytes)) for item in array.flat
    )
    if not words and array.dtype.kind not in "biufc":
        raise ValueError(
            f"The model's input {name!r} takes an array of numbers, or of texts. "
            f"Received: {received(value)}"
        )
    return array.astype(object) if words else array


def _castable(array: np.ndarray, dtype: str) -> bool:
    return array.dtype != object and np.can_cast(array.dtype, dtype, "same_kind")


def fitting(
    name: str, array: np.ndarray, shape: Sequence[int | None], dtype: str
) -> np.ndarray:
    """Make sure that an array fits an input.

    Args:
        name: The input's name.
        array: The array.
        shape: The input's shape, `None` where any positive size fits.
        dtype: Its dtype.

    Returns:
        The array in that dtype; its integers are the same ones. Texts are objects.

    Raises:
        ValueError: If it does not fit.
    """
    fits = len(shape) == array.ndim and all(
        size > 0 and want in (None, size)
        for want, size in zip(shape, array.shape, strict=True)
    )
    texts = dtype == "string"
    castable = array.dtype == object if texts else _castable(array, dtype)
    if not fits or not castable:
        raise ValueError(
            f"The array does not fit the model's input {name!r}. Expected: shape "
            f"{tuple(shape)}, where None is any positive size, dtype {dtype}. "
            f"Received: shape {array.shape}, dtype {array.dtype}"
        )
    if texts:
        return array
    if np.dtype(dtype).kind in "iu" and array.dtype.kind in "iu":
        limits, low, high = np.iinfo(dtype), int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"The array holds numbers beyond those of the model's input {name!r}. "
                f"Expected: from {limits.min} to {limits.max}, dtype {dtype}. "
                f"Received: numbers from {low} to {high}, dtype {array.dtype}"
            )
    return array.astype(dtype)
