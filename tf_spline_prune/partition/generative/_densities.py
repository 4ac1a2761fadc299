"""`log_density` and `entropy`: of what a generator makes from random latents."""

import math
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    SEED,
    Integer,
    Interval,
    OneOf,
    Options,
    checked,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._affine_network import require_one_map
from tf_spline_prune.partition.generative._slopes import check_latents, log_volumes

# `"normal"`, or the least and the greatest number of a uniform prior on a cube.
Prior = str | tuple[float, float]
# What an argument must be that holds one.
PRIOR: Options = [
    OneOf("normal"),
    Interval("the least and the greatest number `(low, high)` of a uniform one"),
]


def prior_log_density(prior: Prior, z: np.ndarray) -> np.ndarray:
    """Evaluate the logarithm of a prior's density.

    Args:
        prior: A checked prior.
        z: Array of shape `(n, latents)`.

    Returns:
        Array of shape `(n,)`; `-inf` outside of the cube.
    """
    size = z.shape[1]
    if isinstance(prior, str):
        return -(z**2).sum(axis=1) / 2 - size * math.log(2 * math.pi) / 2
    low, high = prior
    inside = ((z >= low) & (z <= high)).all(axis=1)
    return np.where(inside, -size * math.log(high - low), -np.inf)


def prior_entropy(prior: Prior, size: int) -> float:
    """Return the entropy of a prior of so many latents, in nats."""
    if isinstance(prior, str):
        return size * (1 + math.log(2 * math.pi)) / 2
    return size * math.log(prior[1] - prior[0])


def prior_draw(prior: Prior, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw latents from a prior."""
    rng = np.random.default_rng(seed)
    if isinstance(prior, str):
        return rng.standard_normal(shape)
    return rng.uniform(*prior, shape)


@checked(prior=PRIOR, batch_size=COUNT)
def log_density(
    model: Any, z: Any, prior: Prior = "normal", *, batch_size: int = 1024
) -> np.ndarray:
    """Return the log density of what a generator makes, at each output.

    The density is one by volume on the surface that the generator makes: that of the
    prior at the latent, divided by how much the generator stretches the space there.
    It is all of the density where no other latent makes the same output, which is
    taken for granted here; `Surface` finds the others for generators with two latents.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        z: Latents, of shape `(n, *input shape)`.
        prior: How latents are drawn: `"normal"`, or `(low, high)` for uniform ones.
            Defaults to `"normal"`.
        batch_size: Number of latents that are run at a time, times their length.
            Defaults to `1024`.

    Returns:
        Array of shape `(n,)`: natural logarithms; `-inf` at latents that the prior
        does not draw.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, more latents
            than outputs, or is of lower rank at one of the latents: a whole piece of
            the latent space makes a piece of less dimensions there, so that the
            density is infinite.
        ValueError: If the latents do not fit the model, or `prior` is not known.

    Example:

    ```python
    typical = z[tsp.generative.log_density(decoder, z).argsort()[-10:]]
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on densities.
    """
    given = check_latents(model, z)
    volumes = log_volumes(model, given, batch_size=batch_size)
    require_full_rank(model, volumes)
    return prior_log_density(prior, given.reshape(len(given), -1)) - volumes


@checked(prior=PRIOR, samples=Integer(2, 2**31 - 1), seed=SEED, batch_size=COUNT)
def entropy(
    model: Any,
    prior: Prior = "normal",
    samples: int = 1000,
    *,
    seed: int = 0,
    batch_size: int = 1024,
) -> tuple[float, float]:
    """Estimate the entropy of what a generator makes.

    It is the entropy of the prior, and the mean of the logarithm of how much the
    generator stretches the latent space. As in `log_density`, no two latents may make
    the same output; if some do, the entropy is lower. `Surface` gives it exactly for
    uniform priors of two latents.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        prior: How latents are drawn: `"normal"`, or `(low, high)` for uniform ones.
            Defaults to `"normal"`.
        samples: How many latents to draw. Defaults to `1000`.
        seed: Seed of the draw. Defaults to `0`.
        batch_size: Number of latents run at a time, times their length. Defaults to
            `1024`.

    Returns:
        The entropy in nats, and the standard error of the estimate.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: As in `log_density`, or if the model's input has an open size.
        ValueError: If there are fewer than two samples, or `prior` is not known.

    Example:

    ```python
    value, error = tsp.generative.entropy(decoder)
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on entropy.
    """
    z = prior_draw(prior, (samples, *latent_shape(model)), seed)
    volumes = log_volumes(model, z, batch_size=batch_size)
    require_full_rank(model, volumes)
    error = volumes.std(ddof=1) / np.sqrt(samples)
    return prior_entropy(prior, z[0].size) + float(volumes.mean()), float(error)


def latent_shape(model: Any) -> tuple[int, ...]:
    """Return the shape of one latent of a generator.

    Raises:
        ModelError: If the model is no generator, or an axis is open.
    """
    shape = require_one_map(model).inputs[0].shape[1:]
    known = tuple(size for size in shape if size is not None)
    if len(known) != len(shape):
        raise ModelError(
            "The size of the latents must be known. Build the model on an input of "
            f"fixed shape. Received: model {model.name!r} with inputs of shape {shape}"
        )
    return known


def require_full_rank(model: Any, volumes: np.ndarray) -> None:
    """Make sure that there is a density.

    Args:
        model: The generator.
        volumes: Logarithms of its volumes.

    Raises:
        ModelError: If some are `-inf`.
    """
    flat = np.count_nonzero(np.isneginf(volumes))
    if flat:
        raise ModelError(
            "The generator is of lower rank than it has latents, so it is not "
            "injective: whole lines of the latent space make one output, whose density "
            "is infinite. `jacobian_rank` tells where; leaky activations and wider "
            f"layers avoid it. Received: model {model.name!r} of lower rank at {flat} "
            f"of {len(volumes)} places"
        )
