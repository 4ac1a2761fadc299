"""Codes of every kind of knot, against float64 NumPy, bit for bit."""

import warnings

import keras
import numpy as np
import partition_reference as ref
import pytest
import tensorflow as tf

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError, SmoothActivationWarning

POINTS = np.random.default_rng(1).normal(0, 1.5, (60, 6)).astype("float32")


def clip(low, high):
    return lambda x: np.clip(x, low, high)


def thresholded(x):
    # ReLU(max_value=4, negative_slope=0.1, threshold=1).
    return np.where(x >= 4, 4.0, np.where(x >= 1, x, 0.1 * (x - 1)))


# name: (what makes it from the Keras package, knots, function in NumPy, flavours)
LAYERS = {
    "relu": (lambda K: K.layers.ReLU(), (0,), ref.relu),
    "relu6": (lambda K: K.layers.ReLU(max_value=6.0), (0, 6), clip(0, 6)),
    "relu_thresholded": (
        lambda K: K.layers.ReLU(max_value=4.0, negative_slope=0.1, threshold=1.0),
        (1, 4),
        thresholded,
    ),
    "leaky_relu": (
        lambda K: K.layers.LeakyReLU(0.25),
        (0,),
        lambda x: np.where(x > 0, x, 0.25 * x),
    ),
    "activation_relu": (lambda K: K.layers.Activation("relu"), (0,), ref.relu),
    "activation_hard_sigmoid": (
        lambda K: K.layers.Activation("hard_sigmoid"),
        {"keras": (-3, 3), "tf_keras": (-2.5, 2.5)},
        {
            "keras": lambda x: np.clip(x / 6 + 0.5, 0, 1),
            "tf_keras": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        },
    ),
}
IN_LAYER = {
    "relu": (lambda K: "relu", (0,), ref.relu),
    "hard_sigmoid": (
        lambda K: "hard_sigmoid",
        {"keras": (-3, 3), "tf_keras": (-2.5, 2.5)},
        {
            "keras": lambda x: np.clip(x / 6 + 0.5, 0, 1),
            "tf_keras": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        },
    ),
    "abs": (
        lambda K: keras.ops.abs if K.__name__ == "keras" else tf.abs,
        (0,),
        np.abs,
    ),
    "relu6_by_name": ({"keras": "relu6"}, (0, 6), clip(0, 6)),
    "hard_tanh": ({"keras": "hard_tanh"}, (-1, 1), clip(-1, 1)),
    "leaky_relu": (
        {"keras": "leaky_relu"},
        (0,),
        lambda x: np.where(x > 0, x, 0.2 * x),
    ),
    "soft_shrink": (
        {"keras": "soft_shrink"},
        (-0.5, 0.5),
        lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    ),
    "sparse_sigmoid": (
        {"keras": "sparse_sigmoid"},
        (-1, 1),
        lambda x: np.clip((x + 1) / 2, 0, 1),
    ),
    "layer_as_activation": (lambda K: K.layers.ReLU(), (0,), ref.relu),
    "clipped_layer_as_activation": (
        lambda K: K.layers.ReLU(max_value=6.0),
        (0, 6),
        clip(0, 6),
    ),
}
OPERATIONS = {
    "activations.relu": (lambda K: K.activations.relu, (0,), ref.relu),
    "ops.relu": ({"keras": keras.ops.relu}, (0,), ref.relu),
    "ops.relu6": ({"keras": keras.ops.relu6}, (0, 6), clip(0, 6)),
    "ops.abs": ({"keras": keras.ops.abs}, (0,), np.abs),
    "ops.hard_tanh": ({"keras": keras.ops.hard_tanh}, (-1, 1), clip(-1, 1)),
    "ops.hard_sigmoid": (
        {"keras": keras.ops.hard_sigmoid},
        (-3, 3),
        lambda x: np.clip(x / 6 + 0.5, 0, 1),
    ),
    "activations.relu(thresholded)": (
        {
            "keras": lambda t: keras.activations.relu(
                t, negative_slope=0.1, max_value=4.0, threshold=1.0
            )
        },
        (1, 4),
        thresholded,
    ),
    "nn.relu": ({"tf_keras": tf.nn.relu}, (0,), ref.relu),
    "nn.relu6": ({"tf_keras": tf.nn.relu6}, (0, 6), clip(0, 6)),
    "nn.leaky_relu": (
        {"tf_keras": tf.nn.leaky_relu},
        (0,),
        lambda x: np.where(x > 0, x, 0.2 * x),
    ),
    "tf.abs": ({"tf_keras": tf.abs}, (0,), np.abs),
    "abs()": (lambda K: abs, (0,), np.abs),
}


def cases(table):
    """List the pairs (flavour, name) of what each flavour has."""
    return pytest.mark.parametrize(
        ("K", "kind"),
        [
            (flavour, kind)
            for kind, (made, *_) in table.items()
            for flavour in ("keras", "tf_keras")
            if not isinstance(made, dict) or flavour in made
        ],
        indirect=["K"],
    )


def of_flavour(K, made, knots, function):
    """Choose what belongs to a flavour."""
    name = K.__name__
    made = made[name] if isinstance(made, dict) else made(K)
    knots = knots[name] if isinstance(knots, dict) else knots
    function = function[name] if isinstance(function, dict) else function
    return made, knots, function


def check_two_layers(model, codes, knots, function):
    first, second = codes.layers
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("one"))
    ref.check(codes, first, pre, *knots)
    ref.check(codes, second, ref.dense(function(pre), model.get_layer("two")), *knots)
    assert codes.num_knots[first] == 16 * len(knots)
    assert codes.num_knots[second] == 9 * len(knots)
    np.testing.assert_array_equal(
        codes.units[second], np.repeat(np.arange(9), len(knots))
    )


@cases(LAYERS)
def test_activation_layers(K, kind):
    made, knots, function = LAYERS[kind]
    _, knots, function = of_flavour(K, made, knots, function)
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, name="one"),
            made(K),
            K.layers.Dense(9, name="two"),
            made(K),
            K.layers.Dense(2),
        ]
    )
    ref.randomize(model, scale=4.0)
    check_two_layers(model, tsp.PartitionCoder(model)(POINTS), knots, function)


@cases(IN_LAYER)
def test_activations_inside_dense(K, kind):
    activation, knots, function = of_flavour(K, *IN_LAYER[kind])
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, activation=activation, name="one"),
            K.layers.Dense(9, activation=activation, name="two"),
            K.layers.Dense(2),
        ]
    )
    ref.randomize(model, scale=4.0)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.layers == ("one", "two")
    check_two_layers(model, codes, knots, function)


@cases(OPERATIONS)
def test_operations(K, kind):
    operation, knots, function = of_flavour(K, *OPERATIONS[kind])
    inputs = K.Input((6,))
    x = operation(K.layers.Dense(16, name="one")(inputs))
    x = operation(K.layers.Dense(9, name="two")(x))
    model = K.Model(inputs, K.layers.Dense(2)(x))
    ref.randomize(model, scale=4.0)
    check_two_layers(model, tsp.PartitionCoder(model)(POINTS), knots, function)


def test_prelu_of_any_sign(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, name="one"),
            K.layers.PReLU(name="first"),
            K.layers.Dense(9, name="two"),
            K.layers.PReLU(name="second"),
        ]
    )
    ref.randomize(model, scale=4.0)
    alpha = np.linspace(-1.5, 1.5, 16)
    model.get_layer("first").set_weights([alpha.astype("float32")])
    model.get_layer("second").set_weights([np.full(9, -2.0, "float32")])
    codes = tsp.PartitionCoder(model)(POINTS)
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("one"))
    ref.check(codes, "first", pre)
    alpha = alpha.astype("float32").astype("float64")
    hidden = np.where(pre > 0, pre, alpha * pre)
    ref.check(codes, "second", ref.dense(hidden, model.get_layer("two")))


def test_convolutions_and_batch_normalization(K):
    L = K.layers
    inputs = K.Input((7, 7, 3))
    x = L.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="one")(inputs)
    x = L.Conv2D(6, 2, name="two")(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU(name="act")(x)
    x = L.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, activation="relu", name="deep"
    )(x)
    model = K.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    ref.randomize(model)
    model.get_layer("norm").set_weights(
        [np.linspace(-1, 1, 6), np.linspace(-0.5, 0.5, 6), np.ones(6), np.full(6, 2.0)]
    )
    points = np.random.default_rng(2).normal(0, 1, (40, 7, 7, 3)).astype("float32")
    codes = tsp.PartitionCoder(model)(points)
    assert codes.layers == ("one", "act", "deep")
    pre = ref.conv(points.astype("float64"), model.get_layer("one"), 2, "same")
    ref.check(codes, "one", pre)
    pre = ref.batch_norm(
        ref.conv(ref.relu(pre), model.get_layer("two")), model.get_layer("norm")
    )
    ref.check(codes, "act", pre)
    pre = ref.depthwise(ref.relu(pre), model.get_layer("deep"), "same")
    ref.check(codes, "deep", pre)
    np.testing.assert_array_equal(codes.units["one"], np.tile(np.arange(5), 16))
    np.testing.assert_array_equal(codes.units["deep"], np.tile(np.arange(12), 9))


def test_conv1d(K):
    model = K.Sequential(
        [
            K.Input((9, 2)),
            K.layers.Conv1D(4, 3, padding="same", strides=2, name="one"),
            K.layers.ReLU(max_value=6.0, name="act"),
            K.layers.Conv1D(3, 2, activation="relu", name="two"),
        ]
    )
    ref.randomize(model, scale=3.0)
    points = np.random.default_rng(2).normal(0, 2, (50, 9, 2)).astype("float32")
    codes = tsp.PartitionCoder(model)(points)
    pre = ref.conv(points.astype("float64"), model.get_layer("one"), 2, "same")
    ref.check(codes, "act", pre, 0, 6)
    pre = ref.conv(np.clip(pre, 0, 6), model.get_layer("two"))
    ref.check(codes, "two", pre)


POOLS = {
    "1d": (1, {"pool_size": 2}, (2, 2, "valid")),
    "1d_overlapping_same": (
        1,
        {"pool_size": 3, "strides": 2, "padding": "same"},
        (3, 2, "same"),
    ),
    "2d": (2, {"pool_size": 2}, (2, 2, "valid")),
    "2d_overlapping": (2, {"pool_size": 3, "strides": 2}, (3, 2, "valid")),
    "2d_same": (2, {"pool_size": 2, "padding": "same"}, (2, 2, "same")),
    "2d_overlapping_same": (
        2,
        {"pool_size": (3, 2), "strides": 1, "padding": "same"},
        ((3, 2), (1, 1), "same"),
    ),
    "2d_uneven": (
        2,
        {"pool_size": (2, 3), "strides": (1, 2)},
        ((2, 3), (1, 2), "valid"),
    ),
}


@pytest.mark.parametrize("case", POOLS)
def test_pool_ties(K, case):
    # Small integers: float32 is exact, and ties are everywhere, so every bit counts.
    rank, arguments, reference = POOLS[case]
    shape = (7, 3) if rank == 1 else (7, 6, 3)
    Conv = K.layers.Conv1D if rank == 1 else K.layers.Conv2D
    Pool = K.layers.MaxPooling1D if rank == 1 else K.layers.MaxPooling2D
    model = K.Sequential(
        [
            K.Input(shape),
            Conv(4, 2, activation="relu", padding="same", name="conv"),
            Pool(**arguments, name="pool"),
            Pool(2, name="again"),
        ]
    )
    rng = np.random.default_rng(3)
    kernel, bias = model.get_weights()
    model.set_weights([rng.integers(-2, 3, kernel.shape), np.full(bias.shape, -5)])
    points = rng.integers(-2, 3, (30, *shape)).astype("float32")
    codes = tsp.PartitionCoder(model, batch_size=8)(points)
    assert codes.layers == ("conv", "pool", "again")
    pre = ref.conv(points.astype("float64"), model.get_layer("conv"), 1, "same")
    np.testing.assert_array_equal(codes.unpack("conv"), ref.bits(pre))
    pooled, ties = ref.max_pool(ref.relu(pre), *reference)
    assert (ties.sum(-1) > 1).mean() > 0.1  # windows with several winners
    assert ties.any(-1).all()
    np.testing.assert_array_equal(codes.unpack("pool"), ties.reshape(len(points), -1))
    _, ties = ref.max_pool(pooled, 2, 2)
    np.testing.assert_array_equal(codes.unpack("again"), ties.reshape(len(points), -1))
    window = np.prod(reference[0]) if rank > 1 else reference[0]
    window = window**rank if isinstance(reference[0], int) else window
    per_position = np.repeat(np.arange(4), window)
    np.testing.assert_array_equal(
        codes.units["pool"], np.tile(per_position, pooled[0, ..., 0].size)
    )


def smooth_coder(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coder = tsp.PartitionCoder(model)
    return coder, [w for w in caught if w.category is SmoothActivationWarning]


def test_smooth_activations_give_the_sign_and_one_warning(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, activation="tanh", name="one"),
            K.layers.Dense(9, name="two"),
            K.layers.ELU(name="elu"),
            K.layers.Dense(7, name="three"),
            K.layers.Activation("softplus", name="soft"),
            K.layers.Dense(2, name="head"),
        ]
    )
    ref.randomize(model)
    coder, caught = smooth_coder(model)
    assert len(caught) == 1
    assert all(name in str(caught[0].message) for name in ("one", "elu", "soft"))
    assert caught[0].filename == __file__
    codes = coder(POINTS)
    assert codes.layers == ("one", "elu", "soft")
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("one"))
    ref.check(codes, "one", pre)
    pre = ref.dense(np.tanh(pre), model.get_layer("two"))
    ref.check(codes, "elu", pre)
    hidden = np.where(pre > 0, pre, np.expm1(pre))
    ref.check(codes, "soft", ref.dense(hidden, model.get_layer("three")))


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "tanh"])
def test_a_head_is_left_out_without_a_warning(K, head):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, activation="relu", name="one"),
            K.layers.Dense(3, activation=head, name="head"),
        ]
    )
    coder, caught = smooth_coder(model)
    assert coder.layers == ("one",)
    assert not caught


def test_the_head_of_a_nested_model_is_left_out_too(K):
    tail = K.Sequential(
        [K.Input((16,)), K.layers.Dense(3, activation="sigmoid", name="head")]
    )
    inputs = K.Input((6,))
    x = K.layers.Dense(16, activation="relu", name="one")(inputs)
    coder, caught = smooth_coder(K.Model(inputs, tail(x)))
    assert coder.layers == ("one",)
    assert not caught


def test_a_smooth_block_inside_is_coded_with_a_warning(K):
    # The output of the nested model is not an output of the whole.
    block = K.Sequential(
        [K.Input((6,)), K.layers.Dense(5, activation="tanh", name="smooth")],
        name="block",
    )
    inputs = K.Input((6,))
    model = K.Model(inputs, K.layers.Dense(3, activation="relu")(block(inputs)))
    coder, caught = smooth_coder(model)
    assert coder.layers[0] == "block/smooth"
    assert len(caught) == 1


def test_softmax_inside_is_left_out(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(16, activation="relu", name="one"),
            K.layers.Dense(5, activation="softmax"),
            K.layers.Softmax(),
            K.layers.Dense(4),
        ]
    )
    coder, caught = smooth_coder(model)
    assert coder.layers == ("one",)
    assert not caught


def test_a_model_without_knots_is_refused(K):
    model = K.Sequential([K.Input((6,)), K.layers.Dense(4), K.layers.Softmax()])
    with pytest.raises(ModelError, match="No piecewise-linear activation"):
        tsp.PartitionCoder(model)


def test_global_max_pool(K):
    """Every position of a channel: whether it attains the channel's maximum."""
    inputs = K.Input((4, 3, 5))
    model = K.Model(inputs, K.layers.GlobalMaxPooling2D(name="top")(inputs))
    x = np.random.default_rng(0).integers(0, 3, (20, 4, 3, 5)).astype("float32")
    codes = tsp.PartitionCoder(model)(x)
    expected = x == x.max(axis=(1, 2), keepdims=True)
    np.testing.assert_array_equal(codes.unpack("top"), expected.reshape(20, -1))
    np.testing.assert_array_equal(codes.units["top"], np.tile(np.arange(5), 12))


def test_bounds_as_operations(K):
    inputs = K.Input((6,))
    x = K.layers.Dense(7, name="one")(inputs)
    if K.__name__ == "keras":
        x = K.ops.clip(K.ops.maximum(x, 0.5), -1.0, 2.0)
    else:
        import tensorflow as tf

        x = tf.clip_by_value(tf.maximum(x, 0.5), -1.0, 2.0)
    model = K.Model(inputs, x)
    points = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")
    codes = tsp.PartitionCoder(model)(points)
    first, second = codes.layers
    kernel, bias = model.get_layer("one").get_weights()
    h = points.astype(float) @ kernel + bias
    np.testing.assert_array_equal(codes.unpack(first), h > 0.5)
    clipped = np.stack([np.maximum(h, 0.5) > -1, np.maximum(h, 0.5) > 2], -1)
    np.testing.assert_array_equal(codes.unpack(second), clipped.reshape(30, -1))


def test_unknown_activations_are_named_in_one_warning(K):
    from tf_spline_prune.errors import UnreadActivationWarning

    L = K.layers
    model = K.Sequential(
        [
            K.Input((5, 6)),
            L.Dense(4, activation=lambda x: x * x, name="square"),
            L.TimeDistributed(L.Dense(4, activation="relu"), name="each"),
            L.Dense(4, activation="relu", name="one"),
            L.Dense(2),
        ]
    )
    with pytest.warns(UnreadActivationWarning, match="square, each") as caught:
        coder = tsp.PartitionCoder(model)
    assert len(caught) == 1
    assert coder.layers == ("one",)
