"""Priors: how latents are drawn."""

import math

import numpy as np

from tf_spline_prune._checks import Interval, OneOf, Options

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
    """Give the entropy of a prior of so many latents, in nats."""
    if isinstance(prior, str):
        return size * (1 + math.log(2 * math.pi)) / 2
    return size * math.log(prior[1] - prior[0])


def prior_draw(prior: Prior, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw latents from a prior."""
    rng = np.random.default_rng(seed)
    if isinstance(prior, str):
        return rng.standard_normal(shape)
    return rng.uniform(*prior, shape)
