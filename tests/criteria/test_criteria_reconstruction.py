"""Losses against brute force: every unit left out in turn, weights solved again."""

import itertools

import numpy as np
import pytest
import zoo
from criteria_models import prepared, weight

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.criteria import _reconstruction as reconstruction
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.pruning.planning._budget import Budget
from tf_spline_prune.pruning.planning._ranking import rankings_of, weighed


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def tensor(K, model, layer, x):
    """Give what goes into a layer, one row a position."""
    found = K.Model(model.input, model.get_layer(layer).input)(x, training=False)
    found = np.asarray(found).astype("float64")
    return found.reshape(-1, found.shape[-1])


def residual(rows, outputs, units):
    """What is left of the outputs, however the weights of the units are chosen."""
    if not len(units):
        return (outputs**2).sum()
    weights = np.linalg.lstsq(rows[:, units], outputs, rcond=None)[0]
    return ((outputs - rows[:, units] @ weights) ** 2).sum()


def with_noise(rows, ridge):
    """Centre rows, and add noise to every unit: as further rows, one a unit."""
    rows = (rows - rows.mean(axis=0)) / np.sqrt(len(rows))
    noise = np.sqrt(ridge * (rows**2).sum() / rows.shape[1])
    return np.concatenate([rows, noise * np.eye(rows.shape[1])])


def greedy(readers):
    """Take units away by trying each; gives the order and what is lost with each."""
    left = list(range(readers[0][0].shape[1]))
    whole = [
        (rows @ weights, ((rows @ weights) ** 2).sum()) for rows, weights in readers
    ]
    order, losses = [], []
    while left:
        found = []
        for unit in left:
            others = [one for one in left if one != unit]
            found.append(
                sum(
                    (residual(rows, y, others) - residual(rows, y, left)) / energy
                    for (rows, _), (y, energy) in zip(readers, whole, strict=True)
                )
            )
        best = int(np.argmin(found))
        losses.append(found[best])
        order.append(left.pop(best))
    return order, np.maximum.accumulate(losses)


def agrees(criterion, group, readers):
    scores = criterion.scores(group)
    order, losses = greedy(readers)
    assert np.argsort(scores, kind="stable").tolist() == order
    np.testing.assert_allclose(scores[order], losses, rtol=1e-3, atol=1e-6)


def dense(K, units=7, readers=1):
    L = K.layers
    inputs = K.Input((5,))
    x = L.Dense(units, activation="relu", name="one")(inputs)
    found = [L.Dense(3 + i, name=f"reader{i}")(x) for i in range(readers)]
    x = L.Concatenate()(found) if readers > 1 else found[0]
    return zoo.settle(K.Model(inputs, L.Dense(2, name="head")(L.ReLU()(x))), seed=2)


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_dense_readers(K, ridge, readers):
    model, x = dense(K, readers=readers), points(80, 5)
    criterion = criteria.Reconstruction(ridge=ridge, batch_size=33)
    group = prepared(model, criterion, x)["one"]
    rows = with_noise(tensor(K, model, "reader0", x), ridge)
    agrees(
        criterion,
        group,
        [(rows, weight(model, f"reader{i}", "kernel")) for i in range(readers)],
    )


def test_the_first_loss_is_the_unexplained_variance(K):
    model, x = dense(K), points(200, 5)
    criterion = criteria.Reconstruction(ridge=1e-7)
    group = prepared(model, criterion, x)["one"]
    scores = criterion.scores(group)
    rows = tensor(K, model, "reader0", x)
    rows = rows - rows.mean(axis=0)
    y = rows @ weight(model, "reader0", "kernel")
    shares = [
        residual(rows, y, [one for one in range(7) if one != unit]) / (y**2).sum()
        for unit in range(7)
    ]
    assert scores.argmin() == np.argmin(shares)
    np.testing.assert_allclose(scores.min(), min(shares), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("reader", ["conv", "flatten"])
def test_readers_of_many_positions(K, reader):
    """Positions are rows; the weights of a unit at all of them count."""
    L = K.layers
    x = inputs = K.Input((4, 3, 2))
    x = L.Conv2D(6, 2, padding="same", activation="relu", name="one")(x)
    if reader == "conv":
        x = L.Conv2D(5, (2, 3), activation="relu", name="reader")(x)
    x = L.Flatten(name="flat")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)), seed=2)
    x = points(20, 4, 3, 2)
    criterion = criteria.Reconstruction()
    group = prepared(model, criterion, x)["one"]
    if reader == "conv":
        rows = tensor(K, model, "reader", x)
        weights = weight(model, "reader", "kernel")
    else:
        rows = tensor(K, model, "flat", x)
        weights = weight(model, "head", "kernel").reshape(12, 6, 3)
    weights = np.moveaxis(weights.reshape(-1, 6, weights.shape[-1]), 1, 0)
    agrees(criterion, group, [(with_noise(rows, 1e-3), weights.reshape(6, -1))])


def test_a_layer_used_twice_reads_twice(K):
    L = K.layers
    inputs = [K.Input((5,)), K.Input((5,))]
    makers = [L.Dense(6, activation="relu", name=f"make{i}") for i in range(2)]
    reader = L.Dense(4, name="reader")
    x = [reader(make(one)) for make, one in zip(makers, inputs, strict=True)]
    x = L.Dense(2, name="head")(L.ReLU()(L.Concatenate()(x)))
    model = zoo.settle(K.Model(inputs, x), seed=2)
    data = [points(60, 5), points(60, 5, seed=1)]
    criterion = criteria.Reconstruction()
    groups = prepared(model, criterion, data)
    (group,) = (one for name, one in groups.items() if name.startswith("make"))
    readers = [
        (
            with_noise(
                np.maximum(
                    x @ weight(model, f"make{i}", "kernel")
                    + weight(model, f"make{i}", "bias"),
                    0,
                ),
                1e-3,
            ),
            weight(model, "reader", "kernel"),
        )
        for i, x in enumerate(data)
    ]
    agrees(criterion, group, readers)


def test_of_two_twins_one_is_free(K):
    model = dense(K)
    kernel, bias = model.get_layer("one").get_weights()
    kernel[:, 5], bias[5] = 3 * kernel[:, 2], 3 * bias[2]
    model.get_layer("one").set_weights([kernel, bias])
    criterion = criteria.Reconstruction(ridge=1e-6)
    group = prepared(model, criterion, points(100, 5))["one"]
    scores = criterion.scores(group)
    pair = sorted(scores[[2, 5]])
    assert pair[0] < 1e-5
    assert pair[1] > 1e-3
    assert scores.min() == pair[0]


def test_silent_units_go_first_and_a_silent_reader_loses_nothing(K):
    model = dense(K, readers=2)
    kernel, bias = model.get_layer("one").get_weights()
    bias[4] = -1000.0
    kernel[:, 3], bias[3] = 0.0, 2.0  # a constant: the reader's bias makes up for it
    model.get_layer("one").set_weights([kernel, bias])
    kernel, bias = model.get_layer("reader1").get_weights()
    model.get_layer("reader1").set_weights([0 * kernel, bias])
    criterion = criteria.Reconstruction()
    x = points(100, 5)
    group = prepared(model, criterion, x)["one"]
    scores = criterion.scores(group)
    assert set(np.argsort(scores)[:2]) == {3, 4}
    rows = with_noise(tensor(K, model, "reader0", x), 1e-3)
    agrees(criterion, group, [(rows, weight(model, "reader0", "kernel"))])


def test_many_units_go_in_blocks(K):
    """Of 300 pairs, the first 300 to go are one of each."""
    model = dense(K, units=600)
    kernel, bias = points(5, 300), points(300, seed=1)
    model.get_layer("one").set_weights([np.tile(kernel, 2), np.tile(bias, 2)])
    criterion = criteria.Reconstruction(ridge=1e-5)
    group = prepared(model, criterion, points(900, 5))["one"]
    order = np.argsort(criterion.scores(group))
    assert len(set(order)) == 600
    # Some single units are nearly a function of others too.
    first = order[:200] % 300
    assert len(set(first)) == 200


def test_units_go_in_place():
    """In blocks of any size, what is left is what solving it anew gives."""
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(100, 30)), rng.normal(size=(30, 5))
    covariance = rows.T @ rows / 100
    reader = reconstruction._Consumer(covariance.copy(), weights @ weights.T)
    stays = np.ones(30, bool)
    for block in ([17, 3, 9], [0], [29, 28]):
        reader.remove(block)
        stays[block] = False
        rest = np.flatnonzero(stays)
        inverse = np.linalg.inv(covariance[np.ix_(rest, rest)])
        solved = inverse @ covariance[rest] @ weights
        losses = np.square(solved).sum(axis=1) / np.diag(inverse) / reader.energy
        np.testing.assert_allclose(reader.losses()[rest], losses, rtol=1e-10)
        assert not reader.losses()[~stays].any()
        part = reader.part(rest[::2])
        np.testing.assert_allclose(part.losses(), losses[::2], rtol=1e-10)


@pytest.mark.parametrize("copies", [2, 6])
def test_copies_never_go_all_at_once(monkeypatch, copies):
    monkeypatch.setattr(reconstruction, "_ONE_BY_ONE", 1)
    monkeypatch.setattr(reconstruction, "_AT_ONCE", 4)  # eight of 32 at a time
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 32))
    rows[:, :copies] = rows[:, :1]
    weights = rng.normal(size=(32, 3))
    covariance = np.cov(rows.T, bias=True)
    covariance = reconstruction._with_noise(covariance, 1e-6)
    reader = reconstruction._Consumer(covariance, weights @ weights.T)
    scores = reconstruction._eliminate([reader], 32)
    assert (np.sort(scores[:copies])[:-1] < 1e-4).all()
    assert scores[:copies].max() > 1e-3
    order = np.argsort(scores)
    # Each loss is known exactly when the unit goes, given those before it.
    noisy = with_noise(rows, 1e-6)
    y = noisy @ weights
    lost = [residual(noisy, y, order[i:]) / (y**2).sum() for i in range(33)]
    np.testing.assert_allclose(
        scores[order], np.maximum.accumulate(np.diff(lost)), rtol=1e-4, atol=1e-8
    )


def test_what_cannot_be_scored(K, monkeypatch):
    model = dense(K)
    for data in ({}, {"data": None}):
        with pytest.raises(CalibrationError, match="'reconstruction'.*data=x_train"):
            tsp.plan(model, "reconstruction", sparsity=0.3, **data)
    for wrong in ({"ridge": 0.0}, {"ridge": float("nan")}, {"batch_size": 0}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            criteria.Reconstruction(**wrong)


def test_more_units_than_pairs_fit(K, monkeypatch):
    monkeypatch.setattr(reconstruction, "_MOST_UNITS", 6)
    model, x = dense(K), points(30, 5)
    criterion = criteria.Reconstruction()
    groups = prepared(model, criterion, x)
    made = np.square(model.get_layer("one").get_weights()[0]).sum(0)
    read = [
        np.square(layer.get_weights()[0]).sum(1)
        for layer in model.layers
        if layer.name.startswith("reader")
    ]
    expected = made * np.sum(read, axis=0)
    np.testing.assert_allclose(
        criterion.scores(groups["one"]), expected / expected.sum(), rtol=1e-5
    )


def test_a_head_that_the_projection_hardly_reads_goes_first(K):
    L = K.layers
    inputs = K.Input((4, 6))
    x = L.MultiHeadAttention(4, 3, name="attention")(inputs, inputs)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    layer = model.get_layer("attention")
    out = [w for w in layer.weights if tuple(w.shape) == (4, 3, 6)]
    out[-1].assign(np.array(out[-1]) * np.reshape([1, 1e-3, 1, 1], (4, 1, 1)))
    plan = tsp.plan(
        model, "reconstruction", data=points(10, 4, 6), sparsity={"attention": 0.25}
    )
    assert plan.removed["attention/heads"] == [1]
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-4


def test_by_name_in_plans(K):
    x = points(40, *zoo.SHAPE)
    model = zoo.resnet(K)
    plan = tsp.plan(model, "reconstruction", target_macs=0.6, data=x)
    assert plan.criterion == "reconstruction"
    expected = {"ridge": 1e-3, "batch_size": 32, "max_inputs": 2048}
    assert plan.criterion_config == expected
    assert tsp.cost(plan.apply(model)).macs <= 0.6 * tsp.cost(model).macs
    again = tsp.plan(model, criteria.Reconstruction(), target_macs=0.6, data=x)
    assert again.removed == plan.removed


def test_losses_are_weighed_against_savings(K):
    model = zoo.resnet(K)
    graph = tsp.ChannelGraph(model)
    criterion = criteria.Magnitude()
    criterion.prepare(graph)
    rankings = rankings_of(criterion, graph.groups)
    full = tsp.cost(model)
    costs = [
        tsp.cost(tsp.remove_units(model, {group.makers[0]: [0]}))
        for group in graph.groups
    ]
    for target in ("macs", "params", "bytes"):
        budget = Budget.of(**{f"target_{target}": 0.5})
        found = weighed(graph, graph.groups, rankings, budget)
        for cost, old, new in zip(costs, rankings, found, strict=True):
            share = 1 - getattr(cost, target) / getattr(full, target)
            np.testing.assert_allclose(new.keys, old.keys / share, rtol=1e-9)
            np.testing.assert_array_equal(new.order, old.order)


def test_units_that_hardly_vary_about_a_large_mean(K):
    """In float32 their plain products are all rounding."""
    L = K.layers
    i = K.Input((8,))
    wide = L.Dense(200, activation="relu", name="wide", bias_initializer="ones")
    model = K.Model(i, L.Dense(5)(wide(i)))
    x = 1e-3 * np.random.default_rng(0).standard_normal((70, 8)).astype("float32")
    criterion = criteria.Reconstruction(batch_size=32)
    group = prepared(model, criterion, x)["wide"]
    ((reading,),) = criterion._readings.values()
    moments = criterion._moments[reading]
    seen = np.float64(np.maximum(np.asarray(wide(x)), 0))
    assert moments[-1, -1] == 70
    np.testing.assert_allclose(moments[:-1, -1], seen.mean(axis=0), rtol=1e-6)
    found, expected = moments[:-1, :-1] / 70, np.cov(seen.T, bias=True)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    plain = np.float32(seen).T @ np.float32(seen) / 70
    plain -= np.outer(plain.mean(0), plain.mean(0))
    assert np.abs(plain - expected).max() > np.abs(expected).max()
    assert np.all(np.isfinite(criterion.scores(group)))


def test_units_that_go_are_the_best_of_all_choices():
    """Among ten units every choice is tried."""
    from tf_spline_prune.criteria._reconstruction import (
        _Consumer,
        _eliminate,
        _exchanged,
    )

    def loss(covariance, products, gone):
        kept = np.setdiff1d(np.arange(len(covariance)), gone)
        across = covariance[np.ix_(gone, kept)]
        made = np.linalg.solve(covariance[np.ix_(kept, kept)], across.T)
        left = covariance[np.ix_(gone, gone)] - across @ made
        return np.sum(products[np.ix_(gone, gone)] * left)

    greedy, exchanged = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mixed = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 10))
        x = np.maximum(
            mixed + 0.5 * rng.normal(size=(400, 10)) + rng.normal(size=10), 0
        )
        weights = rng.normal(size=(10, rng.integers(3, 12)))
        covariance = np.cov(x.T)
        covariance += 1e-3 * np.trace(covariance) / 10 * np.eye(10)
        scores = _eliminate([_Consumer(covariance.copy(), weights @ weights.T)], 10)
        aims = covariance @ weights
        seen = [(covariance, aims @ aims.T / np.vdot(weights, aims))]
        for count in (3, 5, 7):
            choices = itertools.combinations(range(10), count)
            products = weights @ weights.T
            best = min(loss(covariance, products, list(gone)) for gone in choices)
            first = np.argsort(scores, kind="stable")[:count]
            found = _exchanged(seen, first, rng)
            greedy.append(loss(covariance, products, first) / best)
            exchanged.append(loss(covariance, products, found) / best)
    assert max(greedy) > 1.03  # else there is nothing to exchange
    assert max(exchanged) < 1.02
