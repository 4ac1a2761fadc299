"""Networks for images of 28 or 32 pixels that several benchmarks train."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

L = keras.layers


def conv_bn(x, width, stride=1, size=3, relu=True, slim=0.0):
    """A convolution without bias, BatchNormalization, and perhaps a ReLU."""
    x = L.Conv2D(width, size, stride, padding="same", use_bias=False)(x)
    return norm(x, relu, slim)


def norm(x, relu=True, slim=0.0):
    """BatchNormalization; `slim` is the L1 penalty on its scales."""
    penalty = keras.regularizers.L1(slim) if slim else None
    x = L.BatchNormalization(momentum=0.9, gamma_regularizer=penalty)(x)
    return L.ReLU()(x) if relu else x


def padded(inputs):
    """Images of 28 pixels, with a rim of two."""
    return L.ZeroPadding2D(2)(inputs) if inputs.shape[1] == 28 else inputs


def mlp(shape, slim=0.0, name="mlp"):
    """Two hidden layers of 512 and 256 units."""
    inputs = keras.Input(shape)
    x = L.Flatten()(inputs)
    for width in (512, 256):
        x = L.Dense(width, activation="relu")(x)
    return keras.Model(inputs, L.Dense(10)(x), name=name)


def vgg(depth, width=1.0):
    """VGG-11 or VGG-16 with BatchNormalization, and one Dense layer."""
    convs = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth]

    def build(shape, slim=0.0):
        inputs = keras.Input(shape)
        x = inputs
        for count, filters in zip(convs, (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                x = conv_bn(x, int(filters * width), slim=slim)
            if x.shape[1] > 1:  # of 28 pixels four poolings leave one
                x = L.MaxPooling2D()(x)
        return keras.Model(inputs, L.Dense(10)(L.Flatten()(x)), name=f"vgg{depth}")

    return build


def preresnet(depth):
    """The pre-activation ResNet of CIFAR, of 6 n + 2 layers."""

    def build(shape, slim=0.0):
        inputs = keras.Input(shape)
        x = L.Conv2D(16, 3, padding="same", use_bias=False)(padded(inputs))
        for stage, width in enumerate((16, 32, 64)):
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                y = norm(x, slim=slim)
                if stride > 1:
                    x = L.Conv2D(width, 1, stride, use_bias=False)(y)
                y = conv_bn(y, width, stride, slim=slim)
                y = L.Conv2D(width, 3, padding="same", use_bias=False)(y)
                x = L.Add()([x, y])
        x = L.GlobalAveragePooling2D()(norm(x, slim=slim))
        return keras.Model(inputs, L.Dense(10)(x), name=f"preresnet{depth}")

    return build


def mobilenet(shape, slim=0.0):
    """Inverted residuals in the manner of MobileNetV2, for small images."""
    inputs = keras.Input(shape)
    x = conv_bn(padded(inputs), 32, slim=slim)
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 3, 2), (6, 96, 2, 1))
    for expand, width, blocks, first in stages:
        for block in range(blocks):
            stride = first if not block else 1
            y = conv_bn(x, x.shape[-1] * expand, size=1, slim=slim)
            y = L.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y)
            y = conv_bn(norm(y, slim=slim), width, size=1, relu=False, slim=slim)
            x = L.Add()([x, y]) if x.shape == y.shape else y
    x = L.GlobalAveragePooling2D()(conv_bn(x, 256, size=1, slim=slim))
    return keras.Model(inputs, L.Dense(10)(x), name="mobilenet")


NETS = {
    "mlp": mlp,
    "vgg11_quarter": vgg(11, 0.25),
    "vgg11": vgg(11),
    "vgg16": vgg(16),
    "preresnet20": preresnet(20),
    "preresnet56": preresnet(56),
    "mobilenet": mobilenet,
}
