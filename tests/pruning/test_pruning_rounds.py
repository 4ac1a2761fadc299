"""Composed plans, and pruning in rounds, in coordinates of the original model."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, FlavourError, PlanError


def inputs(model, count=4):
    shape = tuple(model.inputs[0].shape[1:])
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False))


def weights(model):
    return [np.array(w) for w in model.get_weights()]


def same_weights(one, other):
    pairs = list(zip(weights(one), weights(other), strict=True))
    return all(a.shape == b.shape and (a == b).all() for a, b in pairs)


def same_shapes(one, other):
    return [w.shape for w in weights(one)] == [w.shape for w in weights(other)]


def jitter(model):
    """Stand in for training: every weight moves."""
    rng = np.random.default_rng(1)
    for w in model.weights:
        noise = rng.uniform(0.9, 1.1, tuple(w.shape))
        w.assign(np.array(w) * noise.astype("float32"))


@pytest.mark.parametrize(
    "name", ["mlp", "vgg", "resnet", "densenet", "mobilenet", "nested"]
)
def test_composition_is_one_after_the_other(K, name):
    model = getattr(zoo, name)(K)
    first = tsp.plan(model, "magnitude", sparsity=0.3)
    middle = first.apply(model)
    second = tsp.plan(middle, "random", sparsity=0.4, seed=2)
    both = tsp.compose(first, second)
    expected = second.apply(middle)
    assert same_weights(both.apply(model), expected)
    assert tsp.cost(expected) == both.after
    assert both.before == tsp.cost(model)
    assert {n: a - b for n, (a, b) in both.units.items()} == {
        n: len(both.removed.get(n, ())) for n in both.units
    }
    assert all(units == sorted(set(units)) for units in both.removed.values())
    assert tsp.PruningPlan.from_dict(both.to_dict()) == both


def test_heads_and_their_sizes_compose(K):
    """A layer that makes several kinds of units has a name for each."""
    L = K.layers
    inputs = K.Input((6, 8))
    x = L.Dense(12, name="embed")(inputs)
    x = L.Add()([x, L.MultiHeadAttention(4, 6, name="attend")(x, x)])
    x = L.LSTM(7, name="recur")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)))
    first = tsp.plan(model, "random", sparsity=0.3)
    middle = first.apply(model)
    second = tsp.plan(middle, "random", sparsity=0.3, seed=4)
    both = tsp.compose(first, second)
    assert "attend/key_dim" in both.removed
    found, expected = both.apply(model), second.apply(middle)
    # The key's scale makes up for its size, and is rounded once or twice.
    for one, other in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_composition_counted_by_hand(K):
    model = zoo.mlp(K)
    first = tsp.plan(model, "magnitude", sparsity=0.1)
    second = tsp.plan(first.apply(model), "magnitude", sparsity=0.1)
    first = type(first).from_dict(
        {
            **first.to_dict(),
            "removed": {"first": [0, 2, 5], "second": [1]},
            "units": {"first": [32, 29], "second": [24, 23], "head": [5, 5]},
            "after": {**first.to_dict()["after"], "params": 7},
        }
    )
    second = type(second).from_dict(
        {
            **second.to_dict(),
            "removed": {"first": [0, 1, 2, 28], "head": []},
            "units": {"first": [29, 25], "second": [23, 23], "head": [5, 5]},
            "before": {**second.to_dict()["before"], "params": 7},
        }
    )
    both = tsp.compose(first, second)
    # 0 2 5 are gone, so 0 1 2 28 of the rest are 1 3 4 31.
    assert both.removed["first"] == [0, 1, 2, 3, 4, 5, 31]
    assert both.removed["second"] == [1]
    assert both.units == {"first": (32, 25), "second": (24, 23), "head": (5, 5)}


def test_three_plans_compose_in_any_bracket(K):
    model = zoo.resnet(K)
    plans, small = [], model
    for seed in range(3):
        plans.append(tsp.plan(small, "random", sparsity=0.2, seed=seed))
        small = plans[-1].apply(small)
    left = tsp.compose(tsp.compose(plans[0], plans[1]), plans[2])
    right = tsp.compose(plans[0], tsp.compose(plans[1], plans[2]))
    assert left.removed == right.removed
    assert left.units == right.units
    assert left.budget["sparsity"] == pytest.approx(1 - 0.8**3)
    assert right.budget["sparsity"] == pytest.approx(1 - 0.8**3)
    assert same_weights(left.apply(model), small)


def test_merges_compose(K):
    model = zoo.mlp(K)
    first = tsp.plan(model, "spline", sparsity=0.2)
    middle = first.apply(tsp.merge(model, first))
    second = tsp.plan(middle, "spline", sparsity=0.3)
    both = tsp.compose(first, second)
    assert first.merges and second.merges
    expected = second.apply(tsp.merge(middle, second))
    found = both.apply(tsp.merge(model, both))
    x = inputs(model)
    np.testing.assert_allclose(outputs(found, x), outputs(expected, x), atol=1e-5)


def test_what_two_plans_say_of_themselves(K):
    model = zoo.vgg(K)
    first = tsp.plan(model, "magnitude", target_macs=0.6)
    middle = first.apply(model)
    second = tsp.plan(middle, "spline", target_params=0.5, scope="layer")
    both = tsp.compose(first, second)
    assert both.criterion == "magnitude, then spline"
    assert both.scope == "global, then layer"
    params = int(0.5 * second.before.params)
    assert both.budget == {"target_macs": 0.6, "target_params": params}
    assert both.criterion_config["first"] == first.criterion_config
    again = tsp.compose(first, tsp.plan(middle, "magnitude", target_macs=0.5))
    assert again.criterion == "magnitude"
    assert again.budget == {"target_macs": int(0.5 * first.after.macs)}
    assert both.achieved is None
    assert again.achieved == (first.before.macs, again.after.macs)
    str(both)


def test_plans_of_other_models_do_not_compose(K):
    model = zoo.mlp(K)
    first = tsp.plan(model, "magnitude", sparsity=0.3)
    with pytest.raises(PlanError, match="the first one gives"):
        tsp.compose(first, first)
    with pytest.raises(PlanError, match="the first one gives"):
        tsp.compose(first, tsp.plan(zoo.vgg(K), "magnitude", sparsity=0.3))


BUDGETS = [{"sparsity": 0.6}, {"target_macs": 0.4}, {"target_params": 0.3}]


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_rounds_come_to_the_budget_of_the_original(K, name, budget):
    model = getattr(zoo, name)(K)
    before = weights(model)
    seen = []

    def train(small):
        seen.append(tsp.cost(small))
        jitter(small)

    small, plan = tsp.prune_in_rounds(model, "magnitude", train=train, **budget)
    assert len(seen) == 2  # between three rounds
    assert same_shapes(plan.apply(model), small)
    assert plan.budget == budget
    assert plan.before == tsp.cost(model)
    assert plan.after == tsp.cost(small)
    assert all((a == b).all() for a, b in zip(before, weights(model), strict=True))
    ((kind, value),) = budget.items()
    once = tsp.plan(model, "magnitude", **budget)
    if kind == "sparsity":
        graph = tsp.ChannelGraph(model)
        gone = graph.removal(dict(plan.removed)).sum()
        assert gone == round(value * sum(g.num_units for g in graph.groups))
        assert gone == graph.removal(dict(once.removed)).sum()
        return
    measure = kind.removeprefix("target_")
    full = getattr(plan.before, measure)
    assert getattr(plan.after, measure) <= value * full
    for number, cost in enumerate(seen):  # equal steps, each met, none overshot by far
        limit = full - (number + 1) / 3 * (full - int(value * full))
        assert 0.8 * limit < getattr(cost, measure) <= limit + 1


def test_one_round_is_plan_and_apply(K):
    model = zoo.vgg(K)
    small, plan = tsp.prune_in_rounds(model, "spline", rounds=1, target_macs=0.5)
    assert plan == tsp.plan(model, "spline", target_macs=0.5)
    assert same_weights(small, tsp.prune(model, "spline", target_macs=0.5))


def test_without_training_merges_stay_and_fit(K):
    model = zoo.mlp(K)
    small, plan = tsp.prune_in_rounds(model, "spline", sparsity=0.5)
    assert plan.merges
    x = inputs(model)
    found = plan.apply(tsp.merge(model, plan))
    np.testing.assert_allclose(outputs(found, x), outputs(small, x), atol=1e-5)
    _, trained = tsp.prune_in_rounds(model, "spline", sparsity=0.5, train=jitter)
    assert trained.merges == {}
    bare, plan = tsp.prune_in_rounds(model, "spline", sparsity=0.5, recover=None)
    assert plan.merges == {}
    assert same_weights(plan.apply(model), bare)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("linear", [0.25, 0.5, 0.75]),
        ((0.5, 0.7, 0.9, 1.0), [0.5, 0.7, 0.9]),
        (lambda t: 1 - (1 - t) ** 3, [0.578125, 0.875, 0.984375]),
    ],
)
def test_schedules(K, schedule, shares):
    model = zoo.mlp(K)
    seen = []
    tsp.prune_in_rounds(
        model,
        "magnitude",
        rounds=4,
        schedule=schedule,
        sparsity=0.5,
        train=lambda small: seen.append(
            sum(small.get_layer(n).units for n in ("first", "second"))
        ),
    )
    assert seen == [56 - int(share * 0.5 * 56 + 0.5) for share in shares]


def test_layers_and_counts_are_handed_on(K):
    model = zoo.mlp(K)
    small, plan = tsp.prune_in_rounds(
        model, "magnitude", sparsity=0.5, layers="first", round_to=4, rounds=2
    )
    assert set(plan.removed) == {"first"}
    assert small.get_layer("first").units == 16


def test_a_round_with_nothing_left_to_do(K):
    """One unit a group of the widest step goes in round one; the next is met then."""
    model = zoo.mlp(K)
    small, plan = tsp.prune_in_rounds(
        model, "magnitude", sparsity=2 / 56, schedule=[0.9, 0.95, 1.0]
    )
    assert sum(map(len, plan.removed.values())) == 2
    assert same_shapes(plan.apply(model), small)


@pytest.mark.parametrize("weight_dtype", ["float16", "int8"])
def test_bytes_are_counted_in_the_dtype_asked_for(K, weight_dtype):
    model = zoo.mlp(K)
    small, plan = tsp.prune_in_rounds(
        model, "magnitude", target_bytes=0.5, weight_dtype=weight_dtype
    )
    full = tsp.cost(model, weight_dtype=weight_dtype).bytes
    left = tsp.cost(small, weight_dtype=weight_dtype).bytes
    assert left <= 0.5 * full
    assert plan.achieved == (full, left)
    assert plan.budget == {"target_bytes": 0.5, "weight_dtype": weight_dtype}
    assert "achieved" in str(plan)


def test_achieved_is_counted_from_the_original(K):
    model = zoo.mlp(K)
    _, plan = tsp.prune_in_rounds(model, "magnitude", sparsity=0.5)
    assert plan.achieved == (56, 28)
    small, plan = tsp.prune_in_rounds(model, "magnitude", target_macs=0.5)
    assert plan.achieved == (tsp.cost(model).macs, tsp.cost(small).macs)


def test_wrong_input(K):
    model = zoo.mlp(K)
    with pytest.raises(ValueError, match="Give exactly one of"):
        tsp.prune_in_rounds(model)
    with pytest.raises(ValueError, match="Give exactly one of"):
        tsp.prune_in_rounds(model, sparsity=0.5, target_macs=0.5)
    with pytest.raises(ValueError, match="step by step"):
        tsp.prune_in_rounds(model, target_latency=0.5)
    with pytest.raises(BudgetError, match="above what the model has"):
        tsp.prune_in_rounds(model, target_params=10**9)
    with pytest.raises(BudgetError):
        tsp.prune_in_rounds(model, target_macs=1)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="`rounds` must be"):
            tsp.prune_in_rounds(model, sparsity=0.5, rounds=wrong)
    constant, text = (lambda t: 0.5), (lambda t: "far")
    uneven = ((0.5, 1.0), (0.5, 0.4, 1.0), (0.2, 0.5, 0.9))
    for wrong in ("cubic", *uneven, constant, text, 3):
        with pytest.raises(ValueError, match="`schedule` must"):
            tsp.prune_in_rounds(model, sparsity=0.5, schedule=wrong)
    for by_layer in ({"first": 0.5}, lambda layer: 0.5):
        with pytest.raises(ValueError, match="towards one number"):
            tsp.prune_in_rounds(model, sparsity=by_layer)
    with pytest.raises(ValueError, match="`weight_dtype` goes with"):
        tsp.prune_in_rounds(model, sparsity=0.5, weight_dtype="int8")
    with pytest.raises(ValueError, match="`recover` must"):
        tsp.prune_in_rounds(model, sparsity=0.5, recover="fold")
    with pytest.raises(TypeError, match="`train` must be a function"):
        tsp.prune_in_rounds(model, sparsity=0.5, train=5)
    with pytest.raises(TypeError, match="round_two"):
        tsp.prune_in_rounds(model, sparsity=0.5, round_two=4)
    with pytest.raises(FlavourError):
        tsp.prune_in_rounds("model", sparsity=0.5)
