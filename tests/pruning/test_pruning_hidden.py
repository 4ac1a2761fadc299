"""The hidden size, against a transformer written out in NumPy, in float64."""

import math

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune import compat
from tf_spline_prune.errors import (
    BudgetError,
    CalibrationError,
    FlavourError,
    ModelError,
    SplinePruneWarning,
    VerificationError,
)
from tf_spline_prune.pruning.width import _rotation

WORDS, LENGTH, SIZE, HEADS, DIM, BLOCKS = 30, 6, 16, 2, 3, 2
EPSILON = {"LayerNormalization": 1e-3, "RMSNormalization": 1e-6}


def outputs(model, x):
    return np.asarray(model(x, training=False)).astype("float64")


def transformer(K, norm="LayerNormalization", seed=0):
    """Pre-norm blocks on a stream of correlated entries of different sizes."""
    L = K.layers
    normed = getattr(L, norm)
    x = tokens = K.Input((LENGTH,), dtype="int32")
    x = L.Embedding(WORDS, SIZE, name="tokens")(x)
    for i in range(BLOCKS):
        y = normed(name=f"norm{i}a")(x)
        y = L.MultiHeadAttention(HEADS, DIM, name=f"attention{i}")(y, y)
        x = L.Add(name=f"attend{i}")([x, y])
        y = L.Dense(20, activation="relu", name=f"wide{i}")(normed(name=f"norm{i}b")(x))
        y = L.Dropout(0.1, name=f"drop{i}")(L.Dense(SIZE, name=f"narrow{i}")(y))
        x = L.Add(name=f"feed{i}")([x, y])
    x = normed(name="norm")(x)
    model = K.Model(tokens, L.Dense(5, name="head", use_bias=False)(x))
    rng = np.random.default_rng(seed)
    sizes = np.linspace(1.5, 0.1, SIZE)
    correlated = 2 * sizes[:, None] * rng.normal(size=(SIZE, SIZE)) * sizes
    for layer in model.layers:
        arrays = []
        for array, variable in zip(layer.get_weights(), layer.weights, strict=True):
            if any(name in variable.name for name in ("gamma", "scale")):
                array = rng.uniform(0.5, 1.5, array.shape)
            elif array.ndim == 1 or "bias" in variable.name:
                array = rng.normal(0, 0.3, array.shape)
            elif "embeddings" in variable.name:
                array = rng.normal(size=array.shape) @ correlated
            arrays.append(array)
        layer.set_weights(arrays)
    return model


def words(count=100, seed=0):
    return np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH))


class Written:
    """The same transformer in NumPy, of the same weights, in float64.

    Args:
        model: The model.
        norm: The class of its normalisations.
        seen: A function of a stream: what normalisations see of it. Without it, all.
        factor: What normalised vectors are multiplied by.
    """

    def __init__(self, model, norm, seen=lambda x: x, factor=1.0):
        self.weights = {
            layer.name: [w.astype("float64") for w in layer.get_weights()]
            for layer in model.layers
        }
        self.centred = norm == "LayerNormalization"
        self.epsilon = EPSILON[norm]
        self.seen, self.factor = seen, factor
        self.normalised, self.given = [], []

    def norm(self, x, name):
        gain, *offset = self.weights[name]
        x = self.seen(x)
        if self.centred:
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        self.normalised.append(x)
        y = x * self.factor * gain + (offset[0] if offset else 0.0)
        self.given.append(y)
        return y

    def attention(self, y, name):
        wq, bq, wk, bk, wv, bv, wo, bo = self.weights[name]
        q, k, v = (
            np.einsum("ntd,dhe->nhte", y, w) + b[:, None]
            for w, b in ((wq, bq), (wk, bk), (wv, bv))
        )
        scores = np.einsum("nhte,nhse->nhts", q, k) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return np.einsum("nhts,nhse,hed->ntd", scores, v, wo, optimize=True) + bo

    def __call__(self, tokens):
        x = self.weights["tokens"][0][tokens]
        for i in range(BLOCKS):
            x = x + self.attention(self.norm(x, f"norm{i}a"), f"attention{i}")
            w, b = self.weights[f"wide{i}"]
            y = np.maximum(self.norm(x, f"norm{i}b") @ w + b, 0)
            w, b = self.weights[f"narrow{i}"]
            x = x + y @ w + b
        return self.norm(x, "norm") @ self.weights["head"][0]


NORMS = ["LayerNormalization", "RMSNormalization"]


def per_norm(K, norm):
    if not hasattr(K.layers, norm):
        pytest.skip("tf_keras has no such layer")


@pytest.mark.both_flavours
@pytest.mark.parametrize("norm", NORMS)
def test_in_another_basis_the_model_computes_the_same(K, norm, tmp_path):
    per_norm(K, norm)
    model = transformer(K, norm)
    x, held = words(), model.get_weights()
    turned = tsp.prune_hidden(model, SIZE, data=x, recover=None)
    expected = Written(model, norm)(x)
    error = np.abs(outputs(turned, x) - expected).max() / np.abs(expected).max()
    assert error < 1e-5
    for layer, other in zip(model.layers, turned.layers, strict=True):
        assert type(layer) is type(other)
        assert layer.name == other.name
        assert [w.shape for w in layer.weights] == [w.shape for w in other.weights]
        if layer.name in ("tokens", "narrow0", "head", "norm"):
            assert not np.allclose(layer.get_weights()[0], other.get_weights()[0])
    assert not compat.is_compiled(turned)
    for old, new in zip(held, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    small = tsp.prune_hidden(model, 0.5, data=x)
    assert small.get_layer("tokens").get_weights()[0].shape == (WORDS, SIZE // 2)
    small.save(tmp_path / "small.keras")
    loaded = K.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(outputs(loaded, x), outputs(small, x), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("left", [13, 6])
def test_normalisations_see_what_lies_along_the_principal_axes(K, norm, left):
    per_norm(K, norm)
    model, x = transformer(K, norm), words()
    whole = Written(model, norm)
    whole(x)
    rows = np.concatenate([z.reshape(-1, SIZE) for z in whole.normalised])
    sizes, axes = np.linalg.eigh(rows.T @ rows)
    axes = axes[:, ::-1]
    energies = sizes[::-1] / sizes.sum()
    if norm == "LayerNormalization":  # the mean is an axis, too
        axes = axes[:, : left - 1]
        energy = energies[: left - 1].sum()
        seen = axes @ axes.T + 1 / SIZE
    else:
        axes = axes[:, :left]
        energy = energies[:left].sum()
        seen = axes @ axes.T
    expected = Written(model, norm, lambda x: x @ seen, math.sqrt(energy))(x)
    small = tsp.prune_hidden(model, left, data=x, recover=None)
    np.testing.assert_allclose(outputs(small, x), expected, rtol=1e-4, atol=1e-4)
    epsilon = small.get_layer("norm").epsilon
    assert epsilon == pytest.approx(EPSILON[norm] * SIZE / left)


@pytest.mark.parametrize("norm", NORMS)
def test_units_that_are_large_behind_the_normalisations_stay(K, norm):
    per_norm(K, norm)
    model, x = transformer(K, norm), words()
    whole = Written(model, norm)
    whole(x)
    worth = sum(np.sqrt((np.abs(z).mean(1) ** 2).sum(0)) for z in whole.given)
    kept = np.sort(np.argsort(-worth)[:10])
    small = tsp.prune_hidden(model, 10, data=x, recover=None, method="select")
    table = model.get_layer("tokens").get_weights()[0]
    np.testing.assert_array_equal(
        small.get_layer("tokens").get_weights()[0], table[:, kept]
    )
    expected = Written(small, norm)(x)
    np.testing.assert_allclose(outputs(small, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_stream_does_not_use_goes_without_loss(K, norm):
    """The mean is one of the axes of a stream that LayerNormalization runs over."""
    per_norm(K, norm)
    model, x = transformer(K, norm), words()
    rng = np.random.default_rng(3)
    inside = np.linalg.qr(rng.normal(size=(SIZE, 7)))[0]
    inside = inside @ inside.T
    for layer in model.layers:
        if layer.name == "tokens":
            layer.set_weights([layer.get_weights()[0] @ inside])
        elif layer.name.startswith(("narrow", "attention")):
            *others, kernel, bias = layer.get_weights()
            layer.set_weights([*others, kernel @ inside, bias @ inside])
    left = 8 if norm == "LayerNormalization" else 7
    small = tsp.prune_hidden(model, left, data=x, recover=None)
    expected = Written(model, norm)(x)
    error = np.abs(outputs(small, x) - expected).max() / np.abs(expected).max()
    assert error < 1e-5
    fewer = tsp.prune_hidden(model, left - 1, data=x, recover=None)
    assert np.abs(outputs(fewer, x) - expected).max() / np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_principal_axes_lose_less_than_units_and_solving_gives_back(K, norm):
    per_norm(K, norm)
    model = transformer(K, norm)
    x, new = words(150), words(100, 1)
    expected = outputs(model, new)

    def error(small):
        return np.square(outputs(small, new) - expected).sum()

    found = {
        (method, recover): error(
            tsp.prune_hidden(model, 0.75, data=x, method=method, recover=recover)
        )
        for method in ("rotate", "select")
        for recover in (None, "auto")
    }
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2):
        gone = {"tokens": rng.choice(SIZE, SIZE // 4, replace=False).tolist()}
        drawn.append(error(tsp.remove_units(model, gone, approximate=True)))
    assert found["rotate", None] < found["select", None] < min(drawn)
    assert found["rotate", "auto"] < 0.8 * found["rotate", None]
    assert found["select", "auto"] < 0.8 * found["select", None]


def blocks_on(x, norm=None, size=8, name="", branch=None):
    """Add a block to a stream."""
    L = keras.layers
    y = (norm or L.LayerNormalization(name=f"{name}norm" if name else None))(x)
    y = branch(y) if branch else L.Dense(size)(L.Dense(12, activation="gelu")(y))
    return L.Add(name=f"{name}add" if name else None)([x, y])


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        scale = 0.5 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[:-1]))
        about = 1.0 if variable.name in ("gamma", "scale") else 0.0
        variable.assign(rng.normal(about, scale, shape))
    return model


class Offset(keras.layers.Layer):
    """A root mean square, a scale about one, perhaps an offset."""

    def __init__(self, offset=False, epsilon=1e-4, **kwargs):
        super().__init__(**kwargs)
        self.epsilon, self.offset = epsilon, offset

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="zeros")
        if self.offset:
            self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        square = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
        y = x / keras.ops.sqrt(square + self.epsilon) * (1 + self.gamma)
        return y + self.beta if self.offset else y

    def get_config(self):
        told = {"epsilon": self.epsilon, "offset": self.offset}
        return {**super().get_config(), **told}


class Positions(keras.layers.Layer):
    """A vector for each position, whatever goes in."""

    def __init__(self, most, **kwargs):
        super().__init__(**kwargs)
        self.most = most

    def build(self, shape):
        self.table = self.add_weight(shape=(self.most, shape[-1]), name="table")

    def call(self, x):
        rows = keras.ops.slice(self.table, (0, 0), x.shape[1:])
        return keras.ops.broadcast_to(rows, keras.ops.shape(x))

    def get_config(self):
        return {**super().get_config(), "most": self.most}


def rotatable():
    """Models whose streams can be rotated, by what is particular about them."""
    L = keras.layers

    def image():
        x = inputs = keras.Input((6, 6, 3))
        x = L.Reshape((9, 8))(L.Conv2D(8, 2, 2)(x))
        x = x + Positions(9, name="positions")(x)
        for i in range(2):
            x = blocks_on(x, name=str(i))
        x = L.GlobalAveragePooling1D()(L.LayerNormalization()(x))
        return keras.Model(inputs, L.Dense(4, activation="softmax")(x))

    def flattened():
        x = inputs = keras.Input((5, 3))
        x = blocks_on(L.Dense(8)(x))
        x = L.Flatten()(L.LayerNormalization(epsilon=1e-5)(x))
        return keras.Model(inputs, L.Dense(4)(x))

    def convolved():
        x = inputs = keras.Input((5, 3))
        x = L.Dense(8)(x)
        x = blocks_on(x, branch=lambda y: L.Conv1D(8, 3, padding="same")(y))
        x = L.LayerNormalization(scale=False)(x)
        return keras.Model(inputs, L.Dense(4)(x[:, -1]))

    def read_as_it_is():
        x = inputs = keras.Input((3,))
        x = blocks_on(blocks_on(L.Dense(8)(x)), L.LayerNormalization(center=False))
        y = L.Dense(4)(x)
        return keras.Model(inputs, y + L.Dense(4)(L.LayerNormalization()(x)))

    def own_norm():
        x = inputs = keras.Input((5, 3))
        x = blocks_on(L.Dense(8)(x), Offset(name="norm"))
        return keras.Model(inputs, L.Dense(4)(Offset()(x)))

    def grouped():
        x = inputs = keras.Input((5, 3))
        x = L.Dense(8)(x)

        def attend(y):
            return L.GroupQueryAttention(3, 4, 2)(y, y, use_causal_mask=True)

        def gated(y):
            gate = L.Dense(12, activation="silu", use_bias=False)(y)
            return L.Dense(8, use_bias=False)(gate * L.Dense(12)(y))

        for branch in (attend, gated, attend):
            x = blocks_on(x, L.RMSNormalization(), branch=branch)
        x = 2.5 * L.Dropout(0.1)(L.RMSNormalization()(x))
        return keras.Model(inputs, L.EinsumDense("btd,dhe->bthe", (5, 2, 3))(x))

    def two():
        first, second = keras.Input((5, 3)), keras.Input((4, 2))
        left = L.LayerNormalization()(blocks_on(L.Dense(8)(first), name="left"))
        x = blocks_on(L.Dense(10)(second), size=10, name="right")
        mixed = L.MultiHeadAttention(2, 3)

        def cross(y):
            return mixed(y, left)

        x = blocks_on(x, size=10, branch=cross, name="cross")
        x = L.LayerNormalization()(x)
        return keras.Model([first, second], L.Dense(4)(x))

    def nested():
        inner_in = keras.Input((5, 8))
        inner = keras.Model(inner_in, blocks_on(inner_in, name="in"), name="inner")
        x = inputs = keras.Input((5, 3))
        x = inner(L.Dense(8)(x))
        x = L.LayerNormalization(name="behind")(x)
        return keras.Model(inputs, L.Dense(4)(x))

    made = [image, flattened, convolved, read_as_it_is, own_norm, grouped, two, nested]
    return {function.__name__: function for function in made}


@pytest.mark.parametrize("kind", rotatable())
def test_streams_of_many_kinds_can_be_rotated(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = drawn(rotatable()[kind]())
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(60, *i.shape[1:])).astype("float32") for i in model.inputs]
    x = x if len(x) > 1 else x[0]
    streams = tsp.residual_streams(model)
    assert [s.reason for s in streams] == [""] * (2 if kind == "two" else 1)
    expected = outputs(model, x)
    turned = tsp.prune_hidden(model, 1.0 - 1e-9, data=x, recover=None)
    np.testing.assert_allclose(outputs(turned, x), expected, rtol=1e-4, atol=2e-5)
    small = tsp.prune_hidden(model, 0.75, data=x)  # which is compared with another run
    assert small.count_params() < model.count_params()
    sizes = [stream.size for stream in tsp.residual_streams(small)]
    assert sizes == [round(0.75 * stream.size + 1e-9) for stream in streams]
    small.save(tmp_path / "small.keras")
    objects = {"Offset": Offset, "Positions": Positions}
    loaded = keras.models.load_model(tmp_path / "small.keras", objects)
    np.testing.assert_allclose(outputs(loaded, x), outputs(small, x), atol=1e-6)


def fixed():
    """Models whose streams cannot be rotated, and a part of the reason."""
    L = keras.layers

    def wired(stream):
        x = inputs = keras.Input((5, 3))
        x = stream(x)
        return keras.Model(inputs, L.Dense(4, name="head")(x))

    def post_norm(x):
        x = L.Dense(8)(x)
        for name in "ab":
            x = L.LayerNormalization(name=name)(x + L.Dense(8)(L.Dense(12)(x)))
        return x

    def norm_on_branch(x):
        x = L.Dense(8)(x)
        x = L.Add(name="sum")([x, L.LayerNormalization(name="late")(L.Dense(8)(x))])
        return L.LayerNormalization()(x)

    def activation(x):
        return L.LayerNormalization()(L.Dense(8, activation="relu", name="stem")(x))

    def apart(x):
        x = L.Activation("tanh", name="squash")(L.Dense(8)(x))
        return L.LayerNormalization()(x)

    def batch(x):
        x = L.BatchNormalization(name="batch")(L.Dense(8)(x))
        return L.LayerNormalization()(x)

    def pooled(x):
        x = L.LayerNormalization()(L.Dense(8)(x))
        return L.GlobalMaxPooling1D(name="most")(x)

    def offset(x):
        return Offset(offset=True, name="moved")(L.Dense(8)(x))

    def shared(x):
        x, dense = L.Dense(8)(x), L.Dense(8, name="twice")
        x = x + dense(L.LayerNormalization()(x))
        x = x + dense(L.LayerNormalization()(x))
        return L.LayerNormalization()(x)

    reasons = {
        post_norm: "lies on the stream itself",
        norm_on_branch: "joins what comes out of",
        activation: "the activation of stem lies on the stream",
        apart: "squash (Activation) treats the entries apart",
        batch: "batch (BatchNormalization) treats the entries apart",
        pooled: "most (GlobalMaxPooling1D) treats the entries apart",
        offset: "moved adds an offset",
        shared: "twice is used behind different normalisations",
    }
    return {f.__name__: (lambda f=f: wired(f), why) for f, why in reasons.items()}


@pytest.mark.parametrize("kind", fixed())
def test_streams_that_cannot_be_rotated_say_why(kind):
    make, why = fixed()[kind]
    model = drawn(make())
    x = np.random.default_rng(0).normal(size=(60, 5, 3)).astype("float32")
    (stream,) = tsp.residual_streams(model)
    assert why in stream.reason
    assert stream.size == 8
    with pytest.raises(ModelError, match="cannot be rotated"):
        tsp.prune_hidden(model, 0.75, data=x, method="rotate")
    with pytest.warns(SplinePruneWarning, match="chosen as they are"):
        small = tsp.prune_hidden(model, 6, data=x)
    selected = tsp.prune_hidden(model, 6, data=x, method="select")
    np.testing.assert_allclose(outputs(small, x), outputs(selected, x), atol=1e-6)
    assert tsp.residual_streams(small)[0].size == 6


def test_a_tied_table_makes_units_be_chosen():
    L = keras.layers
    table = L.ReversibleEmbedding(WORDS, 8, name="table")
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = L.RMSNormalization()(blocks_on(table(tokens), L.RMSNormalization()))
    model = drawn(keras.Model(tokens, table(x, reverse=True)))
    (stream,) = tsp.residual_streams(model)
    assert "table is tied" in stream.reason
    with pytest.warns(SplinePruneWarning, match="table is tied"):
        small = tsp.prune_hidden(model, 6, data=words())
    assert small.get_layer("table").get_weights()[0].shape == (WORDS, 6)
    untied = L.ReversibleEmbedding(WORDS, 8, tie_weights=False, name="table")
    x = L.RMSNormalization()(blocks_on(untied(tokens), L.RMSNormalization()))
    model = drawn(keras.Model(tokens, untied(x, reverse=True)))
    turned = tsp.prune_hidden(model, 8, data=words(), recover=None)
    expected = outputs(model, words())
    np.testing.assert_allclose(outputs(turned, words()), expected, atol=1e-4)


def test_a_gain_that_stays_behind_is_found(K, monkeypatch):
    model = transformer(K)
    back = _rotation.Basis.back

    def wrong(basis, norm):
        return back(basis, norm) * np.linspace(1, 1.01, SIZE)

    monkeypatch.setattr(_rotation.Basis, "back", wrong)
    with pytest.raises(VerificationError, match="report this as a bug"):
        tsp.prune_hidden(model, 12, data=words())
    assert tsp.prune_hidden(model, 12, data=words(), recover=None, verify=False)


def test_what_cannot_be_asked(K):
    model, x = transformer(K), words()
    for size in (SIZE + 1, 100):
        with pytest.raises(BudgetError, match=f"Received: size={size}"):
            tsp.prune_hidden(model, size, data=x)
    for size in (0, -1, 1.5, 1.0, "12", None, True):
        with pytest.raises(ValueError, match="size"):
            tsp.prune_hidden(model, size, data=x)
    with pytest.raises(BudgetError, match="multiple of round_to=5"):
        tsp.prune_hidden(model, 12, data=x, round_to=5)
    small = tsp.prune_hidden(model, 0.6, data=x, round_to=4, recover=None)
    assert tsp.residual_streams(small)[0].size == 8
    with pytest.raises(ValueError, match="data"):
        tsp.prune_hidden(model, 8, data=None)
    with pytest.raises(CalibrationError, match="shape"):
        tsp.prune_hidden(model, 8, data=x[:, :3])
    with pytest.raises(ValueError, match="method"):
        tsp.prune_hidden(model, 8, data=x, method="best")
    with pytest.raises(FlavourError):
        tsp.residual_streams("model")


def test_models_without_a_stream():
    L = keras.layers
    x = np.zeros((4, 3), "float32")
    plain = keras.Sequential([keras.Input((3,)), L.Dense(8), L.Dense(2)])
    assert tsp.residual_streams(plain) == ()
    with pytest.raises(ModelError, match="no stream"):
        tsp.prune_hidden(plain, 0.5, data=x)
    bare = keras.Sequential([keras.Input((3,)), L.Dense(8), L.LayerNormalization()])
    with pytest.raises(ModelError, match="they are the model's output"):
        tsp.prune_hidden(bare, 0.5, data=x)


def test_quantised_layers_are_refused():
    L = keras.layers
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2)(L.LayerNormalization()(L.Dense(8)(inputs))))
    model.layers[-1].quantize("int8")
    with pytest.raises(ModelError, match="quantised"):
        tsp.prune_hidden(model, 0.5, data=np.zeros((4, 3), "float32"))
