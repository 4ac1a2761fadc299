"""Several rounds end where one does: no round rounds anew."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, NothingPrunedWarning


def chain(K, *widths):
    layers = [K.layers.Dense(n, "relu", name=f"d{n}_{i}") for i, n in enumerate(widths)]
    model = K.Sequential([K.Input((5,)), *layers, K.layers.Dense(3, name="head")])
    return zoo.settle(model)


def kept(plan):
    return [after for name, (_, after) in plan.units.items() if name != "head"]


def test_layers_of_100_6_and_4_units(K):
    """The reported one: 48, 4 and 4 were left where one round leaves 50, 3 and 2."""
    model = chain(K, 100, 6, 4)
    small, plan = tsp.prune_in_rounds(
        model, "magnitude", sparsity=0.5, scope="layer", rounds=10
    )
    assert kept(plan) == [50, 3, 2]
    assert [layer.units for layer in small.layers[:3]] == [50, 3, 2]
    assert plan.achieved == (110, 55)


@pytest.mark.parametrize("budget", [{"sparsity": 0.4}, {"target_macs": 0.5}], ids=str)
@pytest.mark.parametrize("round_to", [1, 4])
def test_each_layer_keeps_as_many_as_in_one_round(K, budget, round_to):
    model = chain(K, 33, 7, 5, 16)
    settings = {**budget, "scope": "layer", "round_to": round_to}
    _, plan = tsp.prune_in_rounds(model, "magnitude", rounds=5, **settings)
    assert kept(plan) == kept(tsp.plan(model, "magnitude", **settings))


def test_pools_are_those_of_the_original(K):
    """Layers of one structure stay in one pool when one of them has lost more."""
    model = chain(K, 9, 8, 8, 8, 5)
    pools = {"middle": ["d8_1", "d8_2", "d8_3"]}
    for scope in ("isomorphic", pools, lambda layer: getattr(layer, "units", None)):
        settings = {"sparsity": 0.35, "scope": scope}
        _, plan = tsp.prune_in_rounds(model, "magnitude", rounds=6, **settings)
        once = tsp.plan(model, "magnitude", **settings)
        first, *middle, last = kept(plan)
        assert (first, last) == (kept(once)[0], kept(once)[-1])
        assert sum(middle) == sum(kept(once)[1:-1])
        assert plan.scope == once.scope


def test_residual_groups_and_floors(K):
    L = K.layers
    x = first = L.Dense(13, "relu", name="first")(inputs := K.Input((5,)))
    x = L.Dense(7, "relu", name="inner")(x)
    x = L.Add()([first, L.Dense(13, name="back")(x)])
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)))
    settings = {"target_params": 0.5, "scope": "layer", "min_units": 3}
    _, plan = tsp.prune_in_rounds(model, "magnitude", rounds=4, **settings)
    assert plan.units == tsp.plan(model, "magnitude", **settings).units
    settings = {"sparsity": 0.45, "scope": "global", "max_sparsity": 0.5}
    _, plan = tsp.prune_in_rounds(model, "magnitude", rounds=4, **settings)
    gone = {name: before - after for name, (before, after) in plan.units.items()}
    assert gone["first"] == gone["back"]
    assert gone["first"] + gone["inner"] == 9  # of 20
    assert gone["first"] <= 6 and gone["inner"] <= 3  # half of what there was


def test_scores_that_training_does_not_change_choose_the_same_units(K):
    """One ranking over all: the rounds take what one round takes."""
    model = chain(K, 12, 10, 6)

    def position(graph, group):
        return np.arange(graph.unit_counts()[group.name])[::-1] + 0.5 * len(group.name)

    _, plan = tsp.prune_in_rounds(model, position, sparsity=0.5, rounds=1)
    _, again = tsp.prune_in_rounds(
        model, position, sparsity=0.5, rounds=5, scope="layer"
    )
    once = tsp.plan(model, position, sparsity=0.5, scope="layer")
    assert again.removed == once.removed
    assert plan.removed == tsp.plan(model, position, sparsity=0.5).removed


def test_what_is_out_of_reach_is_said_before_any_training(K):
    trained = []
    with pytest.raises(BudgetError, match="out of reach"):
        tsp.prune_in_rounds(
            chain(K, 8, 8),
            "magnitude",
            target_macs=0.2,
            rounds=3,
            min_units=6,
            train=trained.append,
        )
    assert not trained


@pytest.mark.parametrize(
    "asked", [{"target_macs": 0.2}, {"target_params": 0.1}, {"sparsity": "80%"}]
)
def test_the_number_in_an_error_is_the_one_that_was_given(K, asked):
    """It was that of a round: so many units, or a share of a share."""
    ((kind, value),) = asked.items()
    value = 0.8 if value == "80%" else value
    words = f"Received: {kind}={value}, of which round 3 of 3 asks for {kind}="
    with pytest.raises(BudgetError, match=words) as seen:
        tsp.prune_in_rounds(chain(K, 8, 8), "magnitude", rounds=3, min_units=6, **asked)
    assert str(seen.value).count("Received") == 1


def test_a_round_that_fails_says_which_it_is(K):
    """Training may leave a model in which no more can go."""
    model = chain(K, 8, 8)
    calls = []

    def scores(graph, group):
        calls.append(group)
        if len(calls) > 4:  # the second round, after the end and the first
            raise BudgetError("No more goes. Received: nothing")
        return np.arange(graph.unit_counts()[group.name]) + 1.0

    with pytest.raises(BudgetError, match="sparsity=0.5, of which round 2 of 2"):
        tsp.prune_in_rounds(model, scores, sparsity=0.5, rounds=2)


def test_rounds_in_which_nothing_goes_are_silent_and_rounds_without_any_are_not(K):
    model = chain(K, 4, 4)
    _, plan = tsp.prune_in_rounds(
        model, "magnitude", sparsity=0.25, scope="layer", rounds=8
    )
    assert kept(plan) == [3, 3]
    with pytest.warns(NothingPrunedWarning):
        tsp.prune_in_rounds(model, "magnitude", sparsity=0.01, rounds=3)


@pytest.mark.parametrize(
    "setting",
    [
        {"scope": "bogus"},
        {"min_units": -3},
        {"max_sparsity": 5},
        {"seed": -1},
        {"round_to": 2.5},
        {"layers": 3},
        {"origin": None},
        {"foo": 1},
    ],
    ids=str,
)
def test_settings_are_those_of_plan(K, setting):
    """They went past the checks of `plan`: a scope of no meaning was taken."""
    (name,) = setting
    with pytest.raises((ValueError, TypeError), match=f"Received.*{name}"):
        tsp.prune_in_rounds(chain(K, 8, 6), sparsity=0.5, rounds=2, **setting)
