"""Heads by what the projection out of them reads, against float64 NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo
from attention_reference import (
    HEADS,
    KINDS,
    SIZE,
    STEPS,
    WIDTH,
    attention_model,
    heads_group,
    heads_of,
    inner_weights,
    units_of,
)
from criteria_models import prepared

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.criteria import _reconstruction as reconstruction
from tf_spline_prune.errors import CalibrationError


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def blocks_of(model, kind, x, causal=False):
    """Return rows of what is read and the weights, a block of columns for each unit."""
    z = heads_of(model, x, causal)
    kernel = inner_weights(model)["out"][0]
    units = units_of(kind)
    rows = np.concatenate([z[:, :, u].reshape(z[..., 0, 0].size, -1) for u in units], 1)
    weights = np.concatenate([kernel[u].reshape(-1, kernel.shape[-1]) for u in units])
    return rows, weights, rows.shape[1] // len(units)


def left_over(rows, outputs, columns):
    """What no weights of these columns, and no bias, can make of the outputs."""
    outputs = outputs - outputs.mean(axis=0)
    rows = (rows - rows.mean(axis=0))[:, columns]
    if not len(columns):
        return np.square(outputs).sum()
    found = np.linalg.lstsq(rows, outputs, rcond=None)[0]
    return np.square(outputs - rows @ found).sum()


def columns_of(units, each):
    return np.concatenate([[]] + [u * each + np.arange(each) for u in units]).astype(
        int
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_heads_are_those_of_brute_force(kind, causal):
    """Each head is dropped, the projection solved again, and the error measured."""
    if causal and kind == "EinsumDense":
        pytest.skip("it has no mask")
    model, x = attention_model(keras, kind, causal), points(200, STEPS, WIDTH)
    criterion = criteria.Reconstruction(ridge=1e-9)
    group = heads_group(prepared(model, criterion, x), kind)
    scores = criterion.scores(group)
    rows, weights, each = blocks_of(model, kind, x, causal)
    outputs = rows @ weights
    energy = left_over(rows, outputs, columns_of([], each))
    left, losses, order = list(range(group.num_units)), [], []
    while left:
        lost = [
            left_over(rows, outputs, columns_of([o for o in left if o != u], each))
            for u in left
        ]
        best = int(np.argmin(lost))
        losses.append(lost[best] - left_over(rows, outputs, columns_of(left, each)))
        order.append(left.pop(best))
    assert np.argsort(scores).tolist() == order
    want = np.maximum.accumulate(losses) / energy
    np.testing.assert_allclose(scores[order], want, rtol=1e-4)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "EinsumDense"])
def test_the_heads_that_go_are_better_than_others(kind):
    """After the projection is solved again: than the smallest, and than drawn ones."""
    ours, smallest, drawn = [], [], []
    for seed in range(4):
        model, x = attention_model(keras, kind), points(200, STEPS, WIDTH, seed=seed)
        zoo.settle(model, seed)
        rows, weights, each = blocks_of(model, kind, x)
        outputs = rows @ weights
        whole = left_over(rows, outputs, [])

        def error(gone):
            kept = [unit for unit in range(HEADS) if unit not in gone]
            return left_over(rows, outputs, columns_of(kept, each)) / whole  # noqa: B023

        for criterion, found in (
            (criteria.Reconstruction(), ours),
            (criteria.Magnitude(), smallest),
        ):
            group = heads_group(prepared(model, criterion, x), kind)
            found.append(error(np.argsort(criterion.scores(group))[:2].tolist()))
        drawn.append(np.mean([*map(error, itertools.combinations(range(HEADS), 2))]))
    assert np.mean(ours) < 0.9 * np.mean(smallest)
    assert np.mean(ours) < 0.8 * np.mean(drawn)


def test_dimensions_of_values_go_over_all_heads():
    model, x = attention_model(keras, "MultiHeadAttention"), points(200, STEPS, WIDTH)
    criterion = criteria.Reconstruction(ridge=1e-9)
    group = prepared(model, criterion, x)["attention/value_dim"]
    z = heads_of(model, x)
    rows = z.swapaxes(2, 3).reshape(-1, 2 * HEADS)
    kernel = inner_weights(model)["out"][0].swapaxes(0, 1).reshape(2 * HEADS, WIDTH)
    outputs = rows @ kernel
    lost = [left_over(rows, outputs, columns_of([1 - u], HEADS)) for u in range(2)]
    scores, energy = criterion.scores(group), left_over(rows, outputs, [])
    np.testing.assert_allclose(scores.min(), min(lost) / energy, rtol=1e-4)
    assert scores.argmin() == np.argmin(lost)


def test_the_loss_is_what_least_squares_reaches():
    """The projection that the recovery solves leaves just what the score says."""
    model, x = attention_model(keras, "MultiHeadAttention"), points(200, STEPS, WIDTH)
    criterion = criteria.Reconstruction(ridge=1e-9)
    group = prepared(model, criterion, x)["attention/heads"]
    scores = criterion.scores(group)
    head = int(scores.argmin())
    plan = tsp.plan(model, criterion, data=x, sparsity={"attention/heads": 0.25})
    assert plan.removed["attention/heads"] == [head]
    small = tsp.least_squares(
        model, plan.apply(model), plan, x, ridge=0, max_rows=10**6
    )
    full, found = (
        np.asarray(keras.Model(m.input, m.get_layer("attention").output)(x), "float64")
        for m in (model, small)
    )
    error = np.square(found - full).sum()
    varies = np.square(full - full.mean(axis=(0, 1))).sum()
    np.testing.assert_allclose(error / varies, scores[head], rtol=1e-3)


@pytest.mark.parametrize("size", [7, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_activity_of_heads(kind, size):
    model, x = attention_model(keras, kind), points(30, STEPS, WIDTH)
    z = np.abs(heads_of(model, x))
    by_input = np.sqrt(np.square(z.mean(axis=1)).sum(axis=0))  # (heads, dims)
    want = {
        "l2": [np.linalg.norm(by_input[unit]) for unit in units_of(kind)],
        "mean": [z[:, :, unit].mean() for unit in units_of(kind)],
        "apoz": [1.0 for unit in units_of(kind)],
    }
    for statistic, scores in want.items():
        one = criteria.Activation(statistic, batch_size=size, normalizer="none")
        group = heads_group(prepared(model, one, x), kind)
        np.testing.assert_allclose(one.scores(group), scores, rtol=1e-5)


def gated(K):
    """A gated feed-forward layer: the input of `down` is silu(gate) * up."""
    L = K.layers
    inputs = K.Input((STEPS, WIDTH))
    gate = L.Activation("silu")(L.Dense(8, name="gate")(inputs))
    x = L.Multiply(name="both")([gate, L.Dense(8, name="up")(inputs)])
    x = L.Add()([inputs, L.Dense(WIDTH, name="down")(x)])
    return zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)), seed=1)


def test_activity_of_gated_neurons():
    model, x = gated(keras), points(30, STEPS, WIDTH)
    z = keras.Model(model.input, model.get_layer("both").output)(x)
    z = np.abs(np.asarray(z, "float64"))
    criterion = criteria.Activation("l2", batch_size=8, normalizer="none")
    group = prepared(model, criterion, x)["gate"]
    want = np.sqrt(np.square(z.mean(axis=1)).sum(axis=0))
    np.testing.assert_allclose(criterion.scores(group), want, rtol=1e-5)


def test_positions_of_one_input_are_averaged_before_they_are_squared():
    """Those of images too, and those that a reshape moves to the batch axis."""
    L = keras.layers
    x = inputs = keras.Input((4, 6, 3))
    x = L.Conv2D(5, 2, padding="same", activation="tanh", name="one")(x)
    x = L.Flatten()(x)
    model = zoo.settle(keras.Model(inputs, L.Dense(2, name="head")(x)))
    data = points(20, 4, 6, 3)
    z = np.asarray(model.get_layer("one")(data), "float64")
    want = np.sqrt(np.square(np.abs(z).mean(axis=(1, 2))).sum(axis=0))
    criterion = criteria.Activation("l2", batch_size=8, normalizer="none")
    group = prepared(model, criterion, data)["one"]
    np.testing.assert_allclose(criterion.scores(group), want, rtol=1e-5)

    inputs = keras.Input((4, 6))
    x = keras.ops.reshape(L.Dense(5, activation="tanh", name="one")(inputs), (-1, 2, 5))
    x = keras.ops.reshape(L.Dense(3, name="two")(x), (-1, 4, 3))
    model = zoo.settle(keras.Model(inputs, L.Dense(2, name="head")(x)))
    data = points(20, 4, 6)
    z = np.asarray(model.get_layer("one")(data), "float64")
    want = np.sqrt(np.square(np.abs(z).mean(axis=1)).sum(axis=0))
    group = prepared(model, criterion, data)["one"]
    np.testing.assert_allclose(criterion.scores(group), want, rtol=1e-5)


class Gate(keras.layers.Layer):
    """Multiplies heads, or neurons, by a variable that is 1."""

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.factors = tf.Variable(tf.ones(shape))

    def call(self, x):
        return x * self.factors


def per_example(model, gates, x, y):
    """Differentiate each example's loss by the gates."""
    found = []
    for one, label in zip(x, y, strict=True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(one[None]) - label[None]))
        found.append([g.numpy() for g in tape.gradient(loss, gates)])
    return [np.array(part, "float64") for part in zip(*found, strict=True)]


def test_derivatives_by_gates_on_heads_and_gated_neurons():
    """A twin with gates of its own in front of what reads the units."""
    L = keras.layers
    inputs = keras.Input((STEPS, WIDTH))
    layer = L.MultiHeadAttention(HEADS, SIZE, value_dim=2, name="attention")
    x = L.Add()([inputs, layer(inputs, inputs)])
    both = L.Multiply()(
        [L.Activation("silu")(L.Dense(8, name="gate")(x)), L.Dense(8, name="up")(x)]
    )
    x = L.Add()([x, L.Dense(WIDTH, name="down")(both)])
    model = zoo.settle(keras.Model(inputs, L.Dense(2, name="head")(x)), seed=1)
    heads, neurons = Gate((HEADS, 1)), Gate((8,))

    def twin(x):
        query, key, value = (
            getattr(layer, f"_{name}_dense")(x) for name in ("query", "key", "value")
        )
        scores = tf.einsum("nthk,nshk->nhts", query, key) / np.sqrt(SIZE)
        z = tf.einsum("nhts,nshv->nthv", tf.nn.softmax(scores), value)
        x = x + layer._output_dense(heads(z))
        both = tf.nn.silu(model.get_layer("gate")(x)) * model.get_layer("up")(x)
        return model.get_layer("head")(x + model.get_layer("down")(neurons(both)))

    x, y = points(20, STEPS, WIDTH), points(20, STEPS, 2, seed=1)
    np.testing.assert_allclose(twin(x), model(x), atol=1e-5)
    found = per_example(twin, [heads.factors, neurons.factors], x, y)
    for name, by in zip(("attention/heads", "gate"), found, strict=True):
        by = by.reshape(len(x), -1)
        taylor = criteria.Taylor(loss="mse", batch_size=8)
        group = prepared(model, taylor, (x, y))[name]
        want = np.abs(by.mean(axis=0))
        np.testing.assert_allclose(taylor.scores(group), want, rtol=1e-3, atol=1e-6)
        fisher = criteria.Fisher(loss="mse")
        group = prepared(model, fisher, (x, y))[name]
        want = np.square(by).mean(axis=0)
        np.testing.assert_allclose(fisher.scores(group), want, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("one", [criteria.Activation("l2"), criteria.Reconstruction()])
def test_heads_in_tf_keras(one):
    """The same weights have the same scores."""
    model, x = attention_model(keras, "MultiHeadAttention"), points(40, STEPS, WIDTH)
    twin = attention_model(tf_keras, "MultiHeadAttention")
    twin.set_weights(model.get_weights())
    found = [
        one.scores(prepared(built, one, x)["attention/heads"])
        for built in (model, twin)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def padded(x, seed=3):
    """Random lengths: which positions count."""
    lengths = np.random.default_rng(seed).integers(1, STEPS + 1, len(x))
    return np.arange(STEPS) < lengths[:, None]


def test_positions_of_padding_do_not_count():
    """Those whose sample weight is 0, to activity, to losses and to the solution."""
    model, x = attention_model(keras, "MultiHeadAttention"), points(200, STEPS, WIDTH)
    real = padded(x)
    data = x, None, real.astype("float32")
    z = heads_of(model, x)
    by_input = (np.abs(z) * real[..., None, None]).sum(1) / real.sum(1)[:, None, None]
    for statistic, want in {
        "l2": np.sqrt(np.square(by_input).sum(axis=(0, 2))),
        "mean": np.abs(z[real]).mean(axis=(0, 2)),
    }.items():
        one = criteria.Activation(statistic, batch_size=33, normalizer="none")
        group = prepared(model, one, data)["attention/heads"]
        np.testing.assert_allclose(one.scores(group), want, rtol=1e-5)

    criterion = criteria.Reconstruction(ridge=1e-9)
    group = prepared(model, criterion, data)["attention/heads"]
    scores = criterion.scores(group)
    rows, kernel = z[real], inner_weights(model)["out"][0]
    outputs = np.einsum("rhk,hkd->rd", rows, kernel)
    lost = [
        left_over(np.delete(rows, one, 1).reshape(len(rows), -1), outputs, range(6))
        for one in range(HEADS)
    ]
    head = int(np.argmin(lost))
    want = lost[head] / np.square(outputs - outputs.mean(axis=0)).sum()
    assert scores.argmin() == head
    np.testing.assert_allclose(scores[head], want, rtol=1e-4)

    plan = tsp.plan(model, criterion, data=data, sparsity={"attention/heads": 0.25})
    small = plan.apply(model)
    solved = tsp.least_squares(model, small, plan, data, ridge=0, max_rows=10**6)
    kept = [one for one in range(HEADS) if one != head]
    seen = rows[:, kept].reshape(len(rows), -1)
    best = np.linalg.lstsq(
        seen - seen.mean(axis=0), outputs - outputs.mean(axis=0), rcond=None
    )[0]
    found = inner_weights(solved)["out"][0]
    np.testing.assert_allclose(found.reshape(best.shape), best, atol=1e-4)


def test_sample_weights_that_do_not_fit():
    model, x = attention_model(keras, "MultiHeadAttention"), points(8, STEPS, WIDTH)
    for weights in (np.zeros((8, STEPS)), np.ones((7, STEPS))):
        with pytest.raises(CalibrationError, match="Sample weights.*Received"):
            tsp.plan(model, "activation", data=(x, None, weights), sparsity=0.2)
    # One for each input weighs examples in training; here all examples count alike.
    plans = [
        tsp.plan(model, "activation", data=data, sparsity=0.2)
        for data in (x, (x, None, np.linspace(0, 1, 8)))
    ]
    assert plans[0].removed == plans[1].removed


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "einsum"])
def test_sizes_of_keys_by_what_they_add_to_scores(kind):
    """Those of values are others here, so that keys are judged alone."""
    L, x = keras.layers, points(50, STEPS, WIDTH)
    inputs = keras.Input((STEPS, WIDTH))
    if kind == "MultiHeadAttention":
        layer = L.MultiHeadAttention(2, 5, value_dim=3, name="attention")
        made, name = layer(inputs, inputs), "attention/key_dim"
        parts = {"query": layer._query_dense, "key": layer._key_dense}
    else:
        parts = {
            name: L.EinsumDense("btd,dnh->btnh", (STEPS, 2, 5), name=name)
            for name in ("query", "key")
        }
        query, key = (part(inputs) for part in parts.values())
        scores = keras.ops.einsum("btnh,bsnh->bnts", query, key)
        made, name = L.Reshape((STEPS, -1))(L.Permute((2, 1, 3))(scores)), "query/h"
    model = keras.Model(inputs, L.Dense(2, name="head")(made))
    zoo.settle(model, seed=1)
    query, key = (np.asarray(part(x), "float64") for part in parts.values())
    products = query[:, :, None] * key[:, None]
    if kind == "MultiHeadAttention":
        products -= products.mean(axis=2, keepdims=True)
    sizes = np.square(products).sum(axis=(0, 1, 2, 3))
    criterion = criteria.Reconstruction(ridge=1e-9, batch_size=16)
    group = prepared(model, criterion, x)[name]
    np.testing.assert_allclose(criterion.scores(group), sizes / sizes.sum(), rtol=1e-5)
    if kind == "MultiHeadAttention":
        one = criteria.Activation()
        group = prepared(model, one, x)[name]
        assert "needs a layer that consumes" in one.reason_against(group)


def test_sizes_of_keys_and_values_in_one():
    """Where they stay equal, what scores lose and what the projection loses add up."""
    model, x = attention_model(keras, "GroupQueryAttention"), points(60, STEPS, WIDTH)
    criterion = criteria.Reconstruction(ridge=1e-9)
    group = prepared(model, criterion, x)["attention/head_dim"]
    weights = inner_weights(model)
    query, key = (
        np.einsum("ntd,dhk->nthk", x.astype("float64"), weights[name][0])
        + weights[name][1]
        for name in ("query", "key")
    )
    products = query[:, :, None] * np.repeat(key, 2, axis=2)[:, None]
    products -= products.mean(axis=2, keepdims=True)
    sizes = np.square(products).sum(axis=(0, 1, 2, 3))
    z, kernel = heads_of(model, x), weights["out"][0]
    outputs = np.einsum("nthk,hkd->ntd", z, kernel).reshape(-1, WIDTH)
    rows = z.reshape(len(outputs), HEADS, SIZE)
    lost = [
        left_over(np.delete(rows, k, 2).reshape(len(rows), -1), outputs, range(8))
        for k in range(SIZE)
    ]
    want = sizes / sizes.sum() + lost / np.square(outputs - outputs.mean(0)).sum()
    scores = criterion.scores(group)
    assert scores.argmin() == want.argmin()
    np.testing.assert_allclose(scores.min(), want.min(), rtol=1e-4)


def test_heads_that_go_are_the_best_of_all_choices():
    """Of four heads two go: of all six pairs, those that are missed least."""
    found, first = [], []
    for seed in range(8):
        model, x = (
            attention_model(keras, "MultiHeadAttention"),
            points(60, STEPS, WIDTH),
        )
        zoo.settle(model, seed)
        criterion = criteria.Reconstruction(ridge=1e-9)
        group = prepared(model, criterion, x)["attention/heads"]
        rows, weights, each = blocks_of(model, "MultiHeadAttention", x)
        outputs = rows @ weights
        error = {
            kept: left_over(rows, outputs, columns_of(kept, each))
            for kept in itertools.combinations(range(HEADS), 2)
        }
        gone = np.argsort(criterion.scores(group))[:2]
        better = criterion.exchanged(group, gone)
        for units, ratios in ((gone, first), (better, found)):
            kept = tuple(np.setdiff1d(range(HEADS), units).tolist())
            ratios.append(error[kept] / min(error.values()))
    assert max(first) > 1.01  # else there is nothing to find
    assert max(found) < 1 + 1e-6


def test_blocks_are_exchanged_where_there_are_too_many_choices(monkeypatch):
    """Eight blocks of two; of all choices of four, those found are near the best."""
    monkeypatch.setattr(reconstruction.math, "comb", lambda *_: 10**12)
    first, found = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(300, 10)) @ rng.normal(size=(10, 16))
        rows += 0.3 * rng.normal(size=rows.shape)
        weights = rng.normal(size=(16, 5))
        outputs, covariance = rows @ weights, np.cov(rows.T, bias=True)
        products = weights @ weights.T
        consumer = reconstruction._Consumer(covariance.copy(), products.copy(), 8)
        gone = np.argsort(reconstruction._eliminate([consumer], 8))[:4]
        aims = covariance @ products @ covariance / np.vdot(products, covariance)
        better = reconstruction._exchange_blocks([(covariance, aims)], gone, 8)
        assert len(np.unique(better)) == 4
        error = {
            kept: left_over(rows, outputs, columns_of(kept, 2))
            for kept in itertools.combinations(range(8), 4)
        }
        for units, ratios in ((gone, first), (better, found)):
            kept = tuple(np.setdiff1d(range(8), units).tolist())
            ratios.append(error[kept] / min(error.values()))
    assert max(first) > 1.1  # else there is nothing to exchange
    assert np.mean(found) - 1 < 0.5 * (np.mean(first) - 1)
