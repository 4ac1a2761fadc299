"""Which criterion is taken where the user names none."""

import numpy as np

import tf_spline_prune as tsp


def attention(K):
    inputs = K.Input((6, 16))
    x = K.layers.LayerNormalization()(inputs)
    x = K.layers.MultiHeadAttention(4, 8, name="heads")(x, x)
    x = K.layers.GlobalAveragePooling1D()(K.layers.Add()([inputs, x]))
    return K.Model(inputs, K.layers.Dense(3)(x))


def perceptron(K):
    inputs = K.Input((6, 16))
    x = K.layers.Dense(12, activation="relu")(inputs)
    return K.Model(inputs, K.layers.Dense(3)(x))


X = np.random.default_rng(0).standard_normal((48, 6, 16)).astype("float32")


def test_data_never_put_a_target_out_of_reach(K):
    """Heads are read only inside their layer, where no tensor is looked at."""
    model = attention(K)
    plan = tsp.plan(model, target_macs=0.5, data=X)
    assert plan.criterion == "reconstruction" and "heads/heads" in plan.removed
    assert tsp.cost(plan.apply(model)).macs <= 0.5 * tsp.cost(model).macs


def test_without_data_the_splines_are_compared(K):
    assert tsp.plan(perceptron(K), target_macs=0.5).criterion == "spline"


def test_sensitivity_skips_no_group(K):
    model = attention(K)
    result = tsp.sensitivity(model, X, lambda small: 0.0, shares=(0.5,))
    assert result.criterion == "reconstruction"
    assert set(result.metrics) == {g.name for g in tsp.ChannelGraph(model).groups}
