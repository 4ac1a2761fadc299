"""Least squares once more: explicit loops, `numpy.linalg.lstsq`, float64.

Nothing here asks the package for anything but a plan.
"""

import itertools

import numpy as np
from masked_reference import weights_of

import tf_spline_prune as tsp

__all__ = ["inputs_of", "lstsq", "mixed_plan", "patches", "tensor", "weights_of"]


def mixed_plan(model, layers=None, sparsity=0.5):
    """Plan to remove units here and there, whatever their weights."""

    def shuffled(graph, group):
        count = group.num_units
        return np.random.default_rng(count).permutation(count) / count

    return tsp.plan(
        model, shuffled, sparsity=sparsity, scope="layer", layers=layers, seed=0
    )


def tensor(K, model, output, x):
    """Compute a tensor of a functional model."""
    found = K.Model(model.input, output)(x, training=False)
    return np.asarray(found).astype("float64")


def inputs_of(K, model, layer, x):
    """Compute what goes into a layer of a functional model."""
    return tensor(K, model, model.get_layer(layer).input, x)


def lstsq(x, y, first=None, ridge=0.0, centred=True):
    """Find the weights and the intercept, by rows; of many, the nearest to `first`."""
    first = np.zeros((x.shape[1], y.shape[1])) if first is None else first
    y = y - x @ first
    mean_x = x.mean(axis=0) if centred else np.zeros(x.shape[1])
    mean_y = y.mean(axis=0) if centred else np.zeros(y.shape[1])
    x, y = x - mean_x, y - mean_y
    if ridge:  # rows that hold to the first weights
        size = np.sqrt(ridge * (x**2).sum() / x.shape[1])
        x = np.concatenate([x, size * np.eye(x.shape[1])])
        y = np.concatenate([y, np.zeros_like(first)])
    change = np.linalg.lstsq(x, y, rcond=None)[0]
    return first + change, mean_y - mean_x @ change


def patches(x, size, strides=None, dilation=None, padding="valid"):
    """Cut out what a convolution sees: shape `(images, *places, *size, channels)`."""
    rank = len(size)
    strides, dilation = strides or (1,) * rank, dilation or (1,) * rank
    places, before = [], []
    for n, k, s, d in zip(x.shape[1:-1], size, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        if padding == "valid":
            places.append((n - reach) // s + 1)
            before.append(0)
        else:
            places.append(int(np.ceil(n / s)))
            whole = max((places[-1] - 1) * s + reach - n, 0)
            before.append(reach - 1 if padding == "causal" else whole // 2)
    found = np.zeros((len(x), *places, *size, x.shape[-1]))
    for place in itertools.product(*map(range, places)):
        for tap in itertools.product(*map(range, size)):
            at = [
                p * s + t * d - b
                for p, s, t, d, b in zip(
                    place, strides, tap, dilation, before, strict=True
                )
            ]
            if all(0 <= a < n for a, n in zip(at, x.shape[1:-1], strict=True)):
                found[(slice(None), *place, *tap)] = x[(slice(None), *at)]
    return found
