"""The lossless pass on nets whose dead, constant and stable units are known."""

import numpy as np
import pytest
import zoo
from zoo import edit

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    CalibrationError,
    FlavourError,
    NothingPrunedWarning,
    VerificationError,
)
from tf_spline_prune.pruning.without_loss._bounds import Bounds
from tf_spline_prune.pruning.without_loss._lossless import _at_inputs


def points(model, low=-3.0, high=3.0, count=64):
    shape = tuple(model.inputs[0].shape[1:])
    rng = np.random.default_rng(0)
    return rng.uniform(low, high, (count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False)).astype("float64")


def same(model, small, **where):
    x = points(model, **where)
    return np.abs(outputs(model, x) - outputs(small, x)).max() < 1e-5


def zero(*where):
    def change(array):
        array[where] = 0

    return change


ALL = slice(None)


def width(model, layer):
    return model.get_layer(layer).get_weights()[0].shape[-1]


def test_units_that_nobody_reads_and_those_that_only_they_read(K):
    model = zoo.mlp(K)
    edit(model, "head", kernel=zero([3, 7]))  # units of `second`
    # Of `first`, unit 5 is read by units 3 and 7 of `second` alone.
    edit(model, "second", kernel=zero(5, [i for i in range(24) if i not in (3, 7)]))
    before = [np.array(w) for w in model.get_weights()]
    small = tsp.lossless(model)
    assert width(small, "first") == 31
    assert width(small, "second") == 22
    np.testing.assert_allclose(
        outputs(model, points(model)), outputs(small, points(model)), atol=1e-5
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "sigmoid", None])
def test_units_without_weights_are_constants(K, activation):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((6,)),
                L.Dense(8, activation=activation, name="one"),
                L.Dense(7, activation="relu", name="two"),
                L.Dense(3),
            ]
        )
    )

    def biases(b):
        b[2], b[4] = 0.7, -0.4

    edit(model, "one", kernel=zero(ALL, [2, 4]), bias=biases)
    small = tsp.lossless(model)
    assert width(small, "one") == 6
    assert width(small, "two") == 7
    assert same(model, small)
    bias = model.get_layer("two").get_weights()[1]
    assert (small.get_layer("two").get_weights()[1] != bias).any()


@pytest.mark.both_flavours
def test_constants_of_a_model_in_float64(K):
    """They are as exact as the model; TensorFlow rounds some slopes to float32."""
    L, f = K.layers, {"dtype": "float64"}
    layers = [L.LeakyReLU(**f), L.Activation("tanh", **f), L.ReLU(6.0, 0.3, **f)]
    x = inputs = K.Input((6,), **f)
    for place, layer in enumerate(layers):
        x = layer(L.Dense(9, name=f"d{place}", **f)(x))
    model = zoo.settle(K.Model(inputs, L.Dense(3, **f)(x)))
    for place in range(len(layers)):
        edit(model, f"d{place}", kernel=zero(ALL, [1, 2, 5]))
    small = tsp.lossless(model)
    assert [width(small, f"d{place}") for place in range(3)] == [6, 6, 6]
    x = np.random.default_rng(0).normal(size=(64, 6))
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), rtol=1e-12)


def test_constants_reach_through_normalisation_and_flattening(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((6, 6, 2)),
                L.Conv2D(5, 3, use_bias=False, name="one"),
                L.BatchNormalization(name="norm"),
                L.LeakyReLU(),
                L.MaxPooling2D(2),
                L.Flatten(),
                L.Dense(4, name="head"),
            ]
        )
    )
    edit(model, "one", kernel=zero(..., 3))
    small = tsp.lossless(model)
    assert width(small, "one") == 4
    assert same(model, small)
    # gamma = beta = 0 makes a unit zero whatever its weights are.
    edit(model, "norm", gamma=zero(1), beta=zero(1))
    small = tsp.lossless(model)
    assert width(small, "one") == 3
    assert same(model, small)


CONVOLUTIONS = {
    "valid": ({"padding": "valid"}, [], True),
    "strided": ({"padding": "valid", "strides": 2}, [], True),
    "same": ({"padding": "same"}, [], False),
    "norm behind": ({"padding": "valid", "use_bias": False}, ["norm"], True),
    "no bias": ({"padding": "valid", "use_bias": False}, [], False),
    "act between": (
        {"padding": "valid", "use_bias": False, "activation": "relu"},
        ["norm"],
        False,
    ),
}


@pytest.mark.parametrize("way", list(CONVOLUTIONS))
def test_constants_in_front_of_a_convolution(K, way):
    L = K.layers
    settings, behind, folds = CONVOLUTIONS[way]
    x = inputs = K.Input((7, 7, 2))
    x = L.Conv2D(6, 1, activation="relu", name="one")(x)
    x = L.Conv2D(5, 3, name="two", **settings)(x)
    if behind:
        x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3)(L.Flatten()(x))))

    def biases(b):
        b[0], b[1] = 0.8, -0.5  # behind the ReLU a constant, and zero

    edit(model, "one", kernel=zero(..., [0, 1]), bias=biases)
    small = tsp.lossless(model)
    assert width(small, "one") == (4 if folds else 5)  # zero always goes
    assert same(model, small)


def test_a_reader_that_is_an_output_too(K):
    """The normalisation behind it cannot make up for what the output would lose."""
    L = K.layers
    inputs = K.Input((4,))
    x = L.Dense(6, activation="relu", name="one")(inputs)
    seen = L.Dense(5, use_bias=False, name="two")(x)
    model = zoo.settle(K.Model(inputs, [seen, L.BatchNormalization()(seen)]))

    def biases(b):
        b[3], b[4] = 0.9, -0.2

    edit(model, "one", kernel=zero(ALL, [3, 4]), bias=biases)
    small = tsp.lossless(model)
    assert width(small, "one") == 5  # the one that is zero goes, the other stays
    x = points(model)
    for found, expected in zip(small(x), model(x), strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)


def test_stably_inactive_units_need_a_box(K):
    model = zoo.mlp(K)
    rng = np.random.default_rng(4)
    kernel = rng.uniform(-0.2, 0.2, (12, 32)).astype("float32")
    bias = np.zeros(32, "float32")
    bias[:6] = -12 * 0.2 - 0.1  # below zero for every input in [-1, 1]
    model.get_layer("first").set_weights([kernel, bias])
    with pytest.warns(NothingPrunedWarning, match="no prunable unit"):
        copy = tsp.lossless(model)
    assert width(copy, "first") == 32
    with pytest.warns(NothingPrunedWarning):  # data certify nothing
        tsp.lossless(model, points(model, 0, 0.1))
    small = tsp.lossless(model, box=(-1.0, 1.0))
    assert width(small, "first") == 26
    assert same(model, small, low=-1, high=1)
    # By hand: sum |w| + bias, which is what the box of [-1, 1] allows.
    active = np.abs(kernel).sum(axis=0) + bias > 0
    assert active.sum() == 26
    wide = tsp.lossless(model, box=(np.full(12, -0.1), np.full(12, 0.1)))
    active = 0.1 * np.abs(kernel).sum(axis=0) + bias > 0
    assert width(wide, "first") == active.sum()
    with pytest.raises(VerificationError, match="outside the box"):
        tsp.lossless(model, points(model, -100, 100, 512), box=(-0.01, 0.01))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_padding_is_an_input_too(K, padding):
    """For inputs of at least 1 a unit is dead in the middle, but not at the border."""
    L = K.layers
    model = K.Sequential([K.Input((5, 5, 1)), L.Conv2D(2, 3, 1, padding, name="conv")])
    model.add(L.ReLU())
    model.add(L.GlobalMaxPooling2D())
    model.add(L.Dense(1))
    kernel = np.ones((3, 3, 1, 2), "float32") * [1, -1]
    model.get_layer("conv").set_weights([kernel, np.array([0.0, 5.0])])
    small = tsp.lossless(model, box=(1.0, 2.0)) if padding == "valid" else model
    if padding == "same":  # in a corner 5 - 4, in the middle 5 - 9 at most
        with pytest.warns(NothingPrunedWarning):
            tsp.lossless(model, box=(1.0, 2.0))
    assert width(small, "conv") == (1 if padding == "valid" else 2)
    assert same(model, small, low=1, high=2)


def test_saturated_units_are_constants_over_a_box(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((4,)),
                L.Dense(6, name="one"),
                L.ReLU(max_value=6.0),
                L.Dense(3, name="head"),
            ]
        )
    )

    def kernels(w):
        w[:] = np.abs(w)  # so that no unit is always below zero

    def biases(b):
        b[:] = -0.01  # nor always above it
        b[2] = 50.0

    edit(model, "one", kernel=kernels, bias=biases)
    small = tsp.lossless(model, box=(0.0, 1.0))
    assert width(small, "one") == 5
    assert same(model, small, low=0, high=1)


def test_groups_of_a_residual_net(K):
    """A unit of a sum goes only if all that it sums is dead."""
    model = zoo.resnet(K)
    makers = ["stem", "r0b"]
    for maker in makers[:1]:
        edit(model, f"{maker}_bn", gamma=zero(2), beta=zero(2))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model)
    edit(model, "r0b_bn", gamma=zero(2), beta=zero(2))
    edit(model, "r1a_bn", gamma=zero([0, 4]), beta=zero([0, 4]))
    small = tsp.lossless(model)
    assert [width(small, f"{m}_conv") for m in (*makers, "r1a")] == [15, 15, 22]
    assert same(model, small)


def test_one_unit_stays(K):
    model = zoo.mlp(K)
    edit(model, "first", kernel=zero(ALL), bias=zero(ALL))
    small = tsp.lossless(model)
    assert width(small, "first") == 1
    # All of `second` is constant then.
    assert width(small, "second") == 1
    assert same(model, small)


def test_an_unknown_layer_stops_the_certificate_alone(K):
    L = K.layers
    x = inputs = K.Input((5, 4))
    x = L.LSTM(6, name="lstm")(x)
    x = L.Dense(8, activation="relu", name="one")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)))
    edit(model, "head", kernel=zero(2))
    edit(model, "one", kernel=zero(ALL, 5))

    def low(b):
        b[1] = -1000.0  # an LSTM stays in (-1, 1), but no rule says so

    edit(model, "one", bias=low)
    small = tsp.lossless(model, box=(-1, 1))
    assert width(small, "one") == 6
    assert same(model, small, low=-1, high=1)


def test_a_layer_that_is_used_twice(K):
    L = K.layers
    one, two = K.Input((4,)), K.Input((4,))
    shared = L.Dense(6, activation="relu", name="shared")
    reader = L.Dense(5, name="reader")
    y = L.Add()([reader(shared(one)), reader(shared(two))])
    model = zoo.settle(K.Model([one, two], L.Dense(2)(y)))

    def biases(b):
        b[3] = 0.9

    edit(model, "shared", kernel=zero(ALL, 3), bias=biases)
    small = tsp.lossless(model)
    assert width(small, "shared") == 5
    x = [np.random.default_rng(i).standard_normal((8, 4)).astype("f") for i in (1, 2)]
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-5)


def attention(K):
    L = K.layers
    inputs = K.Input((6, 8))
    x = L.Dense(12, name="embed")(inputs)
    x = L.Add()([x, L.MultiHeadAttention(3, 4, name="attend")(x, x)])
    x = L.Dense(10, activation="relu", name="feed")(x)
    return K.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def recurrent(K):
    L = K.layers
    inputs = K.Input((6, 8))
    x = L.GRU(6, name="two")(L.LSTM(7, return_sequences=True, name="one")(inputs))
    return K.Model(inputs, L.Dense(3)(x))


def grouped(K):
    L = K.layers
    inputs = K.Input((8, 8, 4))
    x = L.Conv2D(8, 3, activation="relu", name="one")(inputs)
    x = L.Conv2D(8, 3, groups=2, activation="relu", name="two")(x)
    x = L.Conv2D(6, 3, padding="same", name="three")(x)
    return K.Model(inputs, L.Dense(3)(L.GlobalMaxPooling2D()(x)))


ODD = [attention, recurrent, grouped]


@pytest.mark.parametrize("build", [*zoo.FAMILIES, zoo.nested, *ODD])
def test_zeros_anywhere(K, build):
    """Whole rows and columns of zeros, strewn at random: never another function."""
    model = zoo.settle(build(K))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        array = np.array(weight)
        if "kernel" in weight.name and array.ndim > 1:
            array[..., rng.random(array.shape[-1]) < 0.3] = 0
            array[..., rng.random(array.shape[-2]) < 0.3, :] = 0
        elif "bias" in weight.name or "beta" in weight.name or "mean" in weight.name:
            array[rng.random(array.shape) < 0.5] = 0
        weight.assign(array)
    small = tsp.lossless(model, box=(-1.0, 1.0))
    assert small.count_params() < model.count_params()
    assert same(model, small, low=-1, high=1)


@pytest.mark.parametrize("name", ["vgg", "resnet", "densenet", "mobilenet", "nested"])
def test_bounds_hold_what_really_happens(K, name):
    """Sound on every zoo net: no input in the box leaves the certified bounds."""
    model = getattr(zoo, name)(K)
    graph = tsp.ChannelGraph(model)
    box = [Bounds(np.full((1, 1, 1), -1.0), np.full((1, 1, 1), 1.0))]
    bounds = _at_inputs(graph, box)
    x = points(model, -1, 1, 32)
    x[:8] = np.sign(x[:8])
    import keras

    seen = 0

    def apply(call, args, kwargs):
        nonlocal seen
        given = [t for t in keras.tree.flatten((args, kwargs)) if hasattr(t, "shape")]
        for place, tensor in enumerate(given):
            bound = bounds[call.name, place]
            value = np.asarray(tensor)
            assert (value >= bound.low - 1e-4).all()
            assert (value <= bound.high + 1e-4).all()
            seen += bool(np.isfinite(bound.high).all())
        return call.layer(*args, **kwargs)

    graph.graph.run([x], apply)
    assert seen == len(bounds)  # every layer of the zoo has a rule


def test_wrong_input(K):
    model = zoo.mlp(K)
    for box in (1.0, (1.0, 0.0), (0.0, np.inf), (0.0,), (np.zeros(5), np.ones(5))):
        with pytest.raises(ValueError, match="`box` (must be|is the lowest)"):
            tsp.lossless(model, box=box)
    with pytest.raises(ValueError, match="names no input"):
        tsp.lossless(model, box={"nobody": (0.0, 1.0)})
    with pytest.raises(CalibrationError):
        tsp.lossless(model, np.zeros((3, 5), "float32"))
    with pytest.raises(FlavourError):
        tsp.lossless("model")
