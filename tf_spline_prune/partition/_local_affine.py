"""`local_affine` and `jacobian_rank`: a network as an affine map, input by input."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, FRACTION, checked
from tf_spline_prune.compat import (
    Graph,
    arranged,
    call_layer,
    check_inputs,
    jacobians_of,
    trace,
    with_dtype,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._affine_network import AffineNetwork, require_one_map

# At so many inputs it is checked that the network is affine, this far around them.
_CHECKED, _NEARBY = 8, 2.0**-24


@checked(batch_size=COUNT)
def local_affine(
    model: Any, x: Any, *, batch_size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine map that a network is on the region of each input.

    In the region of `x[i]` the network is `z -> A[i] @ z + b[i]`, to the rounding of
    float64, in which all is computed. An input on a knot has the map of one of the
    regions that meet there.

    Args:
        model: A built model with one input and one output, whose activations are
            piecewise-linear. Where it ends in softmax, sigmoid or tanh, the output
            is what goes into it.
        x: Array of shape `(n, *input shape)`.
        batch_size: Number of inputs that are run at a time. Each counts as often as the
            model has inputs or outputs, whichever is fewer. Defaults to `128`.

    Returns:
        Arrays of shape `(n, outputs, inputs)` and `(n, outputs)`, float64. Inputs
        and outputs of several axes are laid flat, the last axis fastest.

    Raises:
        FlavourError: If `model` is no Keras model, or on a backend without Jacobians.
        ModelError: If the model is not built, cannot be traced, has several inputs
            or outputs, weights that are not finite, or is not piecewise affine.
        ValueError: If `x` is empty, misshapen or not finite, or `batch_size` is
            below 1.

    Example:

    ```python
    A, b = tsp.local_affine(model, x_test[:8])
    answer = A[0] @ x_test[0].ravel() + b[0]
    np.allclose(answer, model(x_test[:1])[0], atol=1e-4)     # True
    ```

    Source: Balestriero and Baraniuk, "A Spline Theory of Deep Learning", ICML 2018.
    """
    network = AffineNetwork(model)
    points = _checked(network.graph, x)
    values, slopes = _both(network.model, network.run, points, batch_size)
    _check_affine(network, points, slopes)
    flat = points.reshape(len(points), -1)
    return slopes, values - np.einsum("noi,ni->no", slopes, flat)


def jacobians(model: Any, x: Any, *, batch_size: int = 128) -> np.ndarray:
    """Return the derivatives of a model's outputs by its inputs, in float64.

    Args:
        model: A built model with one input and one output, whatever its functions.
        x: Array of shape `(n, *input shape)`.
        batch_size: As in `local_affine`.

    Returns:
        Array of shape `(n, outputs, inputs)`, float64, laid flat as in
        `local_affine`.

    Raises:
        FlavourError: If `model` is no Keras model, or on a backend without Jacobians.
        ModelError: If the model is not built, cannot be traced, has several inputs
            or outputs, or weights that are not finite.
        ValueError: If `x` is empty, misshapen or not finite, or `batch_size` is
            below 1.
    """
    points = _checked(require_one_map(model), x)
    exact = with_dtype(model, "float64")
    graph = trace(exact)
    return _both(exact, lambda z: graph.run([z], call_layer)[0], points, batch_size)[1]


@checked(tolerance=[FRACTION, None], batch_size=COUNT)
def jacobian_rank(
    model: Any, x: Any, tolerance: float | None = None, *, batch_size: int = 128
) -> np.ndarray:
    """Count the directions in which the outputs change around each input.

    Of a generator this is the dimension of the surface that it makes around `x`.

    Args:
        model: A built model with one input and one output.
        x: Array of shape `(n, *input shape)`.
        tolerance: Singular values up to this fraction of the largest one count as zero.
            Defaults to `None`, which takes what rounding in float64 can make.
        batch_size: Number of inputs run at a time. Each counts as often as the model
            has inputs or outputs, whichever is fewer. Defaults to `128`.

    Returns:
        Array of shape `(n,)`, int.

    Raises:
        FlavourError: As `local_affine`.
        ModelError: As `local_affine`, but any function may be in the model.
        ValueError: If `x` is empty, misshapen or not finite, `tolerance` not in
            [0, 1), or `batch_size` below 1.

    Example:

    ```python
    tsp.jacobian_rank(decoder, latents).max()    # at most the latent dimension
    ```
    """
    slopes = jacobians(model, x, batch_size=batch_size)
    sizes = np.linalg.svd(slopes, compute_uv=False)
    if tolerance is None:
        tolerance = max(slopes.shape[1:]) * np.finfo("float64").eps
    return np.count_nonzero(sizes > tolerance * sizes[:, :1], axis=1)


def _checked(graph: Graph, x: Any) -> np.ndarray:
    check_inputs(x, graph.inputs, "inputs", ValueError)
    (points,) = arranged(x, graph.inputs, "inputs", ValueError)
    return np.asarray(points, "float64")  # not cut to the model's own precision


def _both(
    model: Any, function: Callable[[Any], Any], points: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a function and its derivatives, batch by batch."""
    outputs = math.prod(function(keras.ops.convert_to_tensor(points[:1])).shape[1:])
    inputs = math.prod(points.shape[1:])
    evaluate = jacobians_of(function, model, inputs, outputs)
    count = max(1, batch_size // min(inputs, outputs))
    pairs = [evaluate(lot) for lot in _lots(points, count)]
    values, slopes = zip(*pairs, strict=True)
    return np.concatenate(values), np.concatenate(slopes)


def _lots(points: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for start in range(0, len(points), count):
        yield points[start : start + count]


def _check_affine(
    network: AffineNetwork, points: np.ndarray, slopes: np.ndarray
) -> None:
    """Check at a few points that their neighbours of the same code have their map."""
    some = np.linspace(0, len(points) - 1, min(_CHECKED, len(points))).astype(int)
    here = points[some]
    size = np.sqrt((here**2).mean()) or 1.0
    step = np.random.default_rng(0).normal(0, _NEARBY * size, here.shape)
    there = here + step
    codes = network.codes(np.concatenate([here, there]))
    alike = (codes[: len(some)] == codes[len(some) :]).all(axis=1)
    some, there = some[alike], there[alike]
    if not len(some):
        return
    moved = _both(network.model, network.run, there, len(there))[1]
    off = np.abs(moved - slopes[some]).max()
    if not off <= 1e-11 * np.abs(slopes[some]).max():
        raise ModelError(
            "The network is not affine on the regions between its knots. A layer "
            "multiplies tensors, has knots or a smooth function that are not known "
            "here, or does not compute in float64. Take the part of the model before "
            f"it. Received: model {network.graph.model.name!r}, whose slopes differ "
            f"within a region by {off:.1e}"
        )
