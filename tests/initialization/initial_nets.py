"""Deep nets, and numbers of them that the tests of initial weights share."""

import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 64)).astype("float32")
Y = RNG.integers(0, 10, 32)

# Activations and their derivatives.
FUNCTIONS = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": (lambda x: np.maximum(x, 0), lambda x: x > 0),
}


def deep(K, depth, activation, width=64, **kwargs):
    x = inputs = K.Input((width,))
    for i in range(depth):
        end = i == depth - 1
        x = K.layers.Dense(width, None if end else activation, name=f"d{i}", **kwargs)(
            x
        )
    return K.Model(inputs, x)


def convolutions(K, activation="tanh"):
    L = K.layers
    x = inputs = K.Input((8, 8, 6))
    x = L.Conv2D(24, 3, padding="same", activation=activation, name="c1")(x)
    x = L.Conv2D(24, 3, groups=2, activation=activation, name="c2")(x)
    x = L.Conv2DTranspose(12, 2, activation=activation, name="c3")(x)
    return K.Model(inputs, L.Dense(5, name="head")(L.Flatten()(x)))


def gradient_norms(layers, activation):
    """Norms of the gradients of the kernels of a deep net, by hand in float64.

    The layers are kernels and biases, the last one linear; the loss is a mean square.
    """
    signals, sums = [X.astype("float64")], []
    for place, (weights, bias) in enumerate(layers):
        sums.append(signals[-1] @ weights + bias)
        last = place == len(layers) - 1
        signals.append(sums[-1] if last else FUNCTIONS[activation][0](sums[-1]))
    back = 2 * (signals[-1] - np.eye(signals[-1].shape[1])[Y]) / signals[-1].size
    norms = []
    for place in reversed(range(len(layers))):
        norms.append(np.linalg.norm(signals[place].T @ back))
        if place:
            slopes = FUNCTIONS[activation][1](sums[place - 1])
            back = back @ layers[place][0].T * slopes
    return np.array(norms[::-1])


def layers_of(model):
    """Kernels and biases, masked or not, by the layer's name."""
    return {
        layer.name: (np.array(layer.kernel.numpy()), np.array(layer.bias.numpy()))
        for layer in model._flatten_layers()
        if hasattr(layer, "kernel") and not hasattr(layer, "layer")
    }


def kernel(model, name):
    """The kernel of a layer, masked or not."""
    return layers_of(model)[name][0]
