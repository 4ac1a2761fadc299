"""What the slopes of a generator say: how it stretches, what its latents share."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, checked
from tf_spline_prune.compat import Progress, check_inputs
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._affine_network import require_one_map
from tf_spline_prune.partition._local_affine import jacobians

# So many numbers of slopes are held at a time.
_AT_ONCE = 2**23


@checked(top=[COUNT, None], batch_size=COUNT)
def log_volumes(
    model: Any, z: Any, top: int | None = None, *, batch_size: int = 1024
) -> np.ndarray:
    """Measure how much a generator stretches the latent space around each latent.

    A small piece of latent space of volume v becomes a piece of the surface of volume
    `v * exp(log_volume)`: the factor is `sqrt(det(A^T A))`, the product of the
    singular values of the slopes `A`.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        z: Latents, of shape `(n, *input shape)`.
        top: How many of the largest singular values to multiply. Defaults to `None`,
            which takes all.
        batch_size: Number of latents that are run at a time, times their length.
            Defaults to `1024`.

    Returns:
        Array of shape `(n,)`: natural logarithms; `-inf` where the slopes are of lower
        rank, so that the volume is zero.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, or more
            latents than outputs and no `top`.
        ValueError: If the latents do not fit the model, or another argument is out of
            range.

    Example:

    ```python
    tsp.generative.log_volumes(decoder, z)
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on densities.
    """
    given = check_latents(model, z)

    def volumes(slopes: np.ndarray) -> np.ndarray:
        outputs, inputs = slopes.shape[1:]
        if top is None and inputs > outputs:
            raise ModelError(
                "A generator with more latents than outputs folds whole lines into "
                "points, so its volumes are zero. Give `top`, the number of singular "
                f"values to multiply. Received: model {model.name!r} with {inputs} "
                f"latents and {outputs} outputs"
            )
        if top is not None and top > min(inputs, outputs):
            raise ValueError(
                f"`top` must be at most {min(inputs, outputs)}, the number of singular "
                f"values. Received: top={top}"
            )
        return log_volumes_of(slopes, top)

    return of_slopes(volumes, model, given, batch_size)


@checked(batch_size=COUNT)
def disentanglement(model: Any, z: Any, *, batch_size: int = 1024) -> np.ndarray:
    """Measure how far the latents of a generator act along common directions.

    The columns of the slopes are the directions in which each latent moves the
    output. If latents are disentangled they are orthogonal, region by region. The
    measure is the spectral norm of their absolute cosines, less the identity: 0 for
    orthogonal ones, the number of latents less one where all move the output alike.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        z: Latents, of shape `(n, *input shape)`.
        batch_size: Number of latents run at a time, times their length. Defaults to
            `1024`.

    Returns:
        Array of shape `(n,)`. A latent that moves nothing counts as orthogonal.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, or has several inputs or outputs.
        ValueError: If the latents do not fit the model, or `batch_size` is below 1.

    Example:

    ```python
    measure = tsp.generative.disentanglement(decoder, z)
    measure.mean(), measure.max()
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on disentanglement.
    """

    def norms(slopes: np.ndarray) -> np.ndarray:
        sizes = np.linalg.norm(slopes, axis=1, keepdims=True)
        directions = slopes / np.where(sizes == 0, 1.0, sizes)
        cosines = np.abs(directions.swapaxes(1, 2) @ directions)
        own = np.arange(cosines.shape[1])
        cosines[:, own, own] = 0.0
        return np.asarray(np.linalg.norm(cosines, 2, axis=(1, 2)))

    return of_slopes(norms, model, check_latents(model, z), batch_size)


def check_latents(model: Any, z: Any) -> np.ndarray:
    """Check that a model is a generator, and that these are latents of it.

    Args:
        model: What should be a model with one input and one output.
        z: What should be an array of shape `(n, *input shape)`.

    Returns:
        The latents, float64.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, or has several inputs or outputs.
        ValueError: If the latents are empty, misshapen or not finite.
    """
    check_inputs([z], require_one_map(model).inputs, "latents", ValueError)
    return np.asarray(z, "float64")


def of_slopes(
    function: Callable[[np.ndarray], np.ndarray],
    model: Any,
    z: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """Apply a function to the slopes at all latents, so many that memory is bounded.

    Args:
        function: Takes slopes of shape `(lot, outputs, inputs)`, gives an array of as
            many rows.
        model: The generator.
        z: Checked latents.
        batch_size: As in `log_volumes`.

    Returns:
        The rows of all lots.
    """
    first = jacobians(model, z[:1], batch_size=batch_size)
    rows = [function(first)]
    step = max(1, _AT_ONCE // first.size)
    starts = range(1, len(z), step)
    progress = Progress(math.ceil((len(z) - 1) / step), "lot")
    for start in starts:
        lot = z[start : start + step]
        rows.append(function(jacobians(model, lot, batch_size=batch_size)))
        progress.step()
    return np.concatenate(rows)


def log_volumes_of(slopes: np.ndarray, top: int | None = None) -> np.ndarray:
    """Add up the logarithms of the largest singular values of each map.

    Args:
        slopes: Array of shape `(n, outputs, inputs)`.
        top: How many to take; `None` takes all.

    Returns:
        Array of shape `(n,)`; `-inf` where one of them is zero but for rounding.
    """
    sizes = np.linalg.svd(slopes, compute_uv=False)
    zero = sizes <= max(slopes.shape[1:]) * np.finfo("float64").eps * sizes[:, :1]
    with np.errstate(divide="ignore"):
        return np.log(np.where(zero, 0.0, sizes))[:, :top].sum(axis=1)
