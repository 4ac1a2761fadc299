"""Probes: the fixed inputs on which codes are taken."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    SEED,
    Array,
    Data,
    Integer,
    ListOf,
    checked,
    received,
)
from tf_spline_prune.compat import Input, check_inputs, to_numpy
from tf_spline_prune.errors import ProbeError


@checked(a=Array(), b=Array(), n=Integer(1, 2**15))
def plane(a: np.ndarray, b: np.ndarray, n: int = 100) -> np.ndarray:
    """Return a grid on the parallelogram that two inputs span with the origin.

    Args:
        a: One input, without batch axis.
        b: Another of the same shape.
        n: Points per side. Defaults to `100`.

    Returns:
        Array of shape `(n * n, *input shape)`, float32: `alpha * a + beta * b`
        with `alpha` and `beta` in `linspace(0, 1, n)`, `beta` running fastest.

    Raises:
        ProbeError: If the inputs differ in shape.
        ValueError: If they are no finite numbers, or `n` is less than 1.

    Example:

    ```python
    probe = tsp.probes.plane(x_test[0], x_test[1], n=100)    # the paper's probe
    ```

    Source: You et al. 2022, figure 3, and the released detector's `getCanvas`.
    """
    a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
    if a.shape != b.shape:
        raise ProbeError(
            "A plane is spanned by two inputs of one shape. Received: shapes "
            f"{a.shape} and {b.shape}"
        )
    steps = np.linspace(0.0, 1.0, n, dtype="float32")
    alpha = np.repeat(steps, n).reshape(-1, *[1] * a.ndim)
    beta = np.tile(steps, n).reshape(-1, *[1] * a.ndim)
    return alpha * a + beta * b


@checked(
    dataset=Data("a data set, batches of inputs"),
    n=COUNT,
)
def minibatch(dataset: Iterable[Any], n: int = 1024) -> Any:
    """Return the first `n` inputs of a data set.

    Args:
        dataset: Batches of inputs, or of tuples whose first item is the inputs:
            a `tf.data.Dataset`, a `keras.utils.Sequence`, a list.
        n: How many inputs to take. Defaults to `1024`.

    Returns:
        Array of shape `(n, *input shape)`; fewer rows if the data set is smaller. For
        a model with several inputs a list or dict of such arrays, as in the data set.

    Raises:
        ProbeError: If the data set is empty, gives single inputs or what are no
            inputs, or is an array.
        ValueError: If `n` is less than 1.

    Example:

    ```python
    probe = tsp.probes.minibatch(train, 1024)
    ```
    """
    if hasattr(dataset, "__array__"):
        raise ProbeError(
            "An array holds inputs already, and each of them would be taken for a "
            f"batch. Take its first rows, `x[:{n}]`. Received: an array of shape "
            f"{np.asarray(dataset).shape}"
        )
    taken: list[Any] = []
    count = 0
    for batch in dataset:
        _check_batched(batch)
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        whole = all(hasattr(leaf, "__array__") for leaf in keras.tree.flatten(inputs))
        taken.append(
            keras.tree.map_structure(to_numpy, inputs) if whole else to_numpy(inputs)
        )
        arrays = keras.tree.flatten(taken[-1])
        if not arrays or not all(np.ndim(array) for array in arrays):
            raise ProbeError(
                "The data set must give batches of inputs: arrays, or lists or "
                f"dictionaries of arrays. Received: {received(batch)} among them"
            )
        count += len(arrays[0])
        if count >= n:
            break
    if not count:
        raise ProbeError(
            "The data set gave no inputs, so there is nothing to probe. Received: "
            f"{received(dataset)}"
        )
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[:n], *taken)


def _check_batched(element: Any) -> None:
    """Refuse a single example, which its label gives away: it is no row of labels."""
    if not isinstance(element, (tuple, list)) or len(element) < 2:
        return
    label = element[1]
    if isinstance(label, (int, float)) or getattr(label, "shape", None) == ():
        first = keras.tree.flatten(element[0])[0]
        raise ProbeError(
            "The data set gives single inputs, not batches, so their first axis would "
            "be taken for a batch. Batch it, as by `dataset.batch(128)`. Received: an "
            f"input of shape {tuple(np.shape(to_numpy(first)))} with one label"
        )


@checked(x=Array(), n=COUNT, seed=SEED)
def mix(x: np.ndarray, n: int = 1024, seed: int = 0) -> np.ndarray:
    """Return random convex mixes of pairs of inputs.

    Args:
        x: Array of shape `(m, *input shape)`.
        n: How many mixes to draw. Defaults to `1024`.
        seed: Seed of the pairs and of the weights, which are uniform in [0, 1].
            Defaults to `0`.

    Returns:
        Array of shape `(n, *input shape)`, float32.

    Raises:
        ValueError: If `x` is empty, or not of finite numbers, or `n` is less than 1.

    Example:

    ```python
    probe = tsp.probes.mix(x_train, 1024, seed=0)
    ```
    """
    x = np.asarray(x, "float32")
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(x), size=(2, n))
    weight = rng.random(n, dtype="float32").reshape(-1, *[1] * (x.ndim - 1))
    return weight * x[first] + (1 - weight) * x[second]


@checked(shape=ListOf(COUNT, "integers of at least 1", 0), n=COUNT, seed=SEED)
def noise(shape: Sequence[int], n: int = 1024, seed: int = 0) -> np.ndarray:
    """Return standard normal inputs.

    Args:
        shape: Shape of one input, without batch axis.
        n: How many to draw. Defaults to `1024`.
        seed: Seed of the draw. Defaults to `0`.

    Returns:
        Array of shape `(n, *shape)`, float32.

    Raises:
        ValueError: If a size or `n` is less than 1.

    Example:

    ```python
    probe = tsp.probes.noise(model.input_shape[1:], 1024)
    ```
    """
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape), dtype="float32")


def check_probe(x: Any, inputs: Sequence[Input]) -> list[np.ndarray]:
    """Check a probe against the inputs of a model.

    Args:
        x: An array; a list of arrays, one per input; or a dict of arrays, by the
            names of the inputs or as the model itself is called.
        inputs: The inputs of the traced model.

    Returns:
        One array per input, of the input's dtype.

    Raises:
        ProbeError: If the probe is empty, misshapen or not finite.
    """
    for array in arrays_of(x):
        if not hasattr(array, "__array__"):
            raise ProbeError(
                "A probe is an array, or a list or dict of arrays, one per input of "
                "the model. `tsp.probes.minibatch` takes one from a data set. "
                f"Received: an object of type {type(array).__name__}"
            )
    return check_inputs(x, inputs, "probe", ProbeError)


def arrays_of(x: Any) -> list[Any]:
    """List the arrays of a probe, those of a dict in the order of their names."""
    if isinstance(x, Mapping):
        return [array for name in sorted(x) for array in arrays_of(x[name])]
    return list(x) if isinstance(x, (list, tuple)) else [x]
