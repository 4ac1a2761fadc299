"""Small generators, and slopes taken by central differences: the tests' reference."""

import numpy as np


def leaky(K, *sizes, slope=0.1, seed=0, ending=None):
    """Make a chain of Dense and LeakyReLU layers with random weights."""
    L, rng = K.layers, np.random.default_rng(seed)
    alpha = {"negative_slope" if K.__name__ == "keras" else "alpha": slope}
    layers = [K.Input((sizes[0],))]
    for width in sizes[1:-1]:
        layers += [L.Dense(width), L.LeakyReLU(**alpha)]
    model = K.Sequential([*layers, L.Dense(sizes[-1], activation=ending)])
    model.set_weights(
        [
            rng.normal(0, 1 / np.sqrt(len(w)) if w.ndim > 1 else 1, w.shape)
            for w in model.get_weights()
        ]
    )
    return model


def outputs(model, z, slope=0.1):
    """Run a chain of Dense and LeakyReLU in float64."""
    weights = [np.asarray(w, "float64") for w in model.get_weights()]
    x = z @ weights[0] + weights[1]
    for kernel, bias in zip(weights[2::2], weights[3::2], strict=True):
        x = np.where(x > 0, x, slope * x) @ kernel + bias
    return x


def slopes(model, z, slope=0.1, step=1e-7):
    """Differentiate by central differences, exact but for rounding off the knots."""
    ways = np.eye(z.shape[1]) * step
    up, down = (
        np.stack([outputs(model, z + sign * way, slope) for way in ways], axis=2)
        for sign in (1, -1)
    )
    return (up - down) / (2 * step)
