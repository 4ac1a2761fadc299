"""Small residual nets whose layers can be wired with and without some branches.

What a net is without its blocks is wired by hand here, from the same layers: the
package is not asked.
"""

import numpy as np


class Net:
    """Layers, and functions that wire them.

    Args:
        K: The Keras package.
        shape: The input's shape.
        before: A function of the input, to the stream.
        blocks: For each block its name, a function of the stream to what is added, and
            a function of the sum.
        behind: A function of the stream, to the features.
        head: The Dense layer from these to the output.
        dtype: The dtype of the inputs.
    """

    def __init__(self, K, shape, before, blocks, behind, head, dtype="float32"):
        self.K, self.shape, self.dtype = K, shape, dtype
        self.before, self.blocks = before, blocks
        self.behind, self.head = behind, head
        self.model = self.wired()

    def wired(self, without=(), to=None):
        """Wire a model; `to` ends it at the sum of a block, or at the features."""
        x = inputs = self.K.Input(self.shape, dtype=self.dtype)
        x = self.before(x)
        dtype = None if "int" in self.dtype else self.dtype
        for name, branch, after in self.blocks:
            if name not in without:
                label = None if without or to else name
                x = self.K.layers.Add(name=label, dtype=dtype)([x, branch(x)])
            if name == to:
                return self.K.Model(inputs, x)
            x = after(x)
        x = self.behind(x)
        return self.K.Model(inputs, x if to == "features" else self.head(x))

    def inputs(self, count=40, seed=0):
        """Draw inputs."""
        rng = np.random.default_rng(seed)
        if "int" in self.dtype:
            return rng.integers(0, 11, (count, *self.shape))
        return rng.normal(size=(count, *self.shape)).astype(self.dtype)


def same(x):
    return x


def shaken(model, seed=0):
    """Give biases and normalisations other numbers than they begin with."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        arrays = []
        for array, variable in zip(layer.get_weights(), layer.weights, strict=True):
            if array.ndim == 1:
                drawn = rng.normal(0, 0.2, array.shape)
                spread = any(w in variable.name for w in ("gamma", "variance"))
                array = rng.uniform(0.5, 1.5, array.shape) if spread else drawn
            arrays.append(array)
        layer.set_weights(arrays)
    return model


def resnet(K):
    """Three blocks with BatchNormalization, a ReLU behind every sum."""
    L = K.layers

    def convolution(name):
        parts = [
            L.Conv2D(3, 3, padding="same", use_bias=False, name=name),
            L.BatchNormalization(name=f"{name}_norm"),
        ]
        return lambda x: parts[1](parts[0](x))

    stem, relu = convolution("stem"), L.ReLU()
    blocks = []
    for number in range(3):
        first, second = (convolution(f"conv{number}{letter}") for letter in "ab")
        middle = L.ReLU()

        def branch(x, first=first, second=second, middle=middle):
            return second(middle(first(x)))

        blocks.append((f"add{number}", branch, L.ReLU()))
    pool, head = L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax")
    net = Net(K, (6, 6, 2), lambda x: relu(stem(x)), blocks, pool, head)
    shaken(net.model)
    return net


def transformer(K):
    """Two layers of pre-norm attention and feed-forward: four blocks."""
    L = K.layers
    embedding = L.Embedding(11, 8, name="tokens")
    blocks = []
    for number in range(2):
        attention = L.MultiHeadAttention(2, 3, name=f"attention{number}")
        norms = [L.LayerNormalization(name=f"norm{number}{letter}") for letter in "ab"]
        wide = L.Dense(12, activation="gelu", name=f"wide{number}")
        narrow = L.Dense(8, name=f"narrow{number}")

        def attend(x, norm=norms[0], attention=attention):
            x = norm(x)
            return attention(x, x)

        def feed(x, norm=norms[1], wide=wide, narrow=narrow):
            return narrow(wide(norm(x)))

        blocks += [(f"attend{number}", attend, same), (f"feed{number}", feed, same)]
    norm, head = L.LayerNormalization(name="norm"), L.Dense(5, name="head")
    net = Net(K, (6,), embedding, blocks, norm, head, "int32")
    shaken(net.model)
    return net


def mlp(K, dtype="float32", norm=False):
    """Three blocks of two Dense layers on a stream of five, in a dtype."""
    L = K.layers
    stem, head = L.Dense(5, name="stem", dtype=dtype), L.Dense(3, dtype=dtype)
    blocks = []
    for number in range(3):
        wide = L.Dense(7, activation="tanh", name=f"wide{number}", dtype=dtype)
        narrow = L.Dense(5, use_bias=not norm, name=f"narrow{number}", dtype=dtype)
        behind = L.BatchNormalization(dtype=dtype, name=f"norm{number}")

        def branch(x, wide=wide, narrow=narrow, behind=behind):
            x = narrow(wide(x))
            return behind(x) if norm else x

        blocks.append((f"add{number}", branch, same))
    net = Net(K, (4,), stem, blocks, same, head, dtype)
    shaken(net.model)
    return net


NETS = {"resnet": resnet, "transformer": transformer, "mlp": mlp}
