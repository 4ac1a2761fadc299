"""Costs against counts by hand."""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.graph._cost import layer_costs


def test_mlp(K):
    found = tsp.cost(zoo.mlp(K))
    assert found.macs == 12 * 32 + 32 * 24 + 24 * 5
    assert found.params == 13 * 32 + 33 * 24 + 25 * 5
    assert found.bytes == 4 * found.params
    assert found.uncounted == ()


def test_mobilenet(K):
    """4x4 positions behind the strided stem."""
    stem = 16 * 9 * 3 * 12
    block = 16 * (12 * 32 + 9 * 32 + 32 * 12)
    found = tsp.cost(zoo.mobilenet(K))
    assert found.macs == stem + 2 * block + 12 * 5
    weights = 9 * 3 * 12 + 2 * (12 * 32 + 9 * 32 + 32 * 12) + 12 * 5 + 5
    norms = 4 * (12 + 2 * (32 + 32 + 12))
    assert found.params == weights + norms


def test_costs_by_layer(K):
    """Attention multiplies tensors besides what its weights do; a ReLU has no row."""
    x = K.Input((6, 16))
    y = K.layers.MultiHeadAttention(4, 8, name="attention")(x, x)
    y = K.layers.ReLU()(K.layers.LayerNormalization(name="norm")(y))
    y = K.layers.Dense(3, name="head")(K.layers.GlobalAveragePooling1D()(y))
    graph = tsp.ChannelGraph(K.Model(x, y))
    found = layer_costs(graph, graph.nothing_removed())
    assert set(found) == {"attention", "norm", "head"}
    # Four projections of 6 positions, and scores and values of 6 x 6 pairs.
    assert found["attention"].macs == 4 * 6 * 16 * 32 + 2 * 36 * 32
    assert found["attention"].params == 3 * (16 * 32 + 32) + 32 * 16 + 16
    assert (found["norm"].macs, found["norm"].params) == (0, 32)
    assert (found["head"].macs, found["head"].params) == (48, 51)


CASES = {
    # 9x7 input; macs are positions x window x channels in x channels out.
    "valid": (lambda L: L.Conv2D(5, 3), 7 * 5 * 9 * 4 * 5, 9 * 4 * 5 + 5),
    "strided": (
        lambda L: L.Conv2D(5, (3, 1), strides=2, padding="same"),
        5 * 4 * 3 * 4 * 5,
        3 * 4 * 5 + 5,
    ),
    "dilated": (lambda L: L.Conv2D(5, 3, dilation_rate=2), 5 * 3 * 180, 185),
    "grouped": (
        lambda L: L.Conv2D(6, 3, groups=2, use_bias=False),
        7 * 5 * 9 * 2 * 6,
        9 * 2 * 6,
    ),
    "group_a_channel": (
        lambda L: L.Conv2D(8, 3, groups=4, use_bias=False),
        7 * 5 * 9 * 8,
        9 * 8,
    ),
    "depthwise": (
        lambda L: L.DepthwiseConv2D(3, depth_multiplier=2),
        7 * 5 * 9 * 8,
        9 * 8 + 8,
    ),
    "separable": (
        lambda L: L.SeparableConv2D(5, 3),
        7 * 5 * (9 * 4 + 4 * 5),
        9 * 4 + 4 * 5 + 5,
    ),
    "dense_on_maps": (lambda L: L.Dense(5), 9 * 7 * 4 * 5, 25),
    "norm": (lambda L: L.BatchNormalization(), 0, 16),
    "prelu": (lambda L: L.PReLU(shared_axes=[1, 2]), 0, 4),
}


@pytest.mark.parametrize("case", list(CASES))
def test_single_layers(K, case):
    layer, macs, params = CASES[case]
    model = K.Sequential([K.Input((9, 7, 4)), layer(K.layers)])
    found = tsp.cost(model)
    assert (found.macs, found.params) == (macs, params)


def test_bytes_follow_the_dtype(K):
    L = K.layers
    model = K.Sequential([K.Input((4,)), L.Dense(3, dtype="float16")])
    assert tsp.cost(model).bytes == 2 * 15
    model = K.Sequential([K.Input((4,)), L.Dense(3, dtype="mixed_float16")])
    assert tsp.cost(model).bytes == 4 * 15


def test_shared_layer_counts_twice_in_macs_only(K):
    L = K.layers
    shared = L.Dense(4, name="shared")
    inputs = K.Input((4,))
    model = K.Model(inputs, shared(shared(inputs)))
    assert (tsp.cost(model).macs, tsp.cost(model).params) == (32, 20)


def test_open_size_has_no_macs(K):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((None, None, 3)),
            L.Conv2D(4, 3, name="c"),
            L.GlobalAveragePooling2D(),
            L.Dense(2),
        ]
    )
    found = tsp.cost(model)
    assert found.macs is None
    assert found.params == 9 * 3 * 4 + 4 + 10
    with pytest.raises(tsp.errors.ModelError, match="open input size"):
        tsp.plan(model, target_macs=0.5)
    small = tsp.prune(model, "random", target_params=0.6)
    assert small.count_params() <= 0.6 * found.params
    assert small(np.zeros((1, 6, 9, 3), "float32")).shape == (1, 2)


def test_layer_without_a_rule_is_traced(K):
    class Odd(K.layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 5), name="matrix")

        def call(self, x):
            return x @ self.matrix

    model = K.Sequential([K.Input((6,)), Odd(name="odd"), K.layers.Dense(2)])
    found = tsp.cost(model)
    assert found.uncounted == ()
    assert found.macs == 6 * 5 + 5 * 2
    assert found.params == model.count_params()


# Of 8 x 8 positions and 3 channels, by hand: each output sums over a window, and each
# input of a transposed convolution goes into one.
OPERATIONS = {
    "conv": ((3, 3, 3, 4), {}, 36 * 4 * 9 * 3),
    "depthwise_conv": ((3, 3, 3, 2), {}, 36 * 3 * 2 * 9),
    "conv_transpose": ((2, 2, 5, 3), {"strides": 2}, 64 * 3 * 4 * 5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_a_layer_without_a_rule(name):
    import keras

    shape, settings, macs = OPERATIONS[name]

    class Odd(keras.layers.Layer):
        def build(self, _):
            self.window = self.add_weight(shape=shape, name="window")

        def call(self, x):
            return getattr(keras.ops, name)(x, self.window, **settings)

    model = keras.Sequential([keras.Input((8, 8, 3)), Odd(name="odd")])
    assert tsp.cost(model).macs == macs


@pytest.mark.parametrize("builder", zoo.ALL, ids=lambda b: b.__name__)
def test_params_are_those_of_keras(K, builder):
    model = builder(K)
    found = tsp.cost(model)
    assert found.params == model.count_params()
    assert found.macs > 0


def test_equal_in_both_flavours():
    import tf_keras

    for builder in zoo.ALL:
        assert tsp.cost(builder(keras)) == tsp.cost(builder(tf_keras))


def test_positions_that_a_reshape_moves_to_the_batch_axis_count():
    x = keras.Input((6, 8))
    y = keras.ops.reshape(x, (-1, 8))
    y = keras.layers.Dense(12, use_bias=False)(y)
    y = keras.ops.reshape(y, (-1, 3, 2, 12))
    model = keras.Model(x, keras.layers.Dense(3, use_bias=False)(y))
    assert tsp.cost(model).macs == 6 * 8 * 12 + 6 * 12 * 3
