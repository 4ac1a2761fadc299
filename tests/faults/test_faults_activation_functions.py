"""A function in the place of an activation is judged by the operations it runs."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo

import tf_spline_prune as tsp

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
ops = keras.ops


def sharp_sigmoid(x):
    return x * tf.sigmoid(1.702 * x)


def through_keras(x):
    return ops.square(ops.relu(x)) - 0.5 * ops.abs(x)


def softmax_by_hand(x):
    powers = tf.exp(x)
    return powers / tf.reduce_sum(powers, -1, keepdims=True)


def own_softmax(x):
    return ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True)


def depends_on_values(x):
    return x if float(ops.max(x)) > 0 else -x


ALONE = {
    "keras": {
        "lambda": lambda x: keras.activations.gelu(x, approximate=True),
        "partial": functools.partial(keras.activations.gelu, approximate=True),
        "def": through_keras,
        "where": lambda x: ops.where(x > 0, x, 0.1 * x),
        "two at once": lambda x: ops.maximum(x, 0.2 * x),
        "tensorflow": sharp_sigmoid,
        "of tensorflow": tf.nn.gelu,
        "tensorflow lambda": lambda x: tf.nn.leaky_relu(x, 0.1),
        "itself": lambda x: x,
    },
    "tf_keras": {
        "lambda": lambda x: tf_keras.activations.gelu(x, approximate=True),
        "partial": functools.partial(tf.nn.leaky_relu, alpha=0.1),
        "def": sharp_sigmoid,
        "where": lambda x: tf.where(x > 0, x, 0.1 * x),
        "two at once": lambda x: tf.maximum(x, 0.2 * x),
        "of tensorflow": tf.nn.gelu,
        "itself": lambda x: x,
    },
}
MIXING = {
    "keras": {
        "softmax": own_softmax,
        "softmax in tensorflow": softmax_by_hand,
        "softmax of Keras": lambda x: keras.activations.softmax(x),
        "partial softmax": functools.partial(keras.activations.softmax, axis=-1),
        "sum so far": lambda x: ops.cumsum(x, axis=-1),
        "reversed": lambda x: x[..., ::-1],
        "by position": lambda x: x * np.arange(8, dtype="float32"),
        "rolled in tensorflow": lambda x: tf.roll(x, 1, -1),
        "place in tensorflow": lambda x: x * tf.constant(np.arange(8.0, dtype="f")),
        "normalised": lambda x: x / (1 + ops.max(x, axis=-1, keepdims=True)),
    },
    "tf_keras": {
        "softmax": softmax_by_hand,
        "softmax of Keras": lambda x: tf_keras.activations.softmax(x),
        "sum so far": lambda x: tf.cumsum(x, -1),
        "reversed": lambda x: tf.reverse(x, [-1]),
        "by position": lambda x: x * np.arange(8, dtype="float32"),
        "normalised": lambda x: x / (1 + tf.reduce_max(x, -1, keepdims=True)),
    },
}
CASES = [
    pytest.param(flavour, function, id=f"{flavour} {name}")
    for flavour, functions in ALONE.items()
    for name, function in functions.items()
]
OTHERS = [
    pytest.param(flavour, function, id=f"{flavour} {name}")
    for flavour, functions in MIXING.items()
    for name, function in functions.items()
]


def package(flavour):
    return keras if flavour == "keras" else tf_keras


def model_of(K, function, inside):
    layers = [K.layers.Dense(8, activation=function, name="units")]
    if not inside:
        layers = [K.layers.Dense(8, name="units"), K.layers.Activation(function)]
    return K.Sequential([K.Input((6,)), *layers, K.layers.Dense(3, name="reader")])


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("flavour, function", CASES)
def test_units_of_an_entrywise_function_may_go(flavour, function, inside):
    model = model_of(package(flavour), function, inside)
    before = np.asarray(model(X))
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    assert len(plan.removed["units"]) == 4
    small = plan.apply(model)
    kernel, bias = model.get_layer("reader").get_weights()
    cut = kernel.copy()
    cut[plan.removed["units"]] = 0.0
    model.get_layer("reader").set_weights([cut, bias])
    np.testing.assert_allclose(np.asarray(small(X)), np.asarray(model(X)), atol=1e-6)
    model.get_layer("reader").set_weights([kernel, bias])
    assert np.array_equal(np.asarray(model(X)), before)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("flavour, function", OTHERS)
def test_units_of_a_function_that_mixes_must_stay(flavour, function, inside):
    model = model_of(package(flavour), function, inside)
    with pytest.warns(tsp.errors.NothingPrunedWarning, match="may mix its units"):
        tsp.plan(model, "magnitude", sparsity=0.5)


def test_a_function_that_cannot_be_traced_is_a_barrier():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, name="units"),
            keras.layers.Dense(3),
        ]
    )
    model.get_layer("units").activation = depends_on_values
    with pytest.warns(tsp.errors.NothingPrunedWarning, match="may mix its units"):
        tsp.plan(model, "magnitude", sparsity=0.5)


@pytest.mark.parametrize("kind", ["conv", "lstm", "steps", "einsum"])
def test_other_layers(K, kind):
    function = sharp_sigmoid if K is tf_keras else through_keras
    layers, given = K.layers, {"activation": function, "name": "units"}
    made = {
        "conv": lambda: [K.Input((6, 6, 2)), layers.Conv2D(6, 3, **given)],
        "lstm": lambda: [K.Input((5, 2)), layers.LSTM(6, **given)],
        "steps": lambda: [
            K.Input((5, 2)),
            layers.TimeDistributed(layers.Dense(6, activation=function), name="units"),
        ],
        "einsum": lambda: [
            K.Input((5, 2)),
            layers.EinsumDense("abc,cd->abd", (5, 6), **given),
        ],
    }[kind]()
    model = K.Sequential([*made, layers.Flatten(), layers.Dense(3)])
    small = tsp.prune(model, "magnitude", sparsity=0.5)  # verifies itself
    assert small.count_params() < model.count_params()


def test_two_functions_of_one_name_are_told_apart(K):
    """Both are called `<lambda>`, and a config holds only names."""
    layer = K.layers.LSTM(
        5,
        activation=lambda x: 2.0 * x,
        recurrent_activation=lambda x: 0.1 * x,
        kernel_initializer=lambda shape, dtype=None: tf.ones(shape),
        name="units",
    )
    inner = K.Sequential([K.Input((4, 3)), layer], name="inner")
    model = K.Sequential([K.Input((4, 3)), inner, K.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    copy = zoo.through_masks(model)
    np.testing.assert_allclose(np.asarray(copy(x)), np.asarray(model(x)), atol=1e-6)
    small = tsp.remove_units(model, {"inner/units": [1]})
    assert small.get_layer("inner").get_layer("units").units == 4
