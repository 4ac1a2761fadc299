"""Scopes of one's own, and what holds for every scope."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError

POOLS = {"early": ["a1_conv", "a2_.*"], "late": "b1_conv"}


def gone(plan, *layers):
    return sum(len(plan.removed.get(name, ())) for name in layers)


@pytest.mark.parametrize("form", ["dict", "function"])
def test_pools_are_ranked_each_for_itself(K, form):
    model = zoo.vgg(K)
    scope = POOLS
    if form == "function":
        early, late = ("early", 1), ("late", 2)  # any hashable
        known = {"a1_conv": early, "a2_conv": early, "b1_conv": late}

        def scope(layer):
            return known.get(layer.name)

    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope=scope)
    assert gone(plan, "a1_conv", "a2_conv") == 16
    assert (gone(plan, "b1_conv"), gone(plan, "fc")) == (12, 10)
    alone = tsp.plan(
        model, "magnitude", sparsity=0.5, layers=["a1_conv", "a2_conv"], scope="global"
    )
    assert {n: plan.removed.get(n) for n in ("a1_conv", "a2_conv")} == {
        n: alone.removed.get(n) for n in ("a1_conv", "a2_conv")
    }


def test_one_pool_of_all_is_the_global_scope_and_one_each_the_layer_scope(K):
    model = zoo.resnet(K)
    for budget in ({"sparsity": 0.4}, {"target_macs": 0.5}):
        every = tsp.plan(model, "spline", scope={"all": [".*"]}, **budget)
        assert every.removed == tsp.plan(model, "spline", **budget).removed
        # Unnamed groups are each for themselves.
        first = tsp.plan(model, "spline", scope={"one": "stem_conv"}, **budget)
        layer = tsp.plan(model, "spline", scope="layer", **budget)
        assert first.removed == layer.removed


def test_a_scope_goes_into_the_plan_and_its_file(K, tmp_path):
    model = zoo.vgg(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope=POOLS)
    assert plan.scope == {"early": ["a1_conv", "a2_.*"], "late": ["b1_conv"]}
    plan.save(tmp_path / "plan.json")
    loaded = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert loaded.scope == plan.scope and str(loaded) == str(plan)
    assert "early: a1_conv, a2_.*; late: b1_conv" in str(plan)
    plan = tsp.plan(
        model, "magnitude", sparsity=0.5, scope=lambda layer: type(layer).__name__
    )
    assert plan.scope == {
        "Conv2D": ["a1_conv", "a2_conv", "b1_conv"],
        "Dense": ["fc", "head"],
    }


@pytest.mark.parametrize(
    ("scope", "match"),
    [
        ({"one": ["a1_convv"]}, "Nearest: .'a1_conv'"),
        ({"one": ["a1_conv"], "two": ["a._conv"]}, "two pools"),
        ({"one": 3}, "scope=.'one': 3"),
        ({"one": [3]}, "regular expression"),
        ({}, "It is empty"),
        ({"one": []}, "names no layer"),
        (lambda layer: None, "names no layer"),
        (lambda layer: ["a"], "hashable"),
        ("region", "'region'"),
        (None, "None"),
        (7, "7"),
    ],
)
def test_wrong_scopes(K, scope, match):
    model = zoo.vgg(K)
    before = model.get_weights()
    for call in (tsp.plan, tsp.prune):
        with pytest.raises(ValueError, match=match):
            call(model, "magnitude", sparsity=0.5, scope=scope)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_group_in_two_pools(K):
    scope = {"one": ["stem_conv"], "two": ["r0b_conv"]}
    with pytest.raises(ValueError, match="coupled.*stem_conv"):
        tsp.plan(zoo.resnet(K), "magnitude", sparsity=0.5, scope=scope)


SCOPES = ["global", "layer", "isomorphic", "regions", {"a": ["fi.*", "second"]}]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
@pytest.mark.parametrize(
    "budget",
    [
        {"sparsity": 0.8},
        {"target_macs": 0.12},
        {"target_bytes": 0.25, "weight_dtype": "int8"},
        {"target_latency": 0.2, "latency": {"first": list(range(33))}},
    ],
    ids=str,
)
def test_no_scope_empties_a_layer(K, scope, budget):
    model = zoo.mlp(K)
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * 1e-6, bias * 1e-6])

    def kept(**bounds):
        plan = tsp.plan(model, "magnitude", scope=scope, **budget, **bounds)
        assert plan.achieved[1] < plan.achieved[0]
        return [plan.units[name][1] for name in ("first", "second")]

    first, second = kept()
    assert first >= 4 and second >= 3  # a tenth
    assert min(kept(min_units=4)) >= 4
    assert all(n % 3 == 0 or n == 32 for n in kept(round_to=3))
    with pytest.raises(BudgetError, match="max_sparsity"):
        kept(max_sparsity=0.05)
