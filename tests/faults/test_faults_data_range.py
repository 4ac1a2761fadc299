"""Data of another range than the model expects are said so; others are not."""

import warnings

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import guesses, misfit, trace
from tf_spline_prune.errors import DataRangeWarning

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (64, 6, 6, 3)).astype("float32") * [0.5, 1, 1]
PIXELS = PIXELS.astype("float32")
UNIT = PIXELS / 255
SIGNED = PIXELS / 127.5 - 1
STANDARD = (PIXELS - PIXELS.mean()) / PIXELS.std()


def net(K, *first, last=()):
    L = K.layers
    layers = [*first, L.Conv2D(4, 3, activation="relu"), *last, L.Flatten()]
    return K.Sequential([K.Input((6, 6, 3)), *layers, L.Dense(3, name="head")])


def adapted(K, data):
    layer = K.layers.Normalization()
    layer.adapt(data)
    return layer


def trained(K, data, *first):
    model = net(K, *first, last=(K.layers.BatchNormalization(momentum=0.5),))
    model.compile("sgd", "mse")
    model.fit(data, np.zeros((64, 3)), epochs=3, verbose=0)
    return model


def functional(K, scaled):
    inputs = K.Input((6, 6, 3))
    return K.Model(inputs, K.layers.Conv2D(4, 3)(scaled(inputs)))


def turned(K, images):
    """Exchange height and width by an operation."""
    if K.__name__ == "tf_keras":
        import tensorflow as tf

        return tf.transpose(images, (0, 2, 1, 3))
    return K.ops.transpose(images, (0, 2, 1, 3))


def begun(K, data, steps):
    """A few steps with Keras' default momentum, of which the statistics know little."""
    model = net(K, last=(K.layers.BatchNormalization(),))
    model.compile("sgd", "mse")
    model.fit(data, np.zeros((64, 3)), batch_size=64, epochs=steps, verbose=0)
    return model


def centred(K, mean):
    return net(K, K.layers.Normalization(mean=mean, variance=[1.0, 1.0, 1.0]))


DIM = UNIT / 40
# What is built, what it was made for, and what not.
CASES = {
    "turned": (
        lambda K: functional(K, lambda x: K.layers.Rescaling(1 / 255)(turned(K, x))),
        [PIXELS],
        [UNIT],
    ),
    "255": (lambda K: net(K, K.layers.Rescaling(1 / 255)), [PIXELS], [UNIT, SIGNED]),
    "mobilenet": (
        lambda K: net(K, K.layers.Rescaling(1 / 127.5, offset=-1)),
        [PIXELS],
        [UNIT, STANDARD],
    ),
    "signed": (
        lambda K: net(K, K.layers.Rescaling(2.0, offset=-1)),
        [UNIT, SIGNED],
        [PIXELS],
    ),
    "to pixels": (lambda K: net(K, K.layers.Rescaling(255.0)), [UNIT], [PIXELS]),
    "augmented": (
        lambda K: net(K, K.layers.RandomFlip(), K.layers.Rescaling(1 / 255)),
        [PIXELS],
        [UNIT],
    ),
    "nothing": (net, [PIXELS, UNIT, STANDARD], []),
    "untrained": (
        lambda K: net(K, K.layers.BatchNormalization()),
        [PIXELS, UNIT, STANDARD],
        [],
    ),
    "adapted": (lambda K: net(K, adapted(K, PIXELS)), [PIXELS], [UNIT, STANDARD]),
    "both": (
        lambda K: net(K, K.layers.Rescaling(1 / 255), adapted(K, UNIT)),
        [PIXELS],
        [UNIT],
    ),
    "first batch norm": (lambda K: trained(K, PIXELS), [PIXELS], [UNIT, STANDARD]),
    "of unit": (lambda K: trained(K, UNIT), [UNIT, SIGNED], [PIXELS]),
    "one step": (lambda K: begun(K, DIM, 1), [DIM], [PIXELS]),
    "three steps": (lambda K: begun(K, DIM, 3), [DIM], [PIXELS]),
    "thirty steps": (lambda K: begun(K, DIM, 30), [DIM], [PIXELS]),
    "steps with pixels": (lambda K: begun(K, PIXELS, 2), [PIXELS], [UNIT, SIGNED]),
    "only centred": (lambda K: centred(K, [104.0, 117, 124]), [PIXELS], [UNIT, SIGNED]),
    "divided": (lambda K: functional(K, lambda x: x / 255.0), [PIXELS], [UNIT]),
    "doubled": (lambda K: functional(K, lambda x: x * 2.0 - 1), [UNIT, PIXELS], []),
    "nested": (
        lambda K: K.Sequential(
            [K.Input((6, 6, 3)), K.Sequential([K.layers.Rescaling(1 / 255)]), net(K)]
        ),
        [PIXELS],
        [UNIT],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ranges_that_fit_and_ranges_that_do_not(K, name):
    make, fitting, others = CASES[name]
    graph = trace(make(K))
    assert [misfit(graph, [data]) for data in fitting] == [None] * len(fitting)
    for data in others:
        assert "another range" in (misfit(graph, [data]) or "")


def test_the_message_says_what_is_expected_and_how_to_mend(K):
    graph = trace(CASES["mobilenet"][0](K))
    text = misfit(graph, [UNIT])
    assert "about 0 to 255" in text and "`--scale 255`" in text
    assert f"{UNIT.min():.4g} to {UNIT.max():.4g}" in text


def test_what_is_no_image_is_left_alone(K):
    L = K.layers
    words = K.Sequential(
        [K.Input((7,), dtype="int32"), L.Embedding(50, 8), L.Flatten(), L.Dense(2)]
    )
    ids = RNG.integers(0, 50, (64, 7))
    assert misfit(trace(words), [ids]) is None
    assert misfit(trace(words), [ids.astype("float64")]) is None  # whole all the same
    assert "cut off" in misfit(trace(words), [ids / 50])
    table = RNG.normal([0, 5, 1000], [1e-3, 2, 1e4], (64, 3)).astype("float32")
    rows = K.Sequential([K.Input((3,)), adapted(K, table), L.Dense(2)])
    assert misfit(trace(rows), [table[:1]]) is None  # one row tells nothing
    assert misfit(trace(rows), [table[:16]]) is None
    assert misfit(trace(rows), [table[:16] / 100]) is not None


def test_every_function_that_takes_data_says_it(K, tmp_path):
    model = zoo.settle(net(K, K.layers.Rescaling(1 / 255)))
    plan = tsp.plan(model, "magnitude", sparsity=0.25)
    small = plan.apply(model)
    model.compile("sgd", K.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(64) % 3
    calls = {
        "prune": lambda x: tsp.prune(model, sparsity=0.25, data=x),
        "plan": lambda x: tsp.plan(model, sparsity=0.25, data=x),
        "least_squares": lambda x: tsp.least_squares(model, small, plan, x),
        "rounds": lambda x: tsp.prune_in_rounds(model, sparsity=0.25, rounds=2, data=x),
        "export": lambda x: tsp.export_litert(
            small, tmp_path / "a.tflite", "float16", representative_data=x
        ),
        "report": lambda x: tsp.report(model, small, data=(x, labels)),
    }
    for name, call in calls.items():
        with pytest.warns(DataRangeWarning) as told:
            call(UNIT)
        assert len(told) == 1, name  # once, however often the data are looked at
        assert told[0].filename == __file__, name
        call(PIXELS)


def test_a_trained_classifier_that_only_guesses(K):
    labels = np.arange(64) % 3
    data = np.eye(3, dtype="float32")[labels] + 0.1
    model = K.Sequential([K.Input((3,)), K.layers.Dense(8), K.layers.Dense(3)])
    model.set_weights([np.eye(3, 8), np.zeros(8), np.eye(8, 3), np.zeros(3)])
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    tsp.plan(model, "magnitude", sparsity=0.25, data=(data * 0, labels))  # untrained
    model.fit(data, labels, verbose=0)
    tsp.plan(model, "magnitude", sparsity=0.25, data=(data, labels))
    tsp.plan(model, "magnitude", sparsity=0.25, data=data * 0)
    with pytest.warns(DataRangeWarning, match="no better than chance"):
        tsp.plan(model, "magnitude", sparsity=0.25, data=(data * 0, labels))


def test_what_is_chance_and_what_is_not():
    labels = np.repeat([0, 1], [950, 50])
    constant = np.tile([1.0, 0.0], (1000, 1))
    assert "no better than chance" in guesses([constant], labels)
    assert "no better" in guesses([constant], np.eye(2)[labels])
    useful = constant.copy()
    useful[labels == 1, 1] = RNG.uniform(0, 2, 50)
    assert guesses([useful], labels) is None  # 97 % are right, and 95 % would be
    assert guesses([constant], labels.astype("float32")) is None  # a regression
    assert guesses([constant[:, :1]], labels) is None
    assert guesses([constant, constant], labels) is None
    assert guesses([constant], labels + 5) is None
    assert guesses([constant[:9]], labels[945:954]) is None  # too few to tell


def test_data_sets_in_the_range_of_the_model(tmp_path):
    def first(**how):
        batches = tsp.datasets.load("optical_digits", "test", 64, **how)
        return next(iter(batches))[0].numpy()

    unit = first()
    assert (unit.min(), unit.max()) == (0, 1)
    stored = first(scale=None)
    assert stored.dtype == np.float32 and (stored == np.rint(stored)).all()
    np.testing.assert_array_equal(first(scale=255), stored)
    np.testing.assert_allclose(first(scale=(-1, 1)), stored / 127.5 - 1, atol=1e-6)
    for wrong in (0, (1, 0), (0, 1, 2), "255", float("nan"), True):
        with pytest.raises(ValueError, match="`scale` must be"):
            first(scale=wrong)
    with pytest.raises(ValueError, match="no images"):
        tsp.datasets.load("x_quadrants", "test", scale=255, data_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tsp.datasets.load("x_quadrants", "test", scale=None, data_dir=tmp_path)
