"""Activity at the readers against a forward pass written in NumPy and Keras layers."""

import numpy as np
import pytest
import zoo
from criteria_models import applies, examples, prepared, small_residual

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.errors import CalibrationError


def read_tensors(K, model, x):
    """Give what `inner` and the head read of the stem, and `branch` of `inner`."""
    convolutions = [one for one in model.layers if one.name in ("inner", "branch")]
    pool = next(one for one in model.layers if "pool" in one.name)
    outputs = [one.input for one in convolutions] + [pool.output]
    found = K.Model(model.input, outputs)(x, training=False)
    return [np.asarray(one).astype("float64") for one in found]


STATISTICS = {"mean": np.abs, "apoz": lambda tensor: tensor != 0}


@pytest.mark.parametrize("size", [5, 64])
@pytest.mark.parametrize("statistic", list(STATISTICS))
def test_scores(K, statistic, size):
    model = small_residual(K)
    x, _ = examples()
    stem, inner, pooled = (
        STATISTICS[statistic](one).mean(axis=(0, 1, 2))
        for one in read_tensors(K, model, x)
    )
    criterion = criteria.Activation(statistic, batch_size=size, normalizer="none")
    groups = prepared(model, criterion, x)
    np.testing.assert_allclose(criterion.scores(groups["inner"]), inner, rtol=1e-5)
    found = criterion.scores(groups["stem"])
    np.testing.assert_allclose(found, (stem + pooled) / 2, rtol=1e-5)
    for reduction, want in {
        "sum": stem + pooled,
        "max": np.maximum(stem, pooled),
        "first": stem,
    }.items():
        criterion.reduction = reduction
        np.testing.assert_allclose(criterion.scores(groups["stem"]), want, rtol=1e-5)
    criterion.reduction, criterion.normalizer = "mean", "max"
    want = (stem / stem.max() + pooled / pooled.max()) / 2
    np.testing.assert_allclose(criterion.scores(groups["stem"]), want, rtol=1e-5)


def test_units_that_are_never_active_go_first(K):
    model = small_residual(K)
    kernel, bias = model.get_layer("inner").get_weights()
    bias[3] = -1000.0
    model.get_layer("inner").set_weights([kernel, bias])
    for statistic in STATISTICS:
        criterion = criteria.Activation(statistic)
        groups = prepared(model, criterion, examples()[0])
        assert criterion.scores(groups["inner"])[3] == 0


@pytest.mark.parametrize("build", [zoo.nested, zoo.subclassed, zoo.densenet])
def test_plans(K, build):
    x = np.random.default_rng(0).standard_normal((6, *zoo.SHAPE)).astype("float32")
    applies(build(K), "activation", x)


def test_several_inputs_and_masks(K):
    """Masks among the arguments are not mistaken for what is read."""
    L = K.layers
    words, numbers = K.Input((7,), dtype="int32"), K.Input((7, 3))
    x = L.Embedding(9, 6, mask_zero=True, name="words")(words)
    x = L.Concatenate()([x, L.Dense(5, name="numbers")(numbers)])
    x = L.Dense(8, activation="relu", name="mix")(x)
    x = L.LSTM(4, name="lstm")(x)
    model = zoo.settle(K.Model([words, numbers], L.Dense(2, name="head")(x)))
    rng = np.random.default_rng(0)
    data = [rng.integers(0, 9, (6, 7)), rng.standard_normal((6, 7, 3))]
    criterion = criteria.Activation(normalizer="none")
    groups = prepared(model, criterion, data)
    numbers = model.get_layer("numbers")(data[1].astype("float32"))
    table = model.get_layer("words").get_weights()[0]
    mixed = np.concatenate([table[data[0]], np.asarray(numbers)], axis=-1)
    kernel, bias = model.get_layer("mix").get_weights()
    want = np.maximum(mixed @ kernel + bias, 0).mean(axis=(0, 1))
    np.testing.assert_allclose(criterion.scores(groups["mix"]), want, rtol=1e-4)
    if "numbers" in groups:  # Keras 3 joins the masks by operations that bar them
        found = criterion.scores(groups["numbers"])
        want = np.abs(np.asarray(numbers)).mean(axis=(0, 1))
        np.testing.assert_allclose(found, want, rtol=1e-4)


def test_units_that_nobody_else_reads(K):
    L = K.layers
    inputs = K.Input((6, 8))
    x = L.MultiHeadAttention(2, 4, name="mha")(inputs, inputs)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    criterion = criteria.Activation()
    groups = prepared(model, criterion, np.ones((2, 6, 8), "float32"))
    # Keys meet queries; they enter no weights.
    assert "needs a layer that consumes" in criterion.reason_against(
        groups["mha/key_dim"]
    )
    assert criterion.reason_against(groups["mha/heads"]) is None
    assert criterion.reason_against(groups["mha"]) is None


def test_wrong_arguments(K):
    with pytest.raises(ValueError, match="'median'"):
        criteria.Activation("median")
    with pytest.raises(ValueError, match="batch_size=0"):
        criteria.Activation(batch_size=0)
    with pytest.raises(CalibrationError, match="`data=x`"):
        tsp.plan(small_residual(K), "activation", sparsity=0.2)
