"""Sanity checks: the same profile to the unit, the right weights, the right sums."""

import json
import statistics

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import FlavourError, PlanError


def arrays(model):
    return {
        layer.name: [np.array(w) for w in layer.get_weights()]
        for layer in model.layers
        if layer.get_weights()
    }


def shapes(model):
    return {name: [a.shape for a in given] for name, given in arrays(model).items()}


def kept_columns(full, small):
    """Say which columns of a kernel those of a smaller one are, by their values."""
    full = full.reshape(-1, full.shape[-1]).T
    small = small.reshape(-1, small.shape[-1]).T
    return [int(np.flatnonzero((full == row).all(axis=1))[0]) for row in small]


def collect(models):
    """Make an `evaluate` that keeps the weights of what it is given."""

    def evaluate(model):
        models.append((shapes(model), arrays(model)))
        return float(len(models))

    return evaluate


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet", "mobilenet", "densenet"])
def test_all_models_have_the_tickets_profile(K, name):
    model = getattr(zoo, name)(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    before = arrays(model)
    seen = []
    tsp.sanity_checks(model, plan, collect(seen), num_seeds=2, seed=3)
    ticket = shapes(plan.apply(model))
    assert len(seen) == 1 + 3 * 2  # the ticket once
    assert all(found == ticket for found, _ in seen)
    for layer, given in arrays(model).items():
        for one, other in zip(given, before[layer], strict=True):
            np.testing.assert_array_equal(one, other)


def test_each_kind_is_what_it_says(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    seen = []
    tsp.sanity_checks(model, plan, collect(seen), num_seeds=2)
    full = arrays(model)
    _, ticket = seen[0]
    units = plan.removed["first"]
    assert kept_columns(full["first"][0], ticket["first"][0]) == [
        u for u in range(32) if u not in units
    ]
    # In the order of the run: ticket, random, shuffled, reinitialized; then again.
    random = [seen[1][1], seen[4][1]]
    drawn = [kept_columns(full["first"][0], one["first"][0]) for one in random]
    assert drawn[0] != drawn[1]
    for columns, one in zip(drawn, random, strict=True):
        assert columns == sorted(columns)
        np.testing.assert_array_equal(one["first"][1], full["first"][1][columns])
    shuffled = [seen[2][1], seen[5][1]]
    for one in shuffled:
        for layer in ticket:
            for a, b in zip(one[layer], ticket[layer], strict=True):
                np.testing.assert_array_equal(np.sort(a, None), np.sort(b, None))
        assert (one["first"][0] != ticket["first"][0]).mean() > 0.9
    assert (shuffled[0]["first"][0] != shuffled[1]["first"][0]).mean() > 0.9
    fresh = [seen[3][1], seen[6][1]]
    for one in fresh:
        assert not np.isin(one["first"][0], full["first"][0]).any()
        assert not one["first"][1].any()  # biases begin at zero
    assert (fresh[0]["first"][0] != fresh[1]["first"][0]).all()


def test_statistics_and_frozen_weights_are_not_shuffled(K):
    model = zoo.vgg(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    model.get_layer("b1_conv").trainable = False
    seen = []
    tsp.sanity_checks(model, plan, collect(seen), num_seeds=1)
    ticket, shuffled = seen[0][1], seen[2][1]
    for place, same in enumerate([False, False, True, True]):  # gamma, beta, two more
        equal = (ticket["a1_bn"][place] == shuffled["a1_bn"][place]).all()
        assert equal == same
    np.testing.assert_array_equal(ticket["b1_conv"][0], shuffled["b1_conv"][0])
    assert (ticket["a1_conv"][0] != shuffled["a1_conv"][0]).any()


def test_training_and_numbers(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    x = np.random.default_rng(0).standard_normal((64, 12)).astype("float32")
    y = np.asarray(model(x)).argmax(-1)

    def train(small):
        small.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        small.fit(x, y, epochs=1, verbose=0)

    def evaluate(small):
        return (np.asarray(small(x)).argmax(-1) == y).mean()  # a NumPy scalar

    report = tsp.sanity_checks(model, plan, evaluate, train, num_seeds=2, seed=5)
    again = tsp.sanity_checks(model, plan, evaluate, train, num_seeds=2, seed=5)
    assert report == again
    assert {k: len(v) for k, v in report.right_away.items()} == {
        "ticket": 1,
        "random": 2,
        "shuffled": 2,
        "reinitialized": 2,
    }
    assert all(len(v) == 2 for v in report.after_training.values())
    assert report.right_away["ticket"] == (evaluate(plan.apply(model)),)
    found = report.to_dict()
    json.dumps(found)
    values = report.after_training["random"]
    entry = found["after_training"]["random"]
    assert entry["mean"] == pytest.approx(statistics.mean(values))
    assert entry["sd"] == pytest.approx(statistics.stdev(values))
    assert found["right_away"]["ticket"]["sd"] is None
    text = str(report)
    assert "after training" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == list(
        found["right_away"]
    )


def test_without_training_there_is_no_second_column(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    report = tsp.sanity_checks(model, plan, lambda small: 0.5, num_seeds=1)
    assert report.after_training is None
    assert "training" not in str(report)
    assert list(report.to_dict()) == ["right_away"]


def test_wrong_input(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    with pytest.raises(TypeError, match="`evaluate` must be a function"):
        tsp.sanity_checks(model, plan, 0.5)
    with pytest.raises(TypeError, match="`train` must be a function"):
        tsp.sanity_checks(model, plan, lambda small: 0.5, train=3)
    with pytest.raises(TypeError, match="must return one number"):
        tsp.sanity_checks(model, plan, lambda small: [0.1, 0.2])
    with pytest.raises(TypeError, match="must return one number"):
        tsp.sanity_checks(model, plan, lambda small: None)
    for wrong in ({"num_seeds": 0}, {"num_seeds": 1.5}, {"seed": -1}, {"seed": True}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be an int"):
            tsp.sanity_checks(model, plan, lambda small: 0.5, **wrong)
    with pytest.raises(PlanError, match="another structure"):
        tsp.sanity_checks(zoo.vgg(K), plan, lambda small: 0.5)
    with pytest.raises(FlavourError):
        tsp.sanity_checks("model", plan, lambda small: 0.5)
