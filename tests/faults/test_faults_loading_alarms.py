"""Ordinary models load in safe mode, with equal outputs; code among them does not.

What a user's class keeps in its config may look like a name, a vocabulary or a class.
"""

import copy
import json

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import load_model
from tf_spline_prune.compat.files._foreign_code import foreign_code
from tf_spline_prune.compat.files._model_files import ModelFile
from tf_spline_prune.errors import ModelError

R = np.random.default_rng(0)
ROWS = R.normal(size=(4, 12)).astype("float32")
IMAGES = R.uniform(0, 1, (2, 8, 8, 3)).astype("float32")
SERIES = R.normal(size=(2, 6, 5)).astype("float32")
FILMS = R.normal(size=(2, 3, 6, 6, 2)).astype("float32")
TEXTS = np.array([["a"], ["c"]])
pytestmark = pytest.mark.filterwarnings("ignore")


def old(K):
    return K.__name__ == "tf_keras"


def rows(K, *layers):
    return K.Sequential([K.Input((12,)), *layers, K.layers.Dense(2)]), ROWS


def joined(K, inputs, outputs):
    flat = [K.layers.Flatten()(x) for x in outputs]
    return K.Model(inputs, K.layers.Dense(2)(K.layers.Concatenate()(flat)))


def words_given(K):
    L = K.layers
    i = K.Input((1,), dtype="string")
    counted = {"output_mode": "multi_hot"}
    several = L.TextVectorization(vocabulary=["en", "de"], **counted)
    pairs = L.TextVectorization(vocabulary=["a b"], ngrams=2, **counted)
    index = L.StringLookup(vocabulary=["a", "b"], num_oov_indices=2)
    back = L.StringLookup(vocabulary=["a"], invert=True)
    whole = L.IntegerLookup(vocabulary=[1, 2], output_mode="one_hot")
    crossed = L.HashedCrossing(5, output_mode="one_hot")((i, back(index(i))))
    out = [several(i), pairs(i), whole(index(i)), crossed]
    out += [L.Embedding(9, 2)(index(i)), L.Hashing(4, output_mode="one_hot")(i)]
    return joined(K, i, out), TEXTS


def words_learnt(K):
    L = K.layers
    i = K.Input((1,), dtype="string")
    out = []
    for layer in [
        L.TextVectorization(9, output_mode="tf_idf", split="character"),
        L.StringLookup(output_mode="count"),
    ]:
        layer.adapt(np.array(["a b", "b c"]))
        out.append(layer(i))
    return joined(K, i, out), TEXTS


def numbers(K):
    L = K.layers
    i = K.Input((1,))
    bins = L.Discretization(num_bins=4)
    spread = L.Normalization()
    for layer in (bins, spread):
        layer.adapt(ROWS[:, :1])
    out = [L.Discretization([0.0, 1.0], output_mode="one_hot")(i), spread(i)]
    out += [L.Embedding(4, 2)(bins(i)), L.CategoryEncoding(4)(bins(i))]
    out += [L.Normalization(None, 3.0, 2.0, invert=True)(i), L.Rescaling(1 / 255)(i)]
    return joined(K, i, out), ROWS[:, :1]


def images(K):
    L = K.layers
    more = (
        [L.RandomHeight(0.1)] if old(K) else [L.RandomHue(0.1), L.RandomSharpness(0.1)]
    )
    augmented = K.Sequential(
        [L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.2, 0.1)]
        + [L.RandomTranslation(0.1, 0.1), L.RandomContrast(0.2), *more]
        + [L.RandomBrightness(0.2), L.CenterCrop(6, 6), L.Resizing(8, 8)]
    )
    x = inputs = K.Input((8, 8, 3))
    for layer in [
        *[augmented, L.SeparableConv2D(4, 3, depthwise_regularizer="l2")],
        *[
            L.Conv2DTranspose(4, 3, 2),
            L.DepthwiseConv2D(3),
            L.PReLU(shared_axes=[1, 2]),
        ],
        *[L.LeakyReLU(0.1), L.ReLU(6.0, 0.1), L.ELU(), L.Softmax(), L.UpSampling2D()],
        *[L.GaussianNoise(0.1), L.SpatialDropout2D(0.1), L.ZeroPadding2D(1)],
        *[L.BatchNormalization(), L.GroupNormalization(2), L.UnitNormalization()],
        *[L.Reshape((-1, 4)), L.Permute((2, 1)), L.Conv1D(2, 3, padding="causal")],
    ]:
        x = layer(x)
    return K.Model(inputs, L.GlobalMaxPooling1D()(x)), IMAGES


def attention(K):
    L = K.layers
    i = K.Input((6, 5))
    x = L.Attention(use_scale=True)([i, i])
    x = L.AdditiveAttention()([x, x])
    x = L.MultiHeadAttention(2, 3, kernel_initializer="he_normal")(x, x)
    x = L.MultiHeadAttention(2, 3, output_shape=4)(x, x, use_causal_mask=True)
    x = L.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", activation="gelu")(x)
    x = L.Dot(axes=(1, 1))([L.LayerNormalization()(x), x])
    return K.Model(i, L.Flatten()(x)), SERIES


def recurrent(K):
    L = K.layers
    i = K.Input((6, 5))
    x = L.RNN([L.LSTMCell(2), L.GRUCell(2)], return_sequences=True)(i)
    x = L.Bidirectional(L.LSTM(2, return_sequences=True), merge_mode="sum")(x)
    x, h, c = L.LSTM(2, return_sequences=True, return_state=True)(x)
    x = L.LSTM(2)(x, initial_state=[h, c])
    x = L.RNN(L.SimpleRNNCell(2))(L.RepeatVector(3)(x))
    return K.Model(i, x), SERIES


def films(K):
    L = K.layers
    frame = K.Sequential([K.Input((4, 4, 2)), L.Conv2D(2, 3), L.Flatten()])
    i = K.Input((3, 6, 6, 2))
    x = L.ConvLSTM2D(2, 3, return_sequences=True)(i)
    return K.Model(i, L.GRU(2)(L.TimeDistributed(frame)(x))), FILMS


def arithmetic(K):
    i = K.Input((6, 5))
    x = K.layers.Dense(8)(i)
    y = (1 - x[:, 1:3, ::2]) / 3 - x[:, :2, :4] ** 2
    outputs = [x[:, 0] * 2 + np.float32(1), -abs(x[:, -1]), K.layers.Flatten()(y)]
    return K.Model(i, outputs), SERIES


def operations(K):
    i = K.Input((6, 4))
    x = K.layers.Dense(4)(i)
    if old(K):
        import tensorflow as tf

        x = tf.nn.softmax(
            tf.transpose(tf.reshape(tf.nn.relu(x), (-1, 3, 8)), (0, 2, 1))
        )
        x = tf.linalg.matmul(tf.concat([x, x], -1), tf.ones((6, 2)))
        x = tf.where(x > 0.1, tf.math.exp(x), tf.zeros_like(x))
        x = tf.image.resize(tf.expand_dims(x, -1), (2, 2))
        x = tf.cast(tf.clip_by_value(tf.squeeze(x, -1), 0.0, 5.0), "float32")
        x = tf.reduce_mean(
            tf.pad(tf.gather(x, [0], axis=1), [[0, 0], [1, 1], [0, 0]]), 1
        )
        return K.Model(i, K.backend.l2_normalize(tf.stack([x, x], 1))), SERIES[..., :4]
    o = K.ops
    x = o.softmax(o.transpose(o.reshape(o.relu(x), (-1, 3, 8)), (0, 2, 1)))
    x = o.einsum("abc,cd->abd", o.concatenate([x, x], -1), o.ones((6, 2)))
    x = o.where(x > 0.1, o.exp(x), o.zeros_like(x))
    x = o.image.resize(o.expand_dims(x, -1), (2, 2))
    x = o.cast(o.clip(o.squeeze(x, -1), 0.0, 5.0), "float32")
    x = o.mean(o.pad(o.take(x, [0], axis=1), [[0, 0], [1, 1], [0, 0]]), 1)
    return K.Model(i, o.normalize(o.stack([x, x], 1))), SERIES[..., :4]


def settings(K):
    import tensorflow as tf

    D, r, c, n = K.layers.Dense, K.regularizers, K.constraints, K.initializers
    return rows(
        K,
        D(4, kernel_regularizer=r.L1L2(1e-3, 1e-3), bias_regularizer="l1"),
        D(4, "gelu", kernel_constraint=c.MaxNorm(2.0), bias_constraint="non_neg"),
        D(4, K.activations.relu, kernel_regularizer=r.OrthogonalRegularizer(1e-3)),
        D(4, "silu", kernel_initializer=n.VarianceScaling(2.0, "fan_out", "uniform")),
        D(4, "selu", kernel_initializer=n.Orthogonal(), bias_initializer="ones"),
        D(4, tf.nn.relu if old(K) else K.layers.LeakyReLU(0.2)),
        D(4, kernel_initializer=tf.random_normal_initializer(0.0, 0.02)),
        D(4, bias_initializer=tf.constant_initializer(0.1), activity_regularizer="l2"),
        K.layers.Activation(K.activations.softmax),
    )


def registered(K, name):
    return K.saving.register_keras_serializable("alarms", name)


def noted(K):
    """A class of one's own that keeps notes, and a layer."""

    @registered(K, "Noted")
    class Noted(K.layers.Layer):
        def __init__(self, notes=None, vocabulary="en", inner=None, **kwargs):
            super().__init__(**kwargs)
            self.notes, self.vocabulary, self.inner = notes, vocabulary, inner

        def call(self, x):
            return x if self.inner is None else self.inner(x)

        def get_config(self):
            inner = K.saving.serialize_keras_object(self.inner)
            own = {"notes": self.notes, "vocabulary": self.vocabulary, "inner": inner}
            return {**super().get_config(), **own}

        @classmethod
        def from_config(cls, config):
            inner = K.saving.deserialize_keras_object(config.pop("inner"))
            return cls(inner=inner, **config)

    return Noted


NOTES = [
    {"class_name": "dog", "colour": [1, 2]},
    [{"class_name": "cat", "config": {"legs": 4}}, {"class_name": None}],
    {"class_name": ["dog", "cat"], "vocabulary": "de"},
    {"class_name": "system", "activation": "barking", "module": None},
]


def own(K):
    @registered(K, "Half")
    class Half(K.initializers.Initializer):
        def __call__(self, shape, dtype=None, **kwargs):
            return np.full(shape, 0.5, "float32")

    @registered(K, "Slower")
    class Slower(K.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {}

    @registered(K, "squared")
    def squared(x):
        return x * x

    @registered(K, "halved")
    def halved(x):
        return x / 2

    Noted = noted(K)
    model, x = rows(
        K,
        *map(Noted, copy.deepcopy(NOTES)),  # Keras changes what it holds
        Noted(inner=K.layers.Dense(3, kernel_initializer=Half())),
        K.layers.Dense(3, squared),
        *(() if old(K) else (K.layers.Lambda(halved, output_shape=(3,)),)),
    )
    model.compile(K.optimizers.SGD(Slower()), "mse")
    return model, x


def mixed(K):
    policy = K.mixed_precision.Policy if old(K) else K.DTypePolicy
    one, other = (policy(f"mixed_{kind}") for kind in ("float16", "bfloat16"))
    D = K.layers.Dense
    return rows(K, D(4, dtype=one), D(4, dtype=other), D(4, dtype="float32"))


def shared(K):
    L = K.layers
    inner = K.Sequential([K.Input((12,)), L.Dense(12, "relu"), L.Dense(12)])
    outer = K.Sequential([K.Input((12,)), L.Dense(12), inner])
    a, b = K.Input((12,), name="a"), K.Input((12,), name="b")
    same = L.Dense(12)
    x = L.Subtract()([outer(a), outer(b)])
    y = L.Maximum()([same(a), L.Average()([same(x), L.Multiply()([x, b])])])
    outputs = {"one": L.Dense(1, name="one")(x), "two": L.Dense(2, name="two")(y)}
    return K.Model({"a": a, "b": b}, outputs), {"a": ROWS, "b": ROWS + 1}


FORMATS = {"keras": [".keras", ".h5"], "tf_keras": [".keras", ".h5", ""]}
# Slow, or what a format cannot hold; where a folder holds a `PyFunc`, it is refused.
NOT_IN = {
    words_learnt: [".h5"],
    own: [".h5"],  # no config inside a config
    numbers: [""],
    recurrent: [".h5", ""],
    **{build: [""] for build in (films, images, attention)},
}


def saved(K, model, path):
    model.save(path, **({} if path.suffix else {"save_format": "tf"}))


def answers(model, x):
    import tensorflow as tf

    outputs = model(tf.nest.map_structure(tf.constant, x), training=False)
    return [np.asarray(y) for y in tf.nest.flatten(outputs)]


def same_after_loading(K, model, x, path):
    saved(K, model, path)
    loaded = load_model(path)
    for one, other in zip(answers(model, x), answers(loaded, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return loaded


@pytest.mark.parametrize(
    "build",
    [words_given, words_learnt, numbers, images, attention, recurrent, films]
    + [arithmetic, operations, settings, own, mixed, shared],
)
def test_ordinary_models_load(K, build, tmp_path):
    model, x = build(K)
    endings = [e for e in FORMATS[K.__name__] if e not in NOT_IN.get(build, ())]
    if build in (arithmetic, operations, attention, images) and not old(K):
        endings = [".keras"]  # Keras reads no more of what it writes
    for ending in endings:
        same_after_loading(K, model, x, tmp_path / f"m{ending}")


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", [b for b in zoo.ALL if b is not zoo.subclassed])
def test_the_models_of_the_zoo_load(K, build, tmp_path):
    x = ROWS if build is zoo.mlp else IMAGES
    model = build(K)
    same_after_loading(K, model, x, tmp_path / "m.keras")


@pytest.mark.parametrize("mode", ["int8", "int4", "float8", "lora", "by layer"])
def test_quantized_models_load(mode, tmp_path):
    import keras

    D = keras.layers.Dense
    one = keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")
    one = one if mode == "by layer" else None
    several = keras.dtype_policies.DTypePolicyMap() if one else None
    model, x = rows(keras, D(16, "relu", dtype=one), D(4, dtype=several))
    if mode == "lora":
        model.layers[0].enable_lora(2)
    elif mode != "by layer":
        model.quantize(mode)
    for ending in [".keras"] if mode == "float8" else [".keras", ".h5"]:
        same_after_loading(keras, model, x, tmp_path / f"m{ending}")


@pytest.mark.parametrize("kind", ["objects", "names", "many", "scaled", "masks"])
def test_what_it_was_compiled_with_comes_back(K, kind, tmp_path):
    from_logits = K.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    model, x = rows(K)
    y = np.zeros((4, 2), "float32")
    schedules = K.optimizers.schedules
    if kind == "objects":
        rate = schedules.PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001])
        found = [K.metrics.AUC(from_logits=True), K.metrics.MeanSquaredError(name="q")]
        model.compile(K.optimizers.SGD(rate, 0.9), from_logits, metrics=found)
    elif kind == "names":
        model.compile("adam", "mse", metrics=["mae", "mse", "accuracy"])
    elif kind == "many":
        i = K.Input((12,))
        one = K.layers.Dense(2, name="one")(i)
        model = K.Model(i, {"one": one, "two": K.layers.Dense(2, name="two")(i)})
        y = {"one": y, "two": y}
        rate = schedules.ExponentialDecay(0.1, 10, 0.9, staircase=True)
        model.compile(
            *(K.optimizers.AdamW(rate), {"one": "mae", "two": K.losses.LogCosh()}),
            loss_weights={"one": 1.0, "two": 0.5},
        )
    elif kind == "scaled":
        home = K.mixed_precision if old(K) else K.optimizers
        model.compile(home.LossScaleOptimizer(K.optimizers.Adam()), "mse")
    else:
        model = tsp.wrap_with_masks(model)
        model.compile("sgd", K.losses.mean_squared_error)
    model.run_eagerly = True  # faster for so few
    model.fit(x, y, verbose=0)
    for ending in (".keras", ".h5"):
        loaded = same_after_loading(K, model, x, tmp_path / f"m{ending}")
        loaded.run_eagerly = True
        losses = [m.evaluate(x, y, verbose=0) for m in (model, loaded)]
        np.testing.assert_allclose(*[np.ravel(one)[0] for one in losses], rtol=1e-5)


# What a file cannot hold is said, and is no broken file.


def test_words_that_are_not_in_the_file_are_missed(tmp_path):
    import keras

    model, _ = words_learnt(keras)
    model.save(tmp_path / "m.h5")
    with pytest.raises(ModelError, match="learnt by `adapt` are not in.*as .keras"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize("build", [arithmetic, operations])
def test_an_old_format_is_no_broken_file(build, tmp_path):
    import keras

    model, _ = build(keras)
    model.save(tmp_path / "m.h5")
    with pytest.raises(ModelError, match="does not hold all.*save it as .keras"):
        load_model(tmp_path / "m.h5")


# Real code is still refused, in the same places.


def reference(name, module=None, config=None, **more):
    return {"class_name": name, "module": module, "config": config or {}, **more}


PATH = {"vocabulary": "/etc/passwd"}
BAD = {
    "a lambda": reference("__lambda__", config={"value": ["4wAA", None, None]}),
    "a function": {"module": "os", "class_name": "function", "config": "system"},
    "a class": reference("Popen", "subprocess"),
    "a lookup": reference("StringLookup", "keras.layers", PATH),
    "a lookup without a module": reference("StringLookup", None, PATH),
    "no config": {"class_name": "deserialize_keras_object", "module": "keras.layers"},
    "get": {"class_name": "get", "config": {}},
    "its own name": reference(
        "StringLookup", None, PATH, registered_name="alarms>Noted"
    ),
    "a name in a dict": {"class_name": {"class_name": "__bytes__", "value": "Dense"}},
    "a folder": reference("TFSMLayer", "keras.layers", {"filepath": "folder"}),
}


def found_in(K, config):
    config = json.loads(json.dumps(config))
    return list(foreign_code(ModelFile(K.__name__, (config,)), {}))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", ["inner", "notes"])
def test_code_in_the_config_of_an_own_class_is_refused(K, place, bad):
    noted(K)
    config = {"name": "it", "vocabulary": "en", place: [BAD[bad]]}
    entry = reference("Noted", "alarms", config, registered_name="alarms>Noted")
    if bad == "a folder" and old(K):
        entry["config"][place][0]["class_name"] = "Lambda"
    assert found_in(K, entry)
    entry["config"][place] = NOTES
    assert not found_in(K, entry)


@pytest.mark.parametrize("name", ["StringLookup", "TextVectorization", "IntegerLookup"])
def test_an_own_class_of_a_lookup_reads_no_file(K, name):
    registered(K, "Look")(type("Look", (getattr(K.layers, name),), {}))
    for written in ("Look", "alarms>Look"):
        entry = reference("Look", "alarms", PATH, registered_name=written)
        entry["class_name"] = written
        assert found_in(K, entry)


def test_of_tensorflow_only_initializers_are_taken(K):
    import tensorflow as tf  # noqa: F401 -- whose modules are looked into

    home = "tensorflow.python.ops.init_ops_v2"
    assert not found_in(K, {"kernel_initializer": reference("RandomNormal", home)})
    for module, name in [
        (home, "_RandomGenerator"),
        (home, "_compute_fans"),
        ("tensorflow.python.lib.io.file_io", "FileIO"),
        ("tensorflow.python.module.module", "Module"),
        ("tensorflow.python.ops.init_ops_v3", "Constant"),
    ]:
        assert found_in(K, {"kernel_initializer": reference(name, module)})
