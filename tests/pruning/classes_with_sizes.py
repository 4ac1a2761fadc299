"""Small models of classes that say their sizes in a config, as KerasHub's do."""

import keras
import numpy as np
from keras import layers, ops

WORDS = 11


@keras.saving.register_keras_serializable("classes_with_sizes")
class Heads(layers.Layer):
    """Causal self-attention, read along positions that it counts itself."""

    def __init__(self, num_heads, head_dim, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.head_dim = num_heads, head_dim

    def build(self, shape):
        width, out = shape[-1], (None, self.num_heads, self.head_dim)
        for name in ("query", "key", "value"):
            part = layers.EinsumDense("btd,dhk->bthk", output_shape=out, name=name)
            part.build((None, None, width))
            setattr(self, name, part)
        self.output_dense = layers.EinsumDense(
            "bthk,hkd->btd", output_shape=(None, width), name="output_dense"
        )
        self.output_dense.build((None, *out))

    def call(self, x):
        length = ops.shape(x)[1]
        scores = ops.einsum("bthk,bshk->bhts", self.query(x), self.key(x))
        seen = ops.arange(length)[:, None] >= ops.arange(length)
        weights = ops.softmax(ops.where(seen, scores / self.head_dim**0.5, -1e9))
        return self.output_dense(ops.einsum("bhts,bshk->bthk", weights, self.value(x)))

    def get_config(self):
        own = {"num_heads": self.num_heads, "head_dim": self.head_dim}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("classes_with_sizes")
class Block(layers.Layer):
    """Attention and a feed-forward network, each beside the stream.

    `window` is what `get_config` forgets, as many do.
    """

    def __init__(self, inner_dim, num_heads, head_dim, window=99, **kwargs):
        super().__init__(**kwargs)
        self.inner_dim, self.num_heads = inner_dim, num_heads
        self.head_dim, self.window = head_dim, window

    def build(self, shape):
        self.norm = layers.LayerNormalization(name="norm")
        self.heads = Heads(self.num_heads, self.head_dim, name="heads")
        self.up = layers.Dense(self.inner_dim, activation="gelu", name="up")
        self.down = layers.Dense(shape[-1], name="down")
        for part in (self.norm, self.heads, self.up):
            part.build(shape)
        self.down.build((*shape[:-1], self.inner_dim))

    def call(self, x, padding_mask=None):
        near = ops.cast(ops.arange(ops.shape(x)[1]) < self.window, x.dtype)
        x = x + self.heads(self.norm(x)) * near[:, None]
        if padding_mask is not None:
            x = x * ops.cast(padding_mask, x.dtype)[..., None]
        return x + self.down(self.up(x))

    def get_config(self):
        own = {"inner_dim": self.inner_dim, "num_heads": self.num_heads}
        return {**super().get_config(), **own, "head_dim": self.head_dim}


@keras.saving.register_keras_serializable("classes_with_sizes")
class Backbone(keras.Model):
    """Blocks over embedded words, of any length."""

    def __init__(
        self,
        num_layers,
        width,
        inner_dim,
        num_heads,
        head_dim,
        window=99,
        half=False,
        **kwargs,
    ):
        words = keras.Input((None,), dtype="int32", name="words")
        mask = keras.Input((None,), dtype="int32", name="padding_mask")
        embedding = layers.ReversibleEmbedding(WORDS, width, name="embedding")
        x = embedding(words)
        for number in range(num_layers):
            # With `half`, a class in whose config one number means two sizes.
            inner = inner_dim // 2 if half and number else inner_dim
            x = Block(inner, num_heads, head_dim, window, name=f"block_{number}")(
                x, padding_mask=mask
            )
        super().__init__({"words": words, "padding_mask": mask}, x, **kwargs)
        self.embedding = embedding
        self.sizes = {
            "num_layers": num_layers,
            "width": width,
            "inner_dim": inner_dim,
            "num_heads": num_heads,
            "head_dim": head_dim,
            "window": window,
            "half": half,
        }

    def get_config(self):
        return {"name": self.name, **self.sizes}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("classes_with_sizes")
class Splitter(layers.Layer):
    """Makes numbers of words; it has no weights, and words beside its config."""

    def __init__(self, length=5, **kwargs):
        super().__init__(**kwargs)
        self.length, self.words = length, None

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "length": self.length}


@keras.saving.register_keras_serializable("classes_with_sizes")
class Task(keras.Model):
    """A backbone, and the embedding backwards for the next word; it compiles itself."""

    def __init__(self, backbone, preprocessor=None, **kwargs):
        hidden = backbone(backbone.input)
        outputs = backbone.embedding(hidden, reverse=True)
        super().__init__(backbone.input, outputs, **kwargs)
        self.backbone, self.preprocessor = backbone, preprocessor
        self.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))

    def continue_greedily(self, words, count):
        """Add the most likely word, again and again."""
        for _ in range(count):
            given = {"words": words, "padding_mask": np.ones_like(words)}
            best = np.argmax(ops.convert_to_numpy(self(given))[:, -1], -1)
            words = np.concatenate([words, best[:, None]], 1)
        return words

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "backbone": serialize(self.backbone),
            "preprocessor": serialize(self.preprocessor),
        }

    @classmethod
    def from_config(cls, config):
        make = keras.saving.deserialize_keras_object
        for key in ("backbone", "preprocessor"):
            if isinstance(config[key], dict):
                config = {**config, key: make(config[key])}
        return cls(**config)


def backbone(**sizes):
    """Build a small backbone with drawn weights, vectors too."""
    usual = {
        "num_layers": 2,
        "width": 8,
        "inner_dim": 12,
        "num_heads": 4,
        "head_dim": 3,
    }
    keras.utils.set_random_seed(0)
    model = Backbone(**{**usual, **sizes}, name="backbone")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) / np.sqrt(weight.shape[0]))
    return model


def given(length=7, count=3, seed=0):
    """Draw words, the last ones of each row padded."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, WORDS, (count, length))
    mask = np.arange(length) < rng.integers(1, length + 1, (count, 1))
    return {"words": words, "padding_mask": mask.astype(int)}


def zeroed(layer, axis, places):
    """Zero what a kernel reads, or gives, at some places of an axis."""
    kernel = np.array(layer.kernel)
    np.moveaxis(kernel, axis, 0)[places] = 0
    layer.kernel.assign(kernel)
