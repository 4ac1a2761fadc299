"""What cannot be pruned is named, and nothing pruned is never silent."""

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, NothingPrunedWarning

WHY = (
    "b0: no rule covers custom:Block as it is used here, so its 72 parameters are kept"
)


def opaque_model(K):
    """Make a model of two blocks that read weights in ways the graph cannot see."""

    class Block(K.layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(
                shape=(shape[-1], 8), name="matrix", initializer="glorot_uniform"
            )
            self.bias = self.add_weight(shape=(8,), name="bias", initializer="zeros")
            self.built = True

        def call(self, x):
            return x @ self.matrix + self.bias

    return K.Sequential([K.Input((8,)), Block(name="b0"), Block(name="b1")])


def test_barriers_name_what_the_graph_cannot_see(K):
    graph = tsp.ChannelGraph(opaque_model(K))
    assert [str(barrier) for barrier in graph.barriers] == [
        WHY,
        WHY.replace("b0", "b1"),
    ]
    assert graph.explain("b0") == f"{WHY}."


def test_a_plan_without_units_says_why(K):
    model = opaque_model(K)
    with pytest.warns(NothingPrunedWarning, match=WHY):
        plan = tsp.plan(model, sparsity=0.3)
    lines = []
    plan.summary(lines.append)
    assert WHY in lines[0]
    assert "achieved: none" in lines[0]
    with pytest.warns(NothingPrunedWarning, match=WHY):
        small = tsp.prune(model, sparsity=0.3)
    x = np.ones((2, 8), "float32")
    np.testing.assert_allclose(np.array(small(x)), np.array(model(x)))


@pytest.mark.parametrize("scope", ["layer", "isomorphic", "regions"])
def test_every_scope_says_why(K, scope):
    with pytest.warns(NothingPrunedWarning, match=WHY):
        tsp.plan(opaque_model(K), sparsity=0.3, scope=scope)
    with pytest.raises(BudgetError, match=WHY):
        tsp.plan(opaque_model(K), target_macs=0.5, scope=scope)


def test_every_target_is_refused(K):
    model = opaque_model(K)
    for target in (
        {"target_macs": 0.5},
        {"target_params": 0.8},
        {"target_bytes": 0.8},
        {"target_latency": 0.5, "latency": lambda model: 10.0},
    ):
        with pytest.raises(BudgetError, match=WHY):
            tsp.prune(model, **target)
    with pytest.raises(BudgetError, match=WHY):
        tsp.prune_in_rounds(model, target_macs=0.5)


def test_other_calls_say_it_too(K):
    model = opaque_model(K)
    with pytest.warns(NothingPrunedWarning, match=WHY):
        tsp.prune_in_rounds(model, sparsity=0.3)
    with pytest.warns(NothingPrunedWarning, match=WHY):
        tsp.lossless(model)
    with pytest.raises(BudgetError, match="'b0' cannot be pruned: no rule covers"):
        tsp.plan(model, sparsity={"b0": 0.3})
    with pytest.raises(BudgetError, match="'b0' cannot be pruned: no rule covers"):
        tsp.plan(model, sparsity=0.3, layers="b0")
    with pytest.raises(
        BudgetError, match="'b0' cannot be pruned: no rule covers.*'b.'"
    ):
        tsp.plan(model, sparsity=0.3, layers="b.")
    with pytest.raises(ValueError, match="'b0' cannot be pruned: no rule covers"):
        tsp.remove_units(model, {"b0": [0]})
    with pytest.raises(ValueError, match="names no layer, so there is nothing"):
        tsp.plan(model, sparsity=lambda layer: None)


def test_the_warning_is_shown_at_the_line_of_the_user():
    with pytest.warns(NothingPrunedWarning) as caught:
        tsp.prune(opaque_model(keras), sparsity=0.3)
    assert caught[0].filename == __file__


def test_removing_no_unit_is_said(K):
    model = K.Sequential(
        [K.Input((4,)), K.layers.Dense(6, name="a"), K.layers.Dense(2)]
    )
    for units in ({}, {"a": []}):
        with pytest.warns(NothingPrunedWarning, match="names no unit"):
            tsp.remove_units(model, units)


def scored(K):
    """Make a net with a layer of one unit, as attention scores have."""
    L = K.layers
    return K.Sequential(
        [
            K.Input((8,)),
            L.Dense(6, activation="relu", name="wide"),
            L.Dense(1, name="score"),
            L.Dense(3, name="head"),
        ]
    )


def test_a_layer_of_one_unit_stays(K):
    model = scored(K)
    data = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    for settings in ({"data": data}, {"scope": "layer"}, {"scope": "isomorphic"}):
        plan = tsp.plan(model, sparsity=0.5, **settings)
        assert plan.units == {"wide": (6, 3), "score": (1, 1), "head": (3, 3)}
        assert "score: 1 units: one must be kept, and there are no more" in str(plan)
    with pytest.raises(BudgetError, match="'score' cannot be pruned: one must be"):
        tsp.plan(model, sparsity={"score": 0.5})


def test_bounds_that_keep_everything_are_named(K):
    model = scored(K)
    with pytest.warns(NothingPrunedWarning, match="wide: `min_units=8` must be kept"):
        tsp.plan(model, sparsity=0.5, scope="layer", min_units=8)
    with pytest.raises(BudgetError, match="keep 6 of the 6 units of wide"):
        tsp.plan(model, sparsity=0.5, scope="layer", max_sparsity=0.1)
