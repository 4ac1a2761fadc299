"""The bound on linear regions, and the widths that it chooses."""

import itertools
import math

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.partition.codes._max_regions import log_regions
from tf_spline_prune.pruning.planning._allocation import RegionBound


def net(K, inputs, *widths):
    L = K.layers
    layers = [L.Dense(n, activation="relu", name=f"d{i}") for i, n in enumerate(widths)]
    return zoo.settle(
        K.Sequential([K.Input((inputs,)), *layers, L.Dense(2, name="head")])
    )


def regions(inputs, widths):
    """The bound in whole numbers."""
    product, depth = 1, inputs
    for n in widths:
        depth = min(depth, n)
        product *= sum(math.comb(n, j) for j in range(depth + 1))
    return product


def params(inputs, widths):
    sizes = [inputs, *widths, 2]
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


def kept(plan):
    return [new for name, (_, new) in plan.units.items() if name != "head"]


@pytest.mark.parametrize("width", [1, 2, 7, 64, 500])
def test_the_sum_of_binomials(width):
    for depth in {0, 1, 2, width // 2, width - 1, width, width + 5}:
        exact = sum(math.comb(width, j) for j in range(min(depth, width) + 1))
        assert log_regions(width, depth) == pytest.approx(
            math.log(exact), rel=1e-12, abs=1e-12
        )


def test_no_overflow():
    """Half of the binomials of an odd number make half of all subsets."""
    width = 100_001
    half = (width - 1) * math.log(2)
    assert log_regions(width, width // 2) == pytest.approx(half, rel=1e-9)
    assert math.isfinite(log_regions(10**6, 10))


@pytest.mark.parametrize(
    ("inputs", "widths"), [(3, (5, 4)), (9, (4, 6, 3)), (1, (3, 3)), (4, (2, 6, 6))]
)
def test_every_choice_of_a_tiny_net(K, inputs, widths):
    graph = tsp.ChannelGraph(net(K, inputs, *widths))
    bound = RegionBound(graph, graph.groups)
    assert bound.inputs == inputs
    for counts in itertools.product(*map(range, widths)):
        left = [n - c for n, c in zip(widths, counts, strict=True)]
        expected = math.log(regions(inputs, left))
        assert bound(np.array(counts))[0] == pytest.approx(expected, abs=1e-9)


def test_layers_that_must_stay_count_too(K):
    """They add a factor, and what comes after them is as narrow as they are."""
    graph = tsp.ChannelGraph(net(K, 8, 6, 3, 7))
    free = [group for group in graph.groups if group.name != "d1"]
    bound = RegionBound(graph, free)
    for a, c in itertools.product(range(6), range(7)):
        expected = math.log(regions(8, [6 - a, 3, 7 - c]))
        assert bound(np.array([a, c]))[0] == pytest.approx(expected, abs=1e-9)


def test_a_shortcut_leads_round_the_narrow_layer(K):
    L = K.layers
    inputs = K.Input((9,))
    x = L.Dense(8, activation="relu", name="wide")(inputs)
    y = L.Dense(2, activation="relu", name="narrow")(x)
    y = L.Dense(8, name="back")(y)
    x = L.ReLU()(L.Add()([x, y]))
    x = L.Dense(6, activation="relu", name="last")(x)
    graph = tsp.ChannelGraph(K.Model(inputs, L.Dense(2, name="head")(x)))
    bound = RegionBound(graph, graph.groups)
    names = [group.name for group in graph.groups]
    for counts in itertools.product(*(range(g.num_units) for g in graph.groups)):
        gone = dict(zip(names, counts, strict=True))
        wide, narrow, last = 8 - gone["wide"], 2 - gone["narrow"], 6 - gone["last"]
        # Four layers; all see what the wide one lets through, not the narrow one.
        product = regions(9, [wide]) * regions(wide, [last])
        product *= regions(wide, [narrow]) * regions(wide, [wide])
        assert bound(np.array(counts))[0] == pytest.approx(math.log(product), abs=1e-9)


def test_channels_count_as_units(K):
    model = zoo.vgg(K)
    graph = tsp.ChannelGraph(model)
    bound = RegionBound(graph, graph.groups)
    assert bound.inputs == 3
    found, _ = bound(np.zeros(len(graph.groups), int))
    assert found == pytest.approx(math.log(regions(3, [16, 16, 24, 20])), abs=1e-9)


@pytest.mark.parametrize("build", zoo.ALL, ids=lambda b: b.__name__)
def test_all_families(K, build):
    model = build(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.4, scope="regions")
    before, after = plan.achieved
    assert after == before - math.floor(0.4 * before + 0.5)
    assert plan.scope == "regions"
    assert tsp.verify(model, plan.apply(model), plan) < 1e-5


def greedy(inputs, widths, done, saved, floors, round_to=1):
    """Take one step after the other, looking at every layer every time."""
    widths = list(widths)
    while not done(widths):
        choices = []
        for i, n in enumerate(widths):
            fewer = widths.copy()
            fewer[i] = (n - 1) // round_to * round_to
            if fewer[i] < floors[i]:
                continue
            loss = math.log(regions(inputs, widths)) - math.log(regions(inputs, fewer))
            rate = loss / saved(widths, fewer)
            # Ties to the last digits are broken by the place.
            choices.append((round(rate, 9), round(loss / (n - fewer[i]), 9), i, fewer))
        widths = min(choices)[-1]
    return widths


NETS = [(3, (9, 7, 8)), (20, (9, 12, 7)), (5, (4, 12, 12)), (2, (16, 4))]


@pytest.mark.parametrize(("inputs", "widths"), NETS)
@pytest.mark.parametrize("round_to", [1, 2])
def test_greedy_by_units(K, inputs, widths, round_to):
    model = net(K, inputs, *widths)
    total = sum(widths)
    for share in (0.1, 0.3, 0.5, 0.7):
        plan = tsp.plan(
            model, "magnitude", sparsity=share, scope="regions", round_to=round_to
        )
        wanted = math.floor(share * total + 0.5)
        if round_to > 1:
            assert total - sum(kept(plan)) <= wanted
            assert all(n % 2 == 0 or n in widths for n in kept(plan))
            continue
        assert total - sum(kept(plan)) == wanted
        expected = greedy(
            inputs,
            widths,
            lambda left: sum(left) <= total - wanted,  # noqa: B023
            lambda left, fewer: sum(left) - sum(fewer),
            [max(1, math.ceil(0.1 * n - 1e-9)) for n in widths],
        )
        best = math.log(regions(inputs, expected))
        assert math.log(regions(inputs, kept(plan))) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("inputs", "widths"), NETS)
def test_greedy_by_cost(K, inputs, widths):
    model = net(K, inputs, *widths)
    full = params(inputs, widths)
    for share in (0.8, 0.5, 0.3):
        plan = tsp.plan(model, "magnitude", target_params=share, scope="regions")
        found, limit = kept(plan), int(share * full)
        assert plan.achieved == (full, params(inputs, found))
        assert params(inputs, found) <= limit
        expected = greedy(
            inputs,
            widths,
            lambda left: params(inputs, left) <= limit,  # noqa: B023
            lambda left, fewer: params(inputs, left) - params(inputs, fewer),
            [max(1, math.ceil(0.1 * n - 1e-9)) for n in widths],
        )
        # What the last step made room for is given back.
        assert regions(inputs, found) >= regions(inputs, expected)
        for i, n in enumerate(found):
            if n < widths[i]:
                more = [m + (i == j) for j, m in enumerate(found)]
                assert params(inputs, more) > limit


@pytest.mark.parametrize(("inputs", "widths"), NETS)
def test_close_to_the_best_of_all_choices(K, inputs, widths):
    model = net(K, inputs, *widths)
    full = params(inputs, widths)
    floors = [max(1, math.ceil(0.1 * n - 1e-9)) for n in widths]
    every = list(
        itertools.product(
            *(range(f, n + 1) for f, n in zip(floors, widths, strict=True))
        )
    )
    for budget in ({"sparsity": 0.5}, {"target_params": 0.5}):
        plan = tsp.plan(model, "magnitude", scope="regions", **budget)
        if "sparsity" in budget:
            fit = [w for w in every if sum(w) == sum(kept(plan))]
        else:
            fit = [w for w in every if params(inputs, w) <= full // 2]
        assert tuple(kept(plan)) in fit
        best = max(math.log(regions(inputs, w)) for w in fit)
        worst = min(math.log(regions(inputs, w)) for w in fit)
        found = math.log(regions(inputs, kept(plan)))
        assert found >= best - 0.1 * (best - worst)


def test_the_criterion_decides_which_units(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="regions")
    for name, units in plan.removed.items():
        share = {name: len(units) / plan.units[name][0]}
        alone = tsp.plan(model, "magnitude", sparsity=share)
        assert alone.removed[name] == units


def test_thousands_of_units(K):
    model = net(K, 300, 2000, 1500, 700)
    plan = tsp.plan(model, "random", sparsity=0.5, scope="regions")
    assert plan.achieved == (4200, 2100)
    plan = tsp.plan(model, "random", target_macs=0.5, scope="regions", round_to=8)
    before, after = plan.achieved
    assert 0.49 * before < after <= before // 2
    assert all(n % 8 == 0 or n in (2000, 1500, 700) for n in kept(plan))
    with pytest.raises(BudgetError, match="out of reach"):
        tsp.plan(model, "random", target_macs=0.001, scope="regions")


def test_the_bound_stays_larger_than_with_equal_shares(K):
    inputs, widths = 4, (30, 10, 30)
    model = net(K, inputs, *widths)
    found, equal = (
        regions(inputs, kept(tsp.plan(model, "magnitude", sparsity=0.6, scope=scope)))
        for scope in ("regions", "layer")
    )
    assert found >= equal
