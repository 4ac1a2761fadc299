"""Keras 3 puts operations for masks between the layers of a Sequential."""

import warnings

import numpy as np
import pytest

import tf_spline_prune as tsp

RNG = np.random.default_rng(0)
WORDS = RNG.integers(0, 20, (16, 7)).astype("int32")  # 0 is masked
SERIES = RNG.normal(size=(16, 7, 4)).astype("float32")
SERIES[::2, 5:] = 0.0  # masked


def embedding(K):
    return K.layers.Embedding(20, 8, mask_zero=True, name="embedding")


def words(K):
    return [K.Input((7,), dtype="int32"), embedding(K)]


def models(K, kind):
    """Give a model with a mask, and inputs some of whose steps are masked."""
    layers = K.layers
    lstm = layers.LSTM(6, name="units")
    end = [layers.Dense(3, name="reader")]
    if kind == "masking":
        first = [K.Input((7, 4)), layers.Masking()]
        return K.Sequential([*first, layers.GRU(6, name="units"), *end]), SERIES
    if kind == "nested":
        inner = K.Sequential([*words(K), lstm], name="inner")
        return K.Sequential([K.Input((7,), dtype="int32"), inner, *end]), WORDS
    if kind == "nested in functional":
        inner = K.Sequential([*words(K), lstm], name="inner")
        given = K.Input((7,), dtype="int32")
        return K.Model(given, end[0](inner(given))), WORDS
    if kind == "through layers":
        before = [
            layers.TimeDistributed(layers.Dense(5, activation="relu")),
            layers.Dropout(0.1),
        ]
        return K.Sequential([*words(K), *before, lstm, *end]), WORDS
    return K.Sequential([*words(K), lstm, *end]), WORDS


KINDS = ["embedding", "masking", "nested", "nested in functional", "through layers"]


def reader(model):
    return model.get_layer("reader")


def without_units(model, units, x):
    """Run a model whose reader does not see some units, by hand."""
    old = reader(model).get_weights()
    kernel = old[0].copy()
    kernel[units] = 0.0
    reader(model).set_weights([kernel, *old[1:]])
    found = np.asarray(model(x))
    reader(model).set_weights(old)
    return found


def with_masks_ignored():
    """TFMOT's wrapper takes no layers behind a mask of timesteps, and says so."""
    return pytest.warns(tsp.errors.NothingPrunedWarning, match="mask of timesteps")


@pytest.fixture(params=KINDS)
def model_and_inputs(K, request):
    model, x = models(K, request.param)
    # The masked steps matter: other numbers there change nothing.
    return model, x, np.asarray(model(x)), K.__name__ == "keras"


def test_units_go_and_masks_stay(model_and_inputs, tmp_path):
    model, x, before, new = model_and_inputs
    path = (
        "inner/units"
        if "inner" in [layer.name for layer in model.layers]
        else ("units")
    )
    removed = [1, 4]
    # A recurrent unit is read by its own layer too.
    layer = model.get_layer(path.rpartition("/")[0] or path)
    layer = layer.get_layer("units") if "/" in path else layer
    old = layer.get_weights()
    cut = [array.copy() for array in old]
    cut[1][removed] = 0.0
    layer.set_weights(cut)
    expected = without_units(model, removed, x)
    layer.set_weights(old)

    small = tsp.remove_units(model, {path: removed})
    np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5)
    assert np.array_equal(np.asarray(model(x)), before)

    small.save(tmp_path / "small.keras")
    package = __import__("keras" if new else "tf_keras")
    loaded = package.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(np.asarray(loaded(x)), expected, atol=1e-5)


def test_pruning_by_default(model_and_inputs):
    model, x, before, _ = model_and_inputs
    small = tsp.prune(model, "magnitude", sparsity=0.5, data=x)
    assert small.count_params() < model.count_params()
    assert small(x).shape == before.shape


def test_masks_of_weights(model_and_inputs):
    model, x, before, new = model_and_inputs
    if new:
        masked = tsp.wrap_with_masks(model)
        plain = tsp.strip_masks(tsp.prune_once(masked, sparsity=0.5))
        assert {slot for slot in plain.get_weights()[0].shape}
    else:
        with with_masks_ignored():
            masked = tsp.wrap_with_masks(model)
    np.testing.assert_allclose(np.asarray(masked(x)), before, atol=1e-6)


def test_masks_at_initialization(K):
    model, x = models(K, "embedding")
    labels = RNG.integers(0, 3, 16)
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    given = {"sparsity": 0.5, "data": (x, labels), "loss": loss}
    if K.__name__ == "keras":
        masked = tsp.prune_at_init(model, "snip", **given)
    else:
        with with_masks_ignored():
            masked = tsp.prune_at_init(model, "snip", **given)
    plain = tsp.strip_masks(masked)
    zeros = sum(np.count_nonzero(array == 0) for array in plain.get_weights())
    assert zeros > sum(np.count_nonzero(array == 0) for array in model.get_weights())


def test_lossless(model_and_inputs):
    model, x, before, _ = model_and_inputs
    old = reader(model).get_weights()
    unread = old[0].copy()
    unread[2] = 0.0
    reader(model).set_weights([unread, *old[1:]])
    expected = np.asarray(model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tsp.errors.NothingPrunedWarning)
        small = tsp.lossless(model, data=x)
    np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5)
