"""A float64 NumPy forward pass and codes by brute force: the tests' own reference."""

import itertools

import numpy as np

MARGIN = 1e-4  # of the standard deviation of the layer's pre-activations


def randomize(model, seed=0, scale=2.0):
    """Give every weight a random value, away from what initializers give."""
    rng = np.random.default_rng(seed)
    values = []
    for value in model.get_weights():
        fan_in = max(1, int(np.prod(value.shape[:-1])))
        values.append(
            rng.normal(0, scale / np.sqrt(fan_in), value.shape)
            if value.ndim > 1
            else rng.uniform(0.3, 1.6, value.shape)
        )
    model.set_weights([v.astype("float32") for v in values])
    return model


def weights(layer):
    return [np.asarray(w, "float64") for w in layer.get_weights()]


def dense(x, layer):
    kernel, bias = weights(layer)
    return np.tensordot(x, kernel, 1) + bias


def relu(x):
    return np.maximum(x, 0.0)


def batch_norm(x, layer, epsilon=1e-3):
    gamma, beta, mean, variance = weights(layer)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def _windows(x, size, strides, padding, fill):
    """Yield, for every position of a window, the slice that it sees."""
    rank = x.ndim - 2
    size, strides = ((v,) * rank if isinstance(v, int) else v for v in (size, strides))
    out, pads = [], [(0, 0)]
    for length, k, s in zip(x.shape[1:-1], size, strides, strict=True):
        if padding == "same":
            count = -(-length // s)
            total = max((count - 1) * s + k - length, 0)
            pads.append((total // 2, total - total // 2))
        else:
            count = (length - k) // s + 1
            pads.append((0, 0))
        out.append(count)
    x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    for offset in itertools.product(*map(range, size)):
        picked = x
        for axis, (o, count, s) in enumerate(
            zip(offset, out, strides, strict=True), start=1
        ):
            picked = np.take(picked, o + s * np.arange(count), axis=axis)
        yield offset, picked


def conv(x, layer, strides=1, padding="valid"):
    kernel, bias = weights(layer)
    size = kernel.shape[:-2]
    return bias + sum(
        picked @ kernel[offset]
        for offset, picked in _windows(x, size, strides, padding, 0.0)
    )


def depthwise(x, layer, padding="valid"):
    kernel, bias = weights(layer)
    out = sum(
        picked[..., None] * kernel[offset]
        for offset, picked in _windows(x, kernel.shape[:2], 1, padding, 0.0)
    )
    return out.reshape(*out.shape[:-2], -1) + bias


def max_pool(x, size, strides, padding="valid"):
    """Return the pooled values and, position by position, who attains them."""
    seen = np.stack(
        [picked for _, picked in _windows(x, size, strides, padding, -np.inf)], -1
    )
    pooled = seen.max(-1)
    return pooled, seen == pooled[..., None]


def bits(pre, *knots):
    """Brute-force bits of shape (n, knots), activation after activation."""
    above = pre[..., None] > np.array(knots or (0.0,))
    return above.reshape(len(pre), -1)


def check(codes, layer, pre, *knots):
    """Compare bit for bit wherever float32 cannot have been in doubt."""
    knots = knots or (0.0,)
    expected = bits(pre, *knots)
    distance = np.abs(pre[..., None] - np.array(knots)).reshape(len(pre), -1)
    sure = distance > MARGIN * pre.std()
    assert sure.mean() >= 0.99
    taken = codes.unpack(layer)
    assert taken.dtype == bool
    assert taken.shape == expected.shape
    # Were all bits alike, the comparison could not fail.
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(taken[sure], expected[sure])
