"""Small models, data and callbacks that the tests of this folder train with."""

import keras
import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (64, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
PROBE = RNG.normal(0, 1, (50, 6)).astype("float32")


def network(K, seed=0):
    """An uncompiled network with 12 and 8 rectified units."""
    K.utils.set_random_seed(seed)
    return K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(12, activation="relu", name="one"),
            K.layers.Dense(8, activation="relu", name="two"),
            K.layers.Dense(2, name="head"),
        ]
    )


def compiled(K, model, rate=0.1, **kwargs):
    model.compile(
        K.optimizers.SGD(rate),
        K.losses.SparseCategoricalCrossentropy(from_logits=True),
        **kwargs,
    )
    return model


def ready(K, rate=0.1, seed=0, **kwargs):
    return compiled(K, network(K, seed), rate, **kwargs)


def fit(model, callbacks, epochs=6, **kwargs):
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(X, Y, epochs=epochs, callbacks=callbacks, **arguments)


def brute_codes(model, probe=PROBE):
    """The codes of `network` in float64 NumPy, from the weights as they are."""
    codes, x = [], np.asarray(probe, "float64")
    for layer in model.layers[:2]:
        kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
        pre = x @ kernel + bias
        codes.append(pre > 0)
        x = np.maximum(pre, 0)
    return codes


def brute_distance(first, second):
    return float(np.mean([(a != b).mean() for a, b in zip(first, second, strict=True)]))


# Bits that float32 and float64 may see differently: one in the smaller layer.
TOLERANCE = 0.5 / (50 * 8)


class _Plain(keras.callbacks.Callback):
    """Base of callbacks that the `fit` of both flavours takes."""

    _supports_tf_logs = False
    _chief_worker_only = None

    def _implements_train_batch_hooks(self):
        return False

    _implements_test_batch_hooks = _implements_train_batch_hooks
    _implements_predict_batch_hooks = _implements_train_batch_hooks


class Recorder(_Plain):
    """Keeps the weights and the brute-force codes of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights, self.codes = {}, {}

    def on_epoch_end(self, epoch, logs=None):
        self.weights[epoch] = self.model.get_weights()
        self.codes[epoch] = brute_codes(self.model)


class Interruption(Exception):
    """What cuts a run off."""


class Interrupt(_Plain):
    """Cuts a run off at the beginning or the end of an epoch."""

    def __init__(self, epoch, at="begin"):
        super().__init__()
        self.epoch, self.at = epoch, at

    def on_epoch_begin(self, epoch, logs=None):
        if self.at == "begin" and epoch == self.epoch:
            raise Interruption

    def on_epoch_end(self, epoch, logs=None):
        if self.at == "end" and epoch == self.epoch:
            raise Interruption
