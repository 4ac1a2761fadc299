"""Small nets and data that the tests of masks train."""

import numpy as np
import zoo

X = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
Y = np.random.default_rng(1).integers(0, 5, 64)
IMAGES = np.random.default_rng(2).normal(size=(32, *zoo.SHAPE)).astype("float32")
LABELS = np.random.default_rng(3).integers(0, 5, 32)


def compiled(K, model, optimizer=None, **kwargs):
    model.compile(
        optimizer or K.optimizers.Adam(1e-2),
        K.losses.SparseCategoricalCrossentropy(from_logits=True),
        **kwargs,
    )
    return model


def mlp(K, **kwargs):
    return compiled(K, zoo.mlp(K), **kwargs)


def shared(K):
    """One layer is used twice."""
    L = K.layers
    x = inputs = K.Input((12,))
    same = L.Dense(12, activation="relu", name="same")
    x = same(same(x))
    return zoo.settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def fit(model, callbacks=(), epochs=2, **kwargs):
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings)


def kernel(model, name):
    """The kernel of a layer of a masked model of either flavour."""
    for layer in model._flatten_layers():
        if layer.name == name and not hasattr(layer, "layer"):
            return np.asarray(layer.kernel.numpy())
    raise KeyError(name)


def zeros(model, name):
    return float((kernel(model, name) == 0).mean())
