"""A cost that is not counted is not zero: counts by hand, or no number at all."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, ModelError


def frames(K):
    """A conv net of 8x8 frames: 3x3x3 to 4 channels, 256 features, 7 units."""
    L = K.layers
    return K.Sequential(
        [K.Input((8, 8, 3)), L.Conv2D(4, 3, padding="same"), L.Flatten(), L.Dense(7)]
    )


FRAME = 64 * 27 * 4 + 256 * 7
LSTM = 4 * 20 + 5 * 20  # a step of 4 inputs and 5 units, four gates
# Shape of the input, the layer, its multiply-accumulates.
CASES = {
    "lstm": ((6, 4), lambda K: K.layers.LSTM(5), 6 * LSTM),
    "gru": ((6, 4), lambda K: K.layers.GRU(5), 6 * (4 * 15 + 5 * 15)),
    "simple_rnn": ((6, 4), lambda K: K.layers.SimpleRNN(5), 6 * (4 * 5 + 5 * 5)),
    "cells": (
        (6, 4),
        lambda K: K.layers.RNN([K.layers.LSTMCell(5), K.layers.LSTMCell(3)]),
        6 * (LSTM + 5 * 12 + 3 * 12),
    ),
    "bidirectional": (
        (6, 4),
        lambda K: K.layers.Bidirectional(K.layers.LSTM(5)),
        2 * 6 * LSTM,
    ),
    "two_sizes": (
        (6, 4),
        lambda K: K.layers.Bidirectional(
            K.layers.LSTM(5), backward_layer=K.layers.LSTM(3, go_backwards=True)
        ),
        6 * (LSTM + 4 * 12 + 3 * 12),
    ),
    "conv_lstm_1d": (
        (5, 8, 3),
        lambda K: K.layers.ConvLSTM1D(4, 3, padding="same"),
        5 * 8 * 3 * (3 + 4) * 16,
    ),
    "conv_lstm_2d": (
        (5, 8, 8, 3),
        lambda K: K.layers.ConvLSTM2D(4, 3, padding="same"),
        5 * 64 * 9 * (3 + 4) * 16,
    ),
    "conv_lstm_3d": (
        (3, 4, 4, 4, 2),
        lambda K: K.layers.ConvLSTM3D(2, 3, padding="same"),
        3 * 64 * 27 * (2 + 2) * 8,
    ),
    "steps_of_a_model": (
        (5, 8, 8, 3),
        lambda K: K.layers.TimeDistributed(frames(K)),
        5 * FRAME,
    ),
    "steps_of_a_sequence": (
        (5, 6, 4),
        lambda K: K.layers.TimeDistributed(K.layers.LSTM(5)),
        5 * 6 * LSTM,
    ),
    "steps_of_a_conv": (
        (5, 8, 8, 3),
        lambda K: K.layers.TimeDistributed(K.layers.Conv2D(4, 3, padding="same")),
        5 * 64 * 27 * 4,
    ),
    "grouped_in_steps": (
        (5, 8, 8, 4),
        lambda K: K.layers.TimeDistributed(
            K.Sequential([K.layers.Conv2D(6, 3, groups=2, padding="same")])
        ),
        5 * 64 * 9 * 2 * 6,
    ),
    # Places of the output, entries of a filter, channels in and out.
    "grouped_with_strides": (
        (9, 9, 6),
        lambda K: K.layers.Conv2D(6, (3, 5), 2, padding="same", groups=3),
        25 * 15 * 2 * 6,
    ),
    "dilated": (
        (11, 10, 3),
        lambda K: K.layers.Conv2D(4, 3, dilation_rate=(2, 3)),
        7 * 4 * 9 * 3 * 4,
    ),
    "causal": (
        (9, 3),
        lambda K: K.layers.Conv1D(5, 4, padding="causal", dilation_rate=2),
        9 * 4 * 3 * 5,
    ),
    "transposed": (  # places of the input
        (5, 6, 3),
        lambda K: K.layers.Conv2DTranspose(4, 4, (2, 3), padding="same"),
        5 * 6 * 16 * 3 * 4,
    ),
    "separable": (
        (9, 9, 3),
        lambda K: K.layers.SeparableConv2D(5, 3, 2, padding="same", depth_multiplier=2),
        25 * (9 * 6 + 6 * 5),
    ),
    "depthwise": (
        (9, 9, 3),
        lambda K: K.layers.DepthwiseConv2D(3, 2, depth_multiplier=4),
        16 * 9 * 12,
    ),
    "channels_first": (
        (3, 9, 9),
        lambda K: K.layers.Conv2D(4, 3, 2, data_format="channels_first"),
        16 * 9 * 3 * 4,
    ),
    "conv_lstm_with_strides": (
        (3, 9, 9, 2),
        lambda K: K.layers.ConvLSTM2D(4, 3, 2, return_sequences=True),
        3 * 16 * 9 * (2 + 4) * 16,
    ),
    "two_outputs_of_both_ways": (
        (6, 4),
        lambda K: K.layers.Bidirectional(K.layers.GRU(5), merge_mode=None),
        2 * 6 * (4 * 15 + 5 * 15),
    ),
    "steps_of_steps": (
        (2, 3, 5, 4),
        lambda K: K.layers.TimeDistributed(K.layers.TimeDistributed(K.layers.LSTM(5))),
        2 * 3 * 5 * LSTM,
    ),
    "steps_of_both_ways": (
        (3, 5, 4),
        lambda K: K.layers.TimeDistributed(K.layers.Bidirectional(K.layers.LSTM(5))),
        3 * 2 * 5 * LSTM,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_layers_by_hand(K, case):
    shape, layer, macs = CASES[case]
    inputs = K.Input(shape)
    model = K.Model(inputs, layer(K)(inputs))
    found = tsp.cost(model)
    assert (found.macs, found.uncounted) == (macs, ())
    assert found.params == sum(weight.size for weight in model.get_weights())


def test_attention_by_hand(K):
    """6 queries and 4 keys of 8 features; a score is a product of 8, or a sum of 8."""
    L = K.layers
    query, key = K.Input((6, 8)), K.Input((4, 8))
    pairs = 6 * 4
    cases = [
        (L.Attention(), pairs * (8 + 8)),
        (L.Attention(score_mode="concat"), pairs * 8),
        (L.AdditiveAttention(), pairs * (8 + 8)),
        (L.Dot(axes=2, normalize=True), pairs * 8),
    ]
    for layer, macs in cases:
        assert tsp.cost(K.Model([query, key], layer([query, key]))).macs == macs
    heads = L.MultiHeadAttention(2, 4)
    macs = 2 * 6 * 8 * 8 + 2 * 4 * 8 * 8 + 2 * pairs * 8
    assert tsp.cost(K.Model([query, key], heads(query, key))).macs == macs
    apart = [K.Input((6, 8)), K.Input((4, 7)), K.Input((4, 5))]
    heads = L.MultiHeadAttention(2, 3, value_dim=5, output_shape=9)
    macs = 6 * 8 * 6 + 4 * 5 * 6 + 4 * 7 * 10 + 2 * pairs * (3 + 5) + 6 * 10 * 9
    assert tsp.cost(K.Model(apart, heads(*apart))).macs == macs
    if K is keras:
        grouped = L.GroupQueryAttention(4, 4, 2)
        macs = 2 * 6 * 8 * 16 + 2 * 4 * 8 * 8 + 2 * pairs * 16
        assert tsp.cost(K.Model([query, key], grouped(query, key))).macs == macs


@pytest.mark.parametrize(("axes", "pairs"), [((1,), 36), ((2,), 48), ((1, 2), 144)])
def test_attention_along_some_axes(K, axes, pairs):
    """3 by 4 places of 8 features: a row or a column is seen, or everything."""
    heads = K.layers.MultiHeadAttention(2, 5, attention_axes=axes)
    inputs = K.Input((3, 4, 8))
    model = K.Model(inputs, heads(inputs, inputs))
    assert tsp.cost(model).macs == 4 * 12 * 8 * 10 + 2 * pairs * 10


def test_video_net(K):
    """The frames cost nearly all, and cannot be pruned: half is out of reach."""
    L = K.layers
    inputs = K.Input((5, 8, 8, 3))
    x = L.TimeDistributed(frames(K), name="frames")(inputs)
    x = L.GRU(6, name="gru")(x)
    model = K.Model(inputs, L.Dense(3, name="head")(x))
    gru, head = 5 * (7 * 18 + 6 * 18), 6 * 3
    assert tsp.cost(model).macs == 5 * FRAME + gru + head
    with pytest.raises(BudgetError, match="frames: no rule covers TimeDistributed"):
        tsp.prune(model, target_macs=0.5)
    plan = tsp.plan(model, target_macs=0.99)
    assert plan.achieved == (plan.before.macs, plan.after.macs)
    assert tsp.cost(plan.apply(model)).macs == plan.after.macs > 5 * FRAME


def test_convolutional_lstm(K):
    L = K.layers
    inputs = K.Input((5, 4, 4, 2))
    x = L.Flatten()(L.ConvLSTM2D(4, 3, padding="same", name="cells")(inputs))
    model = K.Model(inputs, L.Dense(3)(L.Dense(8, name="hidden")(x)))
    cells = 5 * 16 * 9 * (2 + 4) * 16
    assert tsp.cost(model).macs == cells + 64 * 8 + 8 * 3
    with pytest.raises(BudgetError, match="cells: no rule covers ConvLSTM2D"):
        tsp.plan(model, target_macs=0.5)


def block_of(K):
    """Make a class of blocks that the graph cannot see into, as it reads weights."""

    class Block(K.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.after = K.layers.Dense(units)

        def build(self, shape):
            self.matrix = self.add_weight(
                shape=(shape[-1], self.units), name="matrix", initializer="ones"
            )
            self.after.build((None, self.units))
            super().build(shape)

        def call(self, x):
            return self.after(x @ self.matrix)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Block


def test_decoder_without_rules(K):
    Block = block_of(K)
    L = K.layers
    inputs = K.Input((20,))
    x = L.Dense(40, activation="relu", name="encoder")(inputs)
    x = L.Dense(10, activation="relu", name="code")(x)
    for i in range(2):
        x = Block(30, name=f"decoder_{i}")(x)
    model = K.Model(inputs, x)
    blocks = 10 * 30 + 30 * 30 + 2 * 30 * 30
    assert tsp.cost(model).macs == 20 * 40 + 40 * 10 + blocks
    with pytest.raises(BudgetError, match="decoder_0.*no rule.*decoder_1.*no rule"):
        tsp.plan(model, target_macs=0.5)
    plan = tsp.plan(model, target_macs=0.8)
    assert plan.after.macs == tsp.cost(plan.apply(model)).macs
    assert plan.achieved == (plan.before.macs, plan.after.macs)


def spectrum(x):
    return x + tf.math.real(tf.signal.fft(tf.cast(x, "complex64")))


def settled(x):
    """A loop whose number of steps depends on the data."""
    return tf.while_loop(
        lambda y: tf.reduce_sum(y) > 1.0, lambda y: (tf.matmul(y, tf.eye(8)) / 2,), (x,)
    )[0]


@pytest.mark.parametrize("function", [spectrum, settled])
def test_what_cannot_be_counted_has_no_number(K, function):
    class Odd(K.layers.Layer):
        def call(self, x):
            return function(x)

        def compute_output_shape(self, shape):
            return shape

    L = K.layers
    model = K.Sequential(
        [
            K.Input((8,)),
            Odd(name="odd"),
            L.Dense(12, activation="relu"),
            L.Dense(6, activation="relu"),
            L.Dense(3),
        ]
    )
    found = tsp.cost(model)
    assert (found.macs, found.uncounted) == (None, ("odd",))

    def microseconds(model):
        return 5.0 + model.count_params()

    timed = {"target_latency": 0.8, "latency": microseconds}
    for asked in (
        {"target_macs": 0.5},
        {"target_macs": 10},
        {**timed, "scope": "regions"},
        {**timed, "data": np.ones((16, 8), "float32")},  # by reconstruction
    ):
        with pytest.raises(ModelError, match="cannot be counted.* with odd"):
            tsp.plan(model, **asked)
    with pytest.raises(ModelError, match="cannot be counted.* with odd"):
        tsp.prune_in_rounds(model, target_macs=0.5)
    plan = tsp.plan(model, target_params=0.6)
    assert "macs    not known: those of odd cannot be counted" in str(plan)
    assert tsp.PruningPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert tsp.plan(model, **timed).achieved[0] == 5.0 + found.params


@pytest.mark.usefixtures("unconverted")
def test_the_report_says_what_is_not_counted():
    class Odd(keras.layers.Layer):
        def call(self, x):
            return spectrum(x)

    L = keras.layers
    model = keras.Sequential(
        [keras.Input((8,)), Odd(name="odd"), L.Dense(12, "relu"), L.Dense(3)]
    )
    plan = tsp.plan(model, sparsity=0.5)
    report = tsp.report(model, plan.apply(model), plan=plan)
    said = "those of odd cannot be counted"
    assert said in str(report)
    assert said in report.to_html()
    assert report.to_dict()["before"] == {
        "macs": None,
        "params": 9 * 12 + 13 * 3,
        "bytes": 4 * (9 * 12 + 13 * 3),
        "uncounted": ["odd"],
    }
    from tf_spline_prune.cli._inspect_command import _facts_of_model, _lines_of_model
    from tf_spline_prune.cli._parsing import as_json

    facts = _facts_of_model(model)
    assert f"MACs not known ({said})" in _lines_of_model(facts)[0]
    assert json.loads(as_json(facts))["cost"]["uncounted"] == ["odd"]


def test_no_multiplications_at_all(K):
    L = K.layers
    model = K.Sequential([K.Input((4,)), L.Embedding(10, 6), L.Dense(6), L.Flatten()])
    inputs = K.Input((4,))
    table = K.Model(inputs, L.GlobalAveragePooling1D()(L.Embedding(10, 6)(inputs)))
    assert tsp.cost(table).macs == 0
    with pytest.raises(BudgetError, match="no macs, so there is nothing to save"):
        tsp.plan(table, target_macs=0.5)
    assert tsp.cost(model).macs == 4 * 6 * 6


def test_counting_leaves_the_model_as_it_was(K):
    class Noted(K.layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")
            self.built = True

        def call(self, x):
            self.add_loss(tf.reduce_sum(x) if K is not keras else keras.ops.sum(x))
            return x @ self.matrix

    inputs = K.Input(batch_shape=(2, 3, 5))
    x = K.layers.RNN([K.layers.GRUCell(4), K.layers.GRUCell(4)], stateful=True)(inputs)
    model = K.Model(inputs, Noted(name="noted")(x))
    data = np.ones((2, 3, 5), "float32")
    model(data)
    held = [w.copy() for w in model.get_weights()]
    states = [np.array(w) for w in model.layers[1].weights]
    assert tsp.cost(model).macs == 3 * (5 * 12 + 3 * 4 * 12) + 4 * 4
    for before, after in zip(held, model.get_weights(), strict=True):
        assert np.array_equal(before, after)
    for before, after in zip(states, model.layers[1].weights, strict=True):
        assert np.array_equal(before, np.array(after))
    assert np.isfinite(np.array(model.layers[-1].losses)).all()
