"""Preprocessing layers keep what they have learnt of data in every copy."""

import numpy as np
import pytest
import tensorflow as tf
import zoo

import tf_spline_prune as tsp

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(1.0, 3.0, size=(16, 4)).astype("float32")
IDS = RNG.integers(1, 6, (16, 3))
ONE_ID = IDS[:, :1]
WORDS = np.array(["a", "b", "c", "d", "zz"])[RNG.integers(0, 5, 16)][:, None]
TEXTS = np.array(["a b c", "b c", "d e a", "q"] * 4)
LETTERS = np.array(["a\nb", "c d", "\r a", " "] * 4)
IMAGES = RNG.uniform(size=(4, 8, 8, 3)).astype("float32")

ENCODINGS = ("one_hot", "multi_hot", "count")


def table():
    """List the layers: how to make each, what it is called on, what it learns from."""
    found = {
        "Normalization": (lambda L: L.Normalization(), NUMBERS, NUMBERS),
        "Normalization of all": (
            lambda L: L.Normalization(axis=None),
            NUMBERS,
            NUMBERS,
        ),
        "Normalization given": (
            lambda L: L.Normalization(mean=[1.0] * 4, variance=[2.0] * 4),
            NUMBERS,
            None,
        ),
        "Rescaling": (lambda L: L.Rescaling([2.0] * 4, [0.5] * 4), NUMBERS, None),
        "Discretization": (lambda L: L.Discretization(num_bins=4), NUMBERS, NUMBERS),
        "Discretization multi_hot": (
            lambda L: L.Discretization(num_bins=4, output_mode="multi_hot"),
            NUMBERS,
            NUMBERS,
        ),
        "IntegerLookup tf_idf": (
            lambda L: L.IntegerLookup(output_mode="tf_idf"),
            IDS,
            np.array([[1, 2, 3], [4, 5, 1]]),
        ),
        "StringLookup tf_idf": (
            lambda L: L.StringLookup(output_mode="tf_idf"),
            WORDS,
            WORDS,
        ),
        "StringLookup tf_idf padded": (
            lambda L: L.StringLookup(
                output_mode="tf_idf", max_tokens=9, pad_to_max_tokens=True
            ),
            WORDS,
            WORDS,
        ),
        "StringLookup of line breaks": (
            lambda L: L.StringLookup(),
            np.array([["a"], ["a\nb"], ["\r"], ["x"]] * 4),
            np.array(["a", "a\nb", "\r"]),
        ),
        "StringLookup masked": (
            lambda L: L.StringLookup(mask_token="[M]", num_oov_indices=2),
            WORDS,
            np.array(["a", "b"]),
        ),
        "StringLookup set anew": (lambda L: _set(L, ["x", "a", "b"]), WORDS, None),
        "TextVectorization": (
            lambda L: L.TextVectorization(output_sequence_length=4),
            TEXTS[:, None],
            TEXTS,
        ),
        "TextVectorization of letters": (
            lambda L: L.TextVectorization(
                split="character", standardize=None, output_sequence_length=5
            ),
            LETTERS[:, None],
            LETTERS,
        ),
        "TextVectorization given": (
            lambda L: L.TextVectorization(
                vocabulary=["a", "b"], output_sequence_length=4
            ),
            TEXTS[:, None],
            None,
        ),
        "Resizing": (lambda L: L.Resizing(6, 6), IMAGES, None),
        "CenterCrop": (lambda L: L.CenterCrop(6, 6), IMAGES, None),
    }
    # RandomCrop of Keras 3 does not crop in inference, so no model of it runs there.
    for name in ("RandomFlip", "RandomContrast", "RandomZoom"):
        given = () if name == "RandomFlip" else (0.1,)
        found[name] = (
            lambda L, name=name, given=given: getattr(L, name)(*given),
            IMAGES,
            None,
        )
    for mode in ("int", *ENCODINGS):
        ids = ONE_ID if mode in ("one_hot",) else IDS
        found |= {
            f"Hashing {mode}": (
                lambda L, m=mode: L.Hashing(7, output_mode=m),
                ids,
                None,
            ),
            f"IntegerLookup {mode}": (
                lambda L, m=mode: L.IntegerLookup(output_mode=m),
                ids,
                IDS,
            ),
            f"StringLookup {mode}": (
                lambda L, m=mode: L.StringLookup(output_mode=m),
                WORDS,
                WORDS,
            ),
            f"StringLookup given {mode}": (
                lambda L, m=mode: L.StringLookup(vocabulary=["a", "b"], output_mode=m),
                WORDS,
                None,
            ),
        }
        if mode != "int":
            found[f"CategoryEncoding {mode}"] = (
                lambda L, m=mode: L.CategoryEncoding(7, output_mode=m),
                ids,
                None,
            )
    for mode in ("multi_hot", "count", "tf_idf"):
        found[f"TextVectorization {mode}"] = (
            lambda L, m=mode: L.TextVectorization(output_mode=m),
            TEXTS,
            TEXTS,
        )
    return found


def _set(layers, words):
    layer = layers.StringLookup(vocabulary=["a", "b", "c"])
    layer.set_vocabulary(words)
    return layer


TABLE = table()


def model_of(K, name):
    make, x, adapted_to = TABLE[name]
    layer = make(K.layers)
    if adapted_to is not None:
        layer.adapt(adapted_to)
    text = x.dtype.kind == "U"
    given = K.Input(x.shape[1:], dtype="string" if text else x.dtype.name)
    y = layer(given)
    if "int" in str(getattr(y.dtype, "name", y.dtype)):
        y = K.layers.Embedding(30, 6)(y)
    if len(y.shape) > 2:
        y = K.layers.Flatten()(y)
    y = K.layers.Dense(8, activation="relu", name="units")(y)
    model = K.Model(given, K.layers.Dense(3, name="reader")(y))
    return model, tf.constant(x)


def answer(model, x):
    return np.asarray(model(x, training=False))


@pytest.mark.parametrize("name", list(TABLE))
def test_copies_answer_alike(K, name):
    model, x = model_of(K, name)
    before = answer(model, x)
    assert np.isfinite(before).all()
    copy = zoo.through_masks(model)
    assert np.array_equal(answer(copy, x), before)

    small = tsp.remove_units(model, {"units": [0, 5]})
    kernel, bias = model.get_layer("reader").get_weights()
    cut = kernel.copy()
    cut[[0, 5]] = 0.0
    model.get_layer("reader").set_weights([cut, bias])
    expected = answer(model, x)
    model.get_layer("reader").set_weights([kernel, bias])
    np.testing.assert_allclose(answer(small, x), expected, atol=1e-6)
    assert np.array_equal(answer(model, x), before)


@pytest.mark.parametrize("name", ["StringLookup tf_idf", "TextVectorization tf_idf"])
def test_pruning_and_a_file(K, name, tmp_path):
    model, x = model_of(K, name)
    small = tsp.prune(model, "magnitude", sparsity=0.5, data=x)
    assert small.get_layer("units").units == 4
    small.save(tmp_path / "small.keras")
    loaded = K.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(answer(loaded, x), answer(small, x), atol=1e-6)


def test_a_discretization_with_weights_of_open_size(K):
    model, x = model_of(K, "Discretization")
    small = tsp.prune(model, "magnitude", sparsity=0.5, data=x)
    assert np.isfinite(answer(small, x)).all()
    tsp.cost(model)


def test_statistics_outlive_new_weights(K):
    """`reinitialize` draws what is trained anew, not what `adapt` has measured."""
    first, second = K.layers.Normalization(), K.layers.Normalization()
    hidden = K.layers.Dense(8, activation="relu", name="units")
    first.adapt(NUMBERS)
    second.adapt(np.asarray(hidden(first(NUMBERS))))
    model = K.Sequential([K.Input((4,)), first, hidden, second, K.layers.Dense(3)])
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    small = plan.apply(model, weights="reinitialize")
    kept = np.delete(np.arange(8), plan.removed["units"])
    for name, places in ((first.name, np.arange(4)), (second.name, kept)):
        old = np.asarray(model.get_layer(name).mean).ravel()
        new = np.asarray(small.get_layer(name).mean).ravel()
        np.testing.assert_allclose(new, old[places], rtol=1e-6)
    drawn = small.get_layer("units").get_weights()[0]
    assert not np.isin(drawn, hidden.get_weights()[0]).any()


def test_several_inputs_that_cross(K):
    first, second = K.Input((1,), dtype="int64"), K.Input((1,), dtype="int64")
    crossed = K.layers.HashedCrossing(8, output_mode="one_hot")((first, second))
    hidden = K.layers.Dense(6, activation="relu", name="units")(crossed)
    model = K.Model([first, second], K.layers.Dense(3)(hidden))
    x = [ONE_ID, IDS[:, 1:2]]
    copy = zoo.through_masks(model)
    assert np.array_equal(np.asarray(copy(x)), np.asarray(model(x)))


@pytest.mark.parametrize("name", ["STFTSpectrogram", "MelSpectrogram"])
def test_spectrograms(name):
    import keras

    settings = {
        "STFTSpectrogram": {"frame_length": 32, "frame_step": 16, "fft_length": 32},
        "MelSpectrogram": {
            **{"fft_length": 32, "sequence_stride": 16, "num_mel_bins": 6},
            **{"sampling_rate": 1000, "min_freq": 10, "max_freq": 400},
        },
    }[name]
    x = RNG.normal(size=(3, 128, 1)).astype("float32")
    x = x[..., 0] if name == "MelSpectrogram" else x
    given = keras.Input(x.shape[1:])
    heard = getattr(keras.layers, name)(**settings)(given)
    hidden = keras.layers.Conv1D(6, 1, activation="relu", name="units")(heard)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    model = keras.Model(given, keras.layers.Dense(2)(hidden))
    copy = zoo.through_masks(model)
    np.testing.assert_allclose(answer(copy, x), answer(model, x), rtol=1e-6)
    assert tsp.remove_units(model, {"units": [0]}).get_layer("units").filters == 5
