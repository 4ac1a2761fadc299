"""Layers inside TimeDistributed follow those that make the units they work on."""

import numpy as np
import pytest

import tf_spline_prune as tsp

SHAPE = (2, 6, 6, 2)
X = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")
REMOVED = [0, 4]


def inner(K, kind):
    layers = K.layers
    return {
        "depthwise": lambda: layers.DepthwiseConv2D(3, name="middle"),
        "two a channel": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        "separable": lambda: layers.SeparableConv2D(4, 3),
        "transposed": lambda: layers.Conv2DTranspose(4, 3),
        "normalization": lambda: layers.BatchNormalization(),
        "slopes": lambda: layers.PReLU(shared_axes=[1, 2]),
        "twice": lambda: layers.TimeDistributed(layers.DepthwiseConv1D(3)),
        "twice normal": lambda: layers.TimeDistributed(layers.BatchNormalization()),
    }[kind]()


KINDS = ["depthwise", "two a channel", "separable", "transposed", "normalization"]
KINDS += ["slopes", "twice", "twice normal"]


def model_of(K, kind):
    step = K.layers.TimeDistributed
    given = K.Input(SHAPE)
    x = step(K.layers.Conv2D(6, 3, activation="relu"), name="maker")(given)
    x = step(inner(K, kind), name="follower")(x)
    x = step(K.layers.Conv2D(3, 2), name="reader")(x)
    model = K.Model(given, K.layers.GlobalAveragePooling3D()(x))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape).astype("float32"))
    return model


def zeroed(model, names, axis_of):
    """Set the inputs of the removed units to zero by hand, wherever they are read."""
    layer = model.get_layer(names)
    arrays = [array.copy() for array in layer.get_weights()]
    index = [slice(None)] * arrays[0].ndim
    index[axis_of] = REMOVED
    arrays[0][tuple(index)] = 0.0
    layer.set_weights(arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_units_go_from_all_layers(K, kind, tmp_path):
    model = model_of(K, kind)
    before = np.asarray(model(X))
    small = tsp.remove_units(model, {"maker": REMOVED})

    twin = model_of(K, kind)
    if kind in ("separable", "transposed"):
        zeroed(twin, "follower", 3 if kind == "transposed" else 2)
    else:  # the follower's units are the maker's, and the next layer reads them
        many = 2 if kind == "two a channel" else 1
        layer = twin.get_layer("reader")
        kernel, bias = layer.get_weights()
        kernel = kernel.copy()
        for unit in REMOVED:
            kernel[:, :, unit * many : (unit + 1) * many] = 0.0
        layer.set_weights([kernel, bias])
    expected = np.asarray(twin(X))
    np.testing.assert_allclose(np.asarray(small(X)), expected, rtol=2e-5)
    assert np.array_equal(np.asarray(model(X)), before)
    assert small.count_params() < model.count_params()

    small.save(tmp_path / "small.keras")
    loaded = K.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(np.asarray(loaded(X)), expected, rtol=2e-5)


@pytest.mark.parametrize("kind", ["depthwise", "twice"])
def test_the_rest_of_the_house(K, kind):
    model = model_of(K, kind)
    before = np.asarray(model(X))
    data = np.concatenate([X, X[::-1] + 1])
    small = tsp.prune(model, "magnitude", sparsity=0.5, data=data)  # verifies itself
    assert small.get_layer("maker").layer.filters == 3
    with pytest.warns(tsp.errors.NothingPrunedWarning):
        copy = tsp.lossless(model)
    np.testing.assert_allclose(np.asarray(copy(X)), before, rtol=1e-6)
    assert np.array_equal(np.asarray(model(X)), before)
