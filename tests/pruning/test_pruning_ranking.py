"""The greedy elimination against a brute-force loop with the same tie rules."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.criteria import Criterion, UnitPairs
from tf_spline_prune.pruning.planning import _ranking as ranking


def make_pairs(distances, worth, dead=()):
    count = len(worth)
    mask = np.zeros(count, bool)
    mask[list(dead)] = True
    return UnitPairs(
        worth=np.asarray(worth, float),
        dead=mask,
        rows=lambda chosen: distances[chosen].copy(),
        scale=lambda units, twins: np.asarray(worth, float)[units] / (1.0 + twins),
    )


def brute_force(distances, worth, dead=()):
    """Look at every surviving pair before every removal."""
    alive = [i for i in range(len(worth)) if i not in dead]
    gone = [(i, 0.0, -1) for i in sorted(dead)]
    while len(alive) > 1:
        pairs = [(distances[i, j], i, j) for i in alive for j in alive if i < j]
        key, low, high = min(pairs)
        out, twin = (high, low) if worth[low] >= worth[high] else (low, high)
        alive.remove(out)
        gone.append((out, key, twin))
    return gone + [(i, np.inf, -1) for i in alive]


def random_case(seed, count=17, levels=None):
    rng = np.random.default_rng(seed)
    distances = rng.random((count, count))
    worth = rng.random(count)
    if levels:  # few values, so that almost everything is a tie
        distances = np.floor(distances * levels) / levels
        worth = np.floor(worth * levels) / levels
    return np.triu(distances, 1) + np.triu(distances, 1).T, worth


CASES = [
    *((seed, None, ()) for seed in range(4)),
    *((seed, 3, ()) for seed in range(6)),
    (0, 1, ()),  # all distances and worths equal
    (1, None, (3, 9, 16)),
    (2, 3, (0, 1)),
    (3, 3, tuple(range(16))),  # a single survivor
    (4, 3, tuple(range(17))),  # none
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("seed", "levels", "dead"), CASES)
def test_eliminate(monkeypatch, seed, levels, dead, streamed):
    if streamed:
        monkeypatch.setattr(ranking, "_KEPT_PAIRS", 150)
    distances, worth = random_case(seed, levels=levels)
    found = ranking.eliminate(make_pairs(distances, worth, dead))
    expected = brute_force(distances, worth, dead)
    assert found.order.tolist() == [unit for unit, _, _ in expected]
    assert found.keys.tolist() == [key for _, key, _ in expected]
    assert found.twins.tolist() == [twin for _, _, twin in expected]
    scales = [
        worth[unit] / (1.0 + twin) if twin >= 0 else 0.0 for unit, _, twin in expected
    ]
    np.testing.assert_allclose(found.scales, scales)


def test_one_unit():
    found = ranking.eliminate(make_pairs(np.zeros((1, 1)), [1.0]))
    assert found.order.tolist() == [0]
    assert found.keys.tolist() == [np.inf]


def test_never_both_of_a_pair():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((10, 3))
    points = points[rng.permutation(np.repeat(np.arange(10), 2))]
    distances = np.abs(points[:, None] - points[None]).sum(axis=2)
    found = ranking.eliminate(make_pairs(distances, rng.random(20)))
    kept = np.unique(points[found.order[10:]], axis=0)
    assert len(kept) == 10
    assert (found.keys[:10] == 0).all() and (found.keys[10:] > 0).all()


def test_worth_decides_who_of_a_pair_goes():
    distances = np.ones((4, 4))
    distances[1, 3] = distances[3, 1] = 0.1
    for worth, gone in [([1, 2, 1, 3], 1), ([1, 3, 1, 2], 3), ([1, 2, 1, 2], 3)]:
        assert ranking.eliminate(make_pairs(distances, worth)).order[0] == gone


@pytest.mark.parametrize("mode", ["unit", "hyperplane", "paper", "code"])
def test_streamed_path_gives_the_same_plan(K, monkeypatch, mode):
    model = zoo.mlp(K)
    for name in ("first", "second"):
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        kernel[:, 1::4], bias[1::4] = 2 * kernel[:, ::4], 2 * bias[::4]
        layer.set_weights([kernel, bias])
    criterion = tsp.criteria.Spline(mode=mode, num_points=64)
    whole = tsp.plan(model, criterion, sparsity=0.6)
    monkeypatch.setattr(ranking, "_KEPT_PAIRS", 200)
    streamed = tsp.plan(model, criterion, sparsity=0.6)
    assert streamed.removed == whole.removed
    assert streamed.merges == whole.merges


class Given(Criterion):
    name = "given"

    def __init__(self, values, normalizer="none"):
        self.values = values
        type(self).normalizer = normalizer

    def get_config(self):
        return {}

    def scores(self, group):
        return np.array(self.values[group.name], float)


def two_layers(K, one=4, two=4):
    L = K.layers
    return zoo.settle(
        K.Sequential(
            [
                K.Input((3,)),
                L.Dense(one, activation="relu", name="one"),
                L.Dense(two, activation="relu", name="two"),
                L.Dense(2, name="head"),
            ]
        )
    )


def test_ranked_together_or_by_layer(K):
    model = two_layers(K)
    given = Given({"one": [1, 2, 3, 9], "two": [40, 30, 20, 10]})
    plan = tsp.plan(model, given, sparsity=0.5, max_sparsity=0.99)
    # The last unit of a layer stays, so the next in line goes.
    assert plan.removed == {"one": [0, 1, 2], "two": [3]}
    plan = tsp.plan(model, given, sparsity=0.5, scope="layer")
    assert plan.removed == {"one": [0, 1], "two": [2, 3]}


def test_mean_normalizer(K):
    model = two_layers(K)
    values = {"one": [1, 2, 3, 4], "two": [500, 10, 510, 980]}
    plan = tsp.plan(model, Given(values), sparsity=0.25)
    assert plan.removed == {"one": [0, 1]}
    plan = tsp.plan(model, Given(values, "mean"), sparsity=0.25)
    assert plan.removed == {"one": [0], "two": [1]}


def test_ties_are_broken_the_same_way(K):
    model = two_layers(K)
    given = Given({"one": [1, 1, 1, 1], "two": [1, 1, 1, 1]})
    plans = [tsp.plan(model, given, sparsity=s).removed for s in (0.25, 0.25, 0.375)]
    assert plans[0] == plans[1]
    assert [sum(map(len, p.values())) for p in plans] == [2, 2, 3]
    for layer, units in plans[0].items():
        assert set(units) <= set(plans[2][layer])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(K, bad):
    model = two_layers(K)
    given = Given({"one": [1, bad, 3, 9], "two": [1, 2, 3, 4]})
    with pytest.raises(ValueError, match="finite"):
        tsp.plan(model, given, sparsity=0.5)
