"""Deep nets, and numbers of them that the tests of initial weights share."""

import numpy as np

from tf_spline_prune.compat import value_and_grad, with_dtype

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 64)).astype("float32")
Y = RNG.integers(0, 10, 32)


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


def gradient_norms(model, x=X, y=Y):
    """Norms of the gradients of the kernels, first layer first, in float64."""
    loss = "mean_squared_error"
    run = value_and_grad(with_dtype(model, "float64"), loss)
    targets = np.eye(model.output_shape[-1])[y]
    _, gradients = run([x.astype("float64")], targets)
    return np.array([np.linalg.norm(g["kernel"]) for g in gradients.values()])


def kernel(model, name):
    """The kernel of a layer, masked or not."""
    for layer in model._flatten_layers():
        if layer.name == name and not hasattr(layer, "layer"):
            return np.asarray(layer.kernel.numpy())
    raise KeyError(name)
