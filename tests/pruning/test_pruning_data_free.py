"""`refit_data_free`: what BatchNormalization has seen stands in for data."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import sample_inputs, trace
from tf_spline_prune.errors import CalibrationError, PlanError

SEED = 3


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def drawn(model, count=256, seed=SEED):
    (inputs,) = sample_inputs(trace(model), count, seed)
    return inputs


def settled(model, seed=0):
    """Let BatchNormalization know smooth pictures, other than those to be drawn."""
    return tsp.recalibrate_batchnorm(model, drawn(model, 400, seed + 100))


def outputs(model, x):
    return np.asarray(model(x, training=False))


def planned(model, sparsity=0.4):
    plan = tsp.plan(model, "random", sparsity=sparsity, scope="layer")
    return plan, plan.apply(model)


def test_it_is_least_squares_where_the_statistics_are_those_of_what_is_drawn(K):
    model = zoo.vgg(K)
    model = tsp.recalibrate_batchnorm(model, drawn(model))
    plan, small = planned(model)
    found = tsp.refit_data_free(model, small, plan, seed=SEED)
    want = tsp.least_squares(model, small, plan, drawn(model), seed=SEED)
    for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4 * np.abs(two).max())


def test_the_statistics_follow_what_is_drawn_not_the_other_way_round(K):
    """So it does not matter in which units a layer computes."""
    L = K.layers
    model = K.Sequential(
        [
            K.Input((8, 8, 2)),
            L.Conv2D(12, 3, use_bias=False, name="first"),
            L.BatchNormalization(name="norm", epsilon=1e-9),
            L.ReLU(),
            L.Conv2D(10, 3, name="second"),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(4, name="head"),
        ]
    )
    model = settled(zoo.settle(model))
    other = K.models.clone_model(model)
    other.set_weights(model.get_weights())
    other.get_layer("first").set_weights([50 * model.get_layer("first").kernel.numpy()])
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    other.get_layer("norm").set_weights([gamma, beta, 50 * mean, 2500 * variance])
    x = points(20, 8, 8, 2)
    np.testing.assert_allclose(outputs(model, x), outputs(other, x), atol=1e-4)
    plan, small = planned(model)
    same = plan.apply(other)
    one = tsp.refit_data_free(model, small, plan)
    two = tsp.refit_data_free(other, same, plan)
    np.testing.assert_allclose(outputs(one, x), outputs(two, x), atol=1e-3)
    assert np.abs(outputs(one, x) - outputs(small, x)).max() > 0.01


@pytest.mark.parametrize("net", [zoo.vgg, zoo.resnet])
def test_it_gives_back_a_part_of_what_is_lost(K, net):
    model = settled(net(K))
    plan, small = planned(model, 0.3)
    x = drawn(model, 200, seed=7)
    whole, spread = outputs(model, x), outputs(model, x).std()
    real = tsp.least_squares(model, small, plan, drawn(model, 256, seed=8))
    free = tsp.refit_data_free(model, small, plan)
    bare, free, real = (
        np.sqrt(np.mean((outputs(one, x) - whole) ** 2)) / spread
        for one in (small, free, real)
    )
    assert free < 0.7 * bare, (bare, free, real)
    assert free < 1.2 * real, (bare, free, real)


def test_prune_and_rounds_do_it(K):
    model = settled(zoo.vgg(K))
    plan = tsp.plan(model, sparsity=0.4)
    plain = plan.apply(model)
    merged = plan.apply(tsp.merge(model, plan))
    found = tsp.prune(model, sparsity=0.4, recover=["merge", "data_free"])
    rounds = tsp.prune_in_rounds(model, sparsity=0.4, rounds=1, recover="data_free")
    for one, start in ((found, merged), (rounds[0], plain)):
        want = tsp.refit_data_free(model, start, plan)
        for a, b in zip(one.get_weights(), want.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_else_changes(K):
    model = settled(zoo.vgg(K))
    plan, small = planned(model)
    before = [one.copy() for one in (*model.get_weights(), *small.get_weights())]
    found = tsp.refit_data_free(model, small, plan, num_inputs=80, seed=1)
    again = tsp.refit_data_free(model, small, plan, num_inputs=80, seed=1)
    after = [*model.get_weights(), *small.get_weights()]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(found.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    first = trace(model).calls[0].layer.name  # which lost no inputs
    for one, two in zip(
        found.get_layer(first).get_weights(),
        small.get_layer(first).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_ids_are_drawn_where_there_are_ids(K):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((16,), dtype="int32"),
            L.Embedding(50, 12),
            L.Conv1D(16, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.Conv1D(8, 3, activation="relu"),
            L.GlobalAveragePooling1D(),
            L.Dense(3),
        ]
    )
    model = settled(zoo.settle(model))
    plan, small = planned(model)
    x = np.random.default_rng(5).integers(0, 50, (100, 16))
    free = tsp.refit_data_free(model, small, plan)
    whole = outputs(model, x)
    bare, free = (np.abs(outputs(one, x) - whole).mean() for one in (small, free))
    assert free < 0.7 * bare


def test_without_batch_normalization_there_is_nothing_to_go_by(K):
    model = zoo.mlp(K)
    plan, small = planned(model)
    ways = [
        lambda: tsp.refit_data_free(model, small, plan),
        lambda: tsp.prune(model, sparsity=0.4, recover="data_free"),
        lambda: tsp.prune_in_rounds(model, sparsity=0.4, recover=["data_free"]),
    ]
    for way in ways:
        with pytest.raises(CalibrationError, match="the model has none"):
            way()


def test_a_model_that_the_plan_does_not_make(K):
    model = settled(zoo.vgg(K))
    plan, _ = planned(model)
    with pytest.raises(PlanError, match="not what the plan makes"):
        tsp.refit_data_free(model, model, plan)
