"""Small models of the families that the tests prune, in either flavour.

Every builder takes the Keras package (`keras` or `tf_keras`) and returns an
unstained model: fixed seeds, BatchNormalization statistics away from their
initial values, as after some training.
"""

import numpy as np
import pytest

import tf_spline_prune as tsp

SHAPE = (8, 8, 3)


def settle(model, seed=0):
    """Give every weight a value as after training, reproducibly."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.name
        shape = tuple(weight.shape)
        if "variance" in name:
            value = rng.uniform(0.5, 2.0, shape)
        elif "gamma" in name:
            value = rng.uniform(0.5, 1.5, shape)
        elif "mean" in name or "beta" in name or "bias" in name:
            value = rng.normal(0.0, 0.3, shape)
        else:
            fan_in = max(1, int(np.prod(shape[:-1])))
            value = rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)
        weight.assign(value.astype("float32"))
    return model


def mlp(K):
    L = K.layers
    return settle(
        K.Sequential(
            [
                K.Input((12,)),
                L.Dense(32, activation="relu", name="first"),
                L.Dense(24, activation="relu", name="second"),
                L.Dense(5, name="head"),
            ]
        )
    )


def conv_bn(K, x, filters, name, strides=1, size=3, act="relu"):
    L = K.layers
    x = L.Conv2D(
        filters, size, strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = L.BatchNormalization(name=f"{name}_bn")(x)
    return L.Activation(act, name=f"{name}_act")(x) if act else x


def vgg(K):
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = conv_bn(K, x, 16, "a1")
    x = conv_bn(K, x, 16, "a2")
    x = L.MaxPooling2D()(x)
    x = conv_bn(K, x, 24, "b1")
    x = L.MaxPooling2D()(x)
    x = L.Flatten()(x)
    x = L.Dense(20, activation="relu", name="fc")(x)
    return settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def resnet(K):
    """Post-activation, with a projected shortcut."""
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = conv_bn(K, x, 16, "stem")
    for i, (filters, strides) in enumerate([(16, 1), (24, 2), (24, 1)]):
        short = x
        y = conv_bn(K, x, filters, f"r{i}a", strides)
        y = conv_bn(K, y, filters, f"r{i}b", act=None)
        if strides > 1:
            short = conv_bn(K, x, filters, f"r{i}s", strides, 1, act=None)
        x = L.Activation("relu", name=f"r{i}_out")(L.Add()([y, short]))
    x = L.GlobalAveragePooling2D()(x)
    return settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def preact_resnet(K):
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = L.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    for i, (filters, strides) in enumerate([(16, 1), (24, 2)]):
        y = L.ReLU()(L.BatchNormalization(name=f"p{i}_bn1")(x))
        short = x
        if strides > 1:
            short = L.Conv2D(filters, 1, strides, use_bias=False, name=f"p{i}_s")(y)
        y = L.Conv2D(
            filters, 3, strides, padding="same", use_bias=False, name=f"p{i}_c1"
        )(y)
        y = L.ReLU()(L.BatchNormalization(name=f"p{i}_bn2")(y))
        y = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"p{i}_c2")(y)
        x = L.Add()([y, short])
    x = L.ReLU()(L.BatchNormalization(name="last_bn")(x))
    x = L.GlobalAveragePooling2D()(x)
    return settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def densenet(K):
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = L.Conv2D(12, 3, padding="same", use_bias=False, name="stem")(x)
    for i in range(3):
        y = L.ReLU()(L.BatchNormalization(name=f"d{i}_bn")(x))
        y = L.Conv2D(8, 3, padding="same", use_bias=False, name=f"d{i}_conv")(y)
        x = L.Concatenate()([x, y])
    x = L.ReLU()(L.BatchNormalization(name="t_bn")(x))
    x = L.Conv2D(16, 1, use_bias=False, name="transition")(x)
    x = L.AveragePooling2D(2)(x)
    x = L.Flatten()(x)
    return settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def mobilenet(K):
    """Inverted residuals: expand, depthwise, linear bottleneck."""
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = conv_bn(K, x, 12, "stem", 2, act="relu")
    for i in range(2):
        y = L.Conv2D(32, 1, use_bias=False, name=f"m{i}_expand")(x)
        y = L.ReLU(max_value=6.0)(L.BatchNormalization(name=f"m{i}_bn1")(y))
        y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"m{i}_dw")(y)
        y = L.ReLU(max_value=6.0)(L.BatchNormalization(name=f"m{i}_bn2")(y))
        y = L.Conv2D(12, 1, use_bias=False, name=f"m{i}_project")(y)
        y = L.BatchNormalization(name=f"m{i}_bn3")(y)
        x = L.Add()([x, y])
    x = L.GlobalAveragePooling2D()(x)
    return settle(K.Model(inputs, L.Dense(5, activation="softmax", name="head")(x)))


def nested(K):
    """A functional model that holds a Sequential and a functional block."""
    L = K.layers
    block_in = K.Input((8, 8, 12))
    y = conv_bn(K, block_in, 12, "in1")
    block = K.Model(block_in, L.Add()([block_in, y]), name="block")
    tail = K.Sequential(
        [
            K.Input((8, 8, 12)),
            L.Conv2D(10, 3, activation="relu", name="conv"),
            L.GlobalMaxPooling2D(),
        ],
        name="tail",
    )
    x = inputs = K.Input(SHAPE)
    x = conv_bn(K, x, 12, "stem")
    x = tail(block(x))
    return settle(K.Model(inputs, L.Dense(5, name="head")(x)))


def subclassed(K):
    L = K.layers

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.one = L.Conv2D(10, 3, padding="same", name="one")
            self.norm = L.BatchNormalization(name="norm")
            self.two = L.Conv2D(8, 3, activation="relu", name="two")
            self.pool = L.GlobalAveragePooling2D()
            self.head = L.Dense(5, name="head")

        def call(self, x, training=False):
            x = K.activations.relu(self.norm(self.one(x), training=training))
            return self.head(self.pool(self.two(x)))

    model = Net()
    model(np.zeros((1, *SHAPE), "float32"))
    return settle(model)


FAMILIES = [vgg, resnet, preact_resnet, densenet, mobilenet]
ALL = [mlp, *FAMILIES, nested, subclassed]


def without_counterpart(K):
    """An operation of TensorFlow that neither LiteRT nor ONNX has."""

    class Spectrum(K.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.math.bessel_i0e(x)

        def compute_output_shape(self, shape):
            return shape

    i = K.Input((4,))
    return K.Model(i, Spectrum()(i))


def through_masks(model):
    """Copy a model into one with masks, which nobody sets, and back."""
    with pytest.warns(tsp.errors.SparsityWarning, match="remove nothing"):
        return tsp.strip_masks(tsp.wrap_with_masks(model))


def edit(model, layer, **changes):
    """Change weights of a layer in place: `kernel=lambda w: ...`."""
    layer = model.get_layer(layer)
    names = [w.name.rpartition("/")[2].partition(":")[0] for w in layer.weights]
    arrays = {n: np.array(a) for n, a in zip(names, layer.get_weights(), strict=True)}
    for name, change in changes.items():
        change(arrays[name])
    layer.set_weights(list(arrays.values()))
