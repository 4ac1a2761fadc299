"""A composite may read a size that is open until it runs, most often the batch's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo

import tf_spline_prune as tsp

ops = keras.ops
RNG = np.random.default_rng(0)


def split_batch(x, z):
    return ops.reshape(z, (ops.shape(x)[0], x.shape[1], 2, 4))


def split_both(x, z):
    return ops.reshape(z, (ops.shape(x)[0], ops.shape(x)[1], 2, 4))


def split_rest(x, z):
    return ops.reshape(z, (ops.shape(x)[0], -1, 2, 4))


def split_swapped(x, z):
    """The first axis is not the batch."""
    moved = ops.transpose(z, (1, 0, 2))
    there = ops.reshape(moved, (ops.shape(x)[1], ops.shape(x)[0], 2, 4))
    return ops.transpose(there, (1, 0, 2, 3))


def split_folded(x, z):
    flat = ops.reshape(z, (-1, 8))
    return ops.reshape(flat, (ops.shape(x)[0], ops.shape(x)[1], 2, 4))


SPLITS = [split_batch, split_both, split_rest]
READ = {  # what else reads a size: it may stay opaque, but must run
    "broadcast": lambda x: ops.broadcast_to(
        ops.sum(x, axis=1, keepdims=True), (ops.shape(x)[0], ops.shape(x)[1], 8)
    ),
    "arange": lambda x: (
        x * ops.cast(ops.arange(ops.shape(x)[0]), x.dtype)[:, None, None]
    ),
    "arange of time": lambda x: ops.cast(ops.arange(ops.shape(x)[1]), x.dtype)[:, None],
    "zeros": lambda x: ops.ones((ops.shape(x)[0], 1, 8)),
    "tensorflow": lambda x: tf.ones((tf.shape(x)[0], 1, 8)),
}


class Attention(keras.layers.Layer):
    """Two heads of attention, as people write them."""

    def __init__(self, split=split_batch, **kwargs):
        super().__init__(**kwargs)
        self.split = split
        self.query, self.key, self.value, self.out = (
            keras.layers.Dense(8, name=name) for name in ("q", "k", "v", "o")
        )

    def call(self, x):
        heads = [
            ops.transpose(self.split(x, part(x)), (0, 2, 1, 3))
            for part in (self.query, self.key, self.value)
        ]
        scores = ops.matmul(heads[0], ops.transpose(heads[1], (0, 1, 3, 2)))
        seen = ops.transpose(ops.matmul(ops.softmax(scores), heads[2]), (0, 2, 1, 3))
        return self.out(ops.reshape(seen, (ops.shape(x)[0], -1, 8)))


class Adds(keras.layers.Layer):
    def __init__(self, read, **kwargs):
        super().__init__(**kwargs)
        self.read, self.inner = read, keras.layers.Dense(8, name="inner")

    def call(self, x):
        return self.inner(x) + self.read(x)


class SplitInTensorFlow(tf_keras.layers.Layer):
    def __init__(self, both, **kwargs):
        super().__init__(**kwargs)
        self.both, self.inner = both, tf_keras.layers.Dense(8, name="inner")

    def call(self, x):
        time = tf.shape(x)[1] if self.both else x.shape[1]
        parts = tf.reshape(self.inner(x), (tf.shape(x)[0], time, 2, 4))
        return tf.reshape(parts * 2.0, (tf.shape(x)[0], time, 8))


# A class has to be built from its config alone.
for _class, _name in (
    (Attention, "split"),
    (Adds, "read"),
    (SplitInTensorFlow, "both"),
):
    _class.get_config = lambda self, key=_name, base=_class.__mro__[1]: {
        **base.get_config(self),
        key: getattr(self, key),
    }


def around(K, layer, time):
    given = K.Input((time, 5))
    x = K.layers.Dense(8, activation="relu", name="before")(given)
    x = layer(x)
    x = K.layers.Dense(9, activation="relu", name="after")(x)
    x = K.layers.GlobalAveragePooling1D()(x)
    return K.Model(given, K.layers.Dense(3, name="reader")(x))


def lengths(time):
    """Give inputs of several numbers of sequences, and lengths where they are open."""
    shapes = [(5, time or 6), (1, time or 9), (3, time or 2)]
    return [RNG.normal(size=(*shape, 5)).astype("float32") for shape in shapes]


def check_removal(model, tmp_path, seen_through=True):
    """Remove units of the layers around, and compare with a model cut by hand."""
    units = {"before": [1, 6], "after": [0]} if seen_through else {"after": [0]}
    small = tsp.remove_units(model, units)
    runs = lengths(model.input_shape[1])
    before = [np.asarray(model(x)) for x in runs]
    composite = next(
        layer
        for layer in model.layers
        if isinstance(layer, (Attention, Adds, SplitInTensorFlow))
    )
    weights = model.get_weights()
    if seen_through:
        for part in composite._flatten_layers(include_self=False):
            if part.name in ("q", "k", "v", "inner"):
                kernel, bias = part.get_weights()
                kernel = kernel.copy()
                kernel[units["before"]] = 0.0
                part.set_weights([kernel, bias])
    kernel, bias = model.get_layer("reader").get_weights()
    kernel = kernel.copy()
    kernel[units["after"]] = 0.0
    model.get_layer("reader").set_weights([kernel, bias])
    expected = [np.asarray(model(x)) for x in runs]
    model.set_weights(weights)
    for x, want in zip(runs, expected, strict=True):
        np.testing.assert_allclose(np.asarray(small(x)), want, atol=1e-5)
    for x, want in zip(runs, before, strict=True):
        assert np.array_equal(np.asarray(model(x)), want)
    several = small.predict(runs[0], batch_size=8, verbose=0)  # in a compiled function
    np.testing.assert_allclose(several, expected[0], atol=1e-5)
    if seen_through:  # then it is made of Keras' own layers
        package = keras if isinstance(model, keras.Model) else tf_keras
        small.save(tmp_path / "small.keras")
        loaded = package.models.load_model(tmp_path / "small.keras")
        np.testing.assert_allclose(np.asarray(loaded(runs[0])), expected[0], atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_a_fixed_length(split, tmp_path):
    model = around(keras, Attention(split, name="attention"), 6)
    check_removal(model, tmp_path)


@pytest.mark.parametrize("split", [split_both, split_rest, split_swapped])
def test_an_open_length(split, tmp_path):
    model = around(keras, Attention(split, name="attention"), None)
    check_removal(model, tmp_path)


def test_what_cannot_be_said_is_a_barrier(tmp_path):
    model = around(keras, Attention(split_folded, name="attention"), None)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    said = {barrier.layer: barrier.reason for barrier in plan.barriers}
    assert "attention" in said["before"]
    check_removal(model, tmp_path, seen_through=False)


@pytest.mark.parametrize("name", list(READ))
def test_other_uses_of_a_size(name, tmp_path):
    model = around(keras, Adds(READ[name], name="adds"), 6)
    seen = name == "arange of time"  # a fixed length is a number
    small = tsp.plan(model, "magnitude", sparsity=0.5).apply(model)
    for x in lengths(6):
        assert np.isfinite(np.asarray(small(x))).all()
    if not seen:
        check_removal(model, tmp_path, seen_through=False)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("time", [6, None])
def test_sizes_in_tensorflow(both, time, tmp_path):
    if not both and time is None:
        pytest.skip("an open size that is read as a number does not run at all")
    model = around(tf_keras, SplitInTensorFlow(both), time)
    check_removal(model, tmp_path, seen_through=False)


def test_copies_with_masks():
    model = around(keras, Attention(name="attention"), 6)
    masked = tsp.wrap_with_masks(model)
    for x in lengths(6):
        want = np.asarray(model(x))
        np.testing.assert_allclose(np.asarray(masked(x)), want, atol=1e-6)
    x = lengths(6)[0]
    labels = RNG.integers(0, 3, len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked = tsp.prune_at_init(model, "snip", sparsity=0.5, data=(x, labels), loss=loss)
    assert np.isfinite(np.asarray(masked(lengths(6)[1]))).all()


def test_a_subclassed_model():
    class Model(keras.Model):
        def __init__(self, split):
            super().__init__()
            self.attention = Attention(split)
            self.before = keras.layers.Dense(8, activation="relu", name="before")
            self.reader = keras.layers.Dense(3, name="reader")

        def call(self, x):
            seen = self.attention(self.before(x))
            flat = ops.reshape(seen, (ops.shape(seen)[0], 6 * 8))
            return self.reader(flat)

    model = Model(split_batch)
    x = lengths(6)[0]
    want = np.asarray(model(x))
    copy = zoo.through_masks(model)
    np.testing.assert_allclose(np.asarray(copy(x)), want, atol=1e-6)
    small = tsp.remove_units(model, {"before": [0]})
    assert np.asarray(small(x[:2])).shape == (2, 3)


def test_a_subclassed_model_that_reads_a_size_otherwise_is_refused():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.reader = keras.layers.Dense(8)

        def call(self, x):
            read = self.reader(x)
            return ops.broadcast_to(read, (ops.shape(x)[0], 6, 8))

    model = Model()
    model(lengths(6)[0])
    with pytest.raises(tsp.errors.ModelError, match="open until it runs"):
        tsp.plan(model, sparsity=0.5)
