"""Small untrained nets, and what connections are worth in them by hand."""

import numpy as np

from tf_spline_prune.compat import CurrentWeights, trace

WIDTHS = (12, 16, 10, 4)


def mlp(K, widths=WIDTHS, activation="relu", seed=0, bias=False, std=None):
    """A dense net with Gaussian weights, those of He if nothing else is said."""
    L = K.layers
    rng = np.random.default_rng(seed)
    model = K.Sequential([K.Input(widths[:1])])
    for number, width in enumerate(widths[1:], 1):
        last = number == len(widths) - 1
        function = None if last else activation
        model.add(L.Dense(width, function, use_bias=bias, name=f"d{number}"))
    model.set_weights(
        [
            rng.normal(0, std or np.sqrt(2 / w.shape[0]), w.shape)
            if w.ndim == 2
            else rng.normal(0, 0.3, w.shape)
            for w in model.get_weights()
        ]
    )
    return compiled(K, model)


def compiled(K, model):
    model.compile("sgd", K.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def examples(count=40, size=12, classes=4, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, size)).astype("float32")
    return x, rng.integers(0, classes, count)


def kernels(model):
    """The masked weights of a model by key, float64, in order."""
    return {
        f"{path}/kernel": np.asarray(of["kernel"], "float64")
        for path, of in CurrentWeights(trace(model)).items()
        if "kernel" in of
    }


def gradients_by_hand(weights, x, y, temperature=1.0):
    """Backpropagate the mean cross-entropy of a ReLU net without biases."""
    hidden, x = [x.astype("float64")], x.astype("float64")
    for number, weight in enumerate(weights):
        x = x @ weight
        if number < len(weights) - 1:
            x = np.maximum(x, 0)
            hidden.append(x)
    z = x / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = (p - np.eye(p.shape[1])[y]) / len(y) / temperature
    found = []
    for weight, x in zip(weights[::-1], hidden[::-1], strict=True):
        found.append(x.T @ error)
        error = (error @ weight.T) * (x > 0)
    return found[::-1]


def masks_of(masked):
    """The masks of a model by key, bool."""
    from tf_spline_prune.compat import mask_slots

    return {slot.key: slot.keep().copy() for slot in mask_slots(masked)}
