"""Random inputs are such as the model takes: ids, images, numbers in its range."""

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.compat import sample_inputs, trace

WORDS = 50


def tokens(K, how):
    """Build a model of word ids whose input is of floats, or of integers."""
    K.utils.set_random_seed(0)
    L = K.layers
    if how == "length" and K is not keras:  # the input that tf_keras makes by itself
        first = [L.Embedding(WORDS, 16, input_length=12)]
    else:
        dtype = "int32" if how == "integers" else "float32"
        first = [K.Input((12,), dtype=dtype), L.Embedding(WORDS, 16)]
    if how == "nested":
        return K.Sequential(
            [K.Input((12,)), K.Sequential(first), L.LSTM(8), L.Dense(2)]
        )
    if how == "reshaped":
        inputs = K.Input((3, 4))
        x = L.Embedding(WORDS, 16)(L.Reshape((12,))(inputs))
        return K.Model(inputs, L.Dense(2)(L.LSTM(8)(x)))
    return K.Sequential([*first, L.LSTM(8), L.Dense(2)])


HOW = ["length", "integers", "nested", "reshaped"]


@pytest.mark.parametrize("how", HOW)
def test_ids_are_over_the_whole_vocabulary(K, how):
    (ids,) = sample_inputs(trace(tokens(K, how)), 200, seed=0)
    assert set(np.unique(ids)) == set(range(WORDS))


@pytest.mark.parametrize("how", HOW)
def test_all_that_draws_inputs_draws_ids(K, how, tmp_path):
    model = tokens(K, how)
    shape = model.input_shape[1:]
    data = np.random.default_rng(0).integers(0, WORDS, (32, *shape))
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer")
    assert tsp.verify(model, plan.apply(model), plan) < 1e-9
    small = tsp.prune(model, "activation", sparsity=0.3, data=data)
    assert small.count_params() < model.count_params()
    with pytest.warns(tsp.errors.NothingPrunedWarning):
        tsp.lossless(model)
    tsp.check_criterion("magnitude", model)
    if how != "length":
        return
    report = tsp.export_saved_model(model, tmp_path / "served", warmup=2)
    assert report.max_difference < 1e-4
    tsp.export_litert(model, tmp_path / "m.tflite")


def test_two_vocabularies_and_a_plain_input(K):
    L = K.layers
    words, kinds = K.Input((5,)), K.Input((5,), dtype="int32")
    plain = K.Input((5,))
    x = L.Concatenate()([L.Embedding(30, 4)(words), L.Embedding(7, 4)(kinds)])
    x = L.Concatenate()([L.Flatten()(x), plain])
    model = K.Model([words, kinds, plain], L.Dense(2)(x))
    drawn = sample_inputs(trace(model), 100, seed=0)
    assert [set(np.unique(x)) for x in drawn[:2]] == [set(range(30)), set(range(7))]
    assert drawn[2].min() < -1 and len(np.unique(drawn[2])) == 500


def test_of_two_vocabularies_of_one_input_the_smaller(K):
    L = K.layers
    inputs = K.Input((5,))
    x = L.Add()([L.Embedding(30, 4)(inputs), L.Embedding(20, 4)(inputs)])
    model = K.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    (ids,) = sample_inputs(trace(model), 200, seed=0)
    assert set(np.unique(ids)) == set(range(20))


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [(1 / 255, 0.0, "float32"), (1 / 127.5, -1.0, "float32"), (1 / 255, 0.0, "uint8")],
)
def test_images_of_a_rescaling(K, scale, offset, dtype):
    L = K.layers
    inputs = K.Input((24, 24, 3), dtype=dtype)
    x = L.Conv2D(4, 3)(L.Rescaling(scale, offset)(inputs))
    (images,) = sample_inputs(trace(K.Model(inputs, x)), 16, seed=0)
    assert images.dtype == dtype and images.min() >= 0 and images.max() <= 255
    assert images.max() > 200 and images.min() < 50
    values = images.astype("float64")
    beside = np.abs(np.diff(values, axis=1)).mean()
    assert beside < 0.6 * np.abs(values - values[:, ::-1]).mean()  # smooth


def test_images_of_a_normalization(K):
    L = K.layers
    inputs = K.Input((16, 16, 3))
    norm = L.Normalization(mean=[100.0, 120.0, 90.0], variance=[50.0**2] * 3)
    model = K.Model(inputs, L.Conv2D(4, 3)(norm(inputs)))
    (images,) = sample_inputs(trace(model), 64, seed=0)
    np.testing.assert_allclose(images.mean((0, 1, 2)), [100, 120, 90], atol=15)
    assert 25 < images.std() < 80


def test_floats_of_which_nothing_is_known(K):
    inputs = K.Input((7,))
    (x,) = sample_inputs(trace(K.Model(inputs, K.layers.Dense(2)(inputs))), 99, seed=0)
    assert abs(x.mean()) < 0.2 and 0.8 < x.std() < 1.2


@pytest.mark.parametrize("oov", [0, 1])
@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_words_are_those_that_a_layer_knows(K, name, oov):
    """Drawn at random all were unknown, and where none may be, that is an error."""
    L = K.layers
    known = [70, 80, 90] if name == "IntegerLookup" else ["ab", "cd", "ef"]
    inputs = K.Input((1,), dtype="int64" if name == "IntegerLookup" else "string")
    if name == "TextVectorization":
        layer = L.TextVectorization(vocabulary=known, output_sequence_length=4)
    else:
        layer = getattr(L, name)(vocabulary=known, num_oov_indices=oov)
    x = L.Flatten()(L.Embedding(6, 5)(layer(inputs)))
    model = K.Model(inputs, L.Dense(2)(L.Dense(8, activation="relu")(x)))
    (drawn,) = sample_inputs(trace(model), 100, seed=0)
    words = {word for entry in drawn.ravel() for word in str(entry).split()}
    assert {str(word) for word in known} <= words
    assert len(words) == 3 + (oov or name == "TextVectorization")
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    assert tsp.verify(model, plan.apply(model), plan) < 1e-9


def test_numbers_of_all_bins(K):
    layer = K.layers.Discretization(bin_boundaries=[100.0, 200.0, 300.0])
    inputs = K.Input((1,))
    (x,) = sample_inputs(trace(K.Model(inputs, layer(inputs))), 100, seed=0)
    assert set(np.searchsorted([100.0, 200.0, 300.0], x.ravel())) == {0, 1, 2, 3}
