"""Masks and weights of one layer, against explicit loops and `lstsq` in float64."""

import itertools

import numpy as np
import pytest

from tf_spline_prune.masking._granularity import Granularity
from tf_spline_prune.masking.one_shot._layer_masks import (
    MaskRule,
    obs_scores,
    sparsegpt,
    wanda_scores,
)
from tf_spline_prune.masking.one_shot._layer_problem import LayerProblem, Moments
from tf_spline_prune.masking.one_shot._solve_on_mask import solve_on_mask

RIDGE = 1e-2


def rows_of(size, outputs, count=None, groups=1, seed=0):
    """Draw correlated outputs of a ReLU, and weights that read them."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(size, size)) / np.sqrt(size)
    x = rng.normal(size=(groups, count or 16 * size, size)) @ mix
    w = rng.normal(size=(groups, size, outputs)) / np.sqrt(size)
    return np.maximum(x + 0.3, 0), w


def moments_of(x, w, y=None, centred=True, parts=3):
    moments = Moments(w, centred)
    y = x @ w if y is None else y
    for part in np.array_split(np.arange(x.shape[1]), parts):
        moments.add(x[:, part], y[:, part])
    return moments


def problem_of(*shape, ridge=RIDGE, **how):
    return moments_of(*rows_of(*shape, **how)).problem(ridge)


def loss_of(problem, weights):
    """Multiply it out, output by output."""
    best = np.linalg.solve(problem.gram, problem.right)
    apart = weights - best
    return sum(
        column @ gram @ column
        for gram, one in zip(problem.gram, apart, strict=True)
        for column in one.T
    )


def lstsq_on(x, y, kept, first, ridge, centred):
    """Solve for one output; gives all weights and the intercept."""
    means = (x.mean(axis=0), y.mean()) if centred else (np.zeros(x.shape[1]), 0.0)
    x, y = x - means[0], y - means[1]
    size = np.sqrt(ridge * np.square(x).sum() / x.shape[1])
    rows = np.concatenate([x[:, kept], size * np.eye(len(kept))])
    aims = np.concatenate([y, size * first[kept]])
    weights = np.zeros(x.shape[1])
    weights[kept] = np.linalg.lstsq(rows, aims, rcond=None)[0]
    return weights, means[1] - means[0] @ weights


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_solved_weights_are_those_of_lstsq_on_the_kept_columns(ridge, centred):
    x, w = rows_of(12, 5, groups=2)
    y = np.random.default_rng(1).normal(size=(2, x.shape[1], 5)) + x @ w + 1
    keep = np.random.default_rng(2).random((2, 12, 5)) > 0.5
    keep[:, :, 3] = keep[:, :, 1]  # solved together
    moments = moments_of(x, w, y, centred)
    found = solve_on_mask(moments.problem(ridge), keep)
    assert not found[~keep].any()
    shift = moments.intercept(found).reshape(2, 5)
    for group, output in itertools.product(range(2), range(5)):
        kept = np.flatnonzero(keep[group, :, output])
        data = x[group], y[group, :, output], kept, w[group, :, output]
        weights, offset = lstsq_on(*data, ridge, centred)
        np.testing.assert_allclose(found[group, :, output], weights, atol=1e-9)
        np.testing.assert_allclose(shift[group, output], offset, atol=1e-9)


def test_the_order_of_batches_does_not_matter_nor_their_number():
    x, w = rows_of(7, 3)
    one = moments_of(x, w).problem(RIDGE)
    other = moments_of(x[:, ::-1], w, parts=1).problem(RIDGE)
    np.testing.assert_allclose(one.gram, other.gram, atol=1e-9)
    np.testing.assert_allclose(one.right, other.right, atol=1e-9)
    assert np.isclose(one.energy, other.energy)
    centred = x[0] - x[0].mean(axis=0)
    plain = centred.T @ centred
    plain += RIDGE * np.trace(plain) / 7 * np.eye(7)
    np.testing.assert_allclose(one.gram[0], plain, atol=1e-9)
    # With nothing to make up for, the best weights are those that are there.
    np.testing.assert_allclose(one.best, w, atol=1e-9)


def test_numbers_far_from_zero_keep_their_digits_in_float32():
    x, w = rows_of(6, 2)
    far = (x + 1000).astype("float32")
    found = moments_of(far, w, (x @ w).astype("float32")).problem(0.0)
    exact = far[0].astype("float64") - far[0].astype("float64").mean(axis=0)
    np.testing.assert_allclose(found.gram[0], exact.T @ exact, rtol=1e-4, atol=1e-2)


def test_every_mask_of_eight_inputs():
    """The least loss of each mask, and what greedy removal makes of it."""
    problem = problem_of(8, 1)
    gram, best = problem.gram[0], problem.best[0, :, 0]
    least = {}
    for kept in itertools.product([False, True], repeat=8):
        keep = np.array(kept)
        mine = problem.loss(solve_on_mask(problem, keep[None, :, None]))
        # What is lost with some, by the inverse of all (block elimination).
        gone = np.flatnonzero(~keep)
        inverse = np.linalg.inv(gram)[np.ix_(gone, gone)]
        exact = best[gone] @ np.linalg.solve(inverse, best[gone]) if len(gone) else 0.0
        np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-12)
        count = int(keep.sum())
        least[count] = min(least.get(count, np.inf), exact)
    order = np.argsort(obs_scores(problem, Granularity.of("weight"), 8)[0, :, 0])
    for count in range(1, 9):
        keep = np.ones((1, 8, 1), bool)
        keep[0, order[: 8 - count]] = False
        greedy = problem.loss(solve_on_mask(problem, keep))
        assert least[count] - 1e-9 <= greedy <= 1.5 * least[count] + 1e-9


def test_the_square_of_a_wanda_score_is_the_loss_of_that_weight_alone():
    problem = problem_of(9, 4, groups=2, ridge=0.0)
    scores = wanda_scores(problem)
    for place in itertools.product(range(2), range(9), range(4)):
        without = problem.first.copy()
        without[place] = 0
        assert np.isclose(scores[place] ** 2, loss_of(problem, without))


@pytest.mark.parametrize("sparsity", [0.29, 0.5, 0.8])
def test_wanda_masks_are_those_of_the_definition(sparsity):
    x, w = rows_of(100, 7)
    w[0, 10:40] = w[0, 10]  # ties
    x[0, :, 10:40] = x[0, :, 10:11]
    problem = moments_of(x, w, centred=False).problem(0.0)
    rule = MaskRule("wanda", Granularity.of("weight"), "output")
    keep, weights = rule(problem, 100, sparsity, np.zeros(w.shape, bool))
    for output in range(7):
        score = np.abs(w[0, :, output]) * np.linalg.norm(x[0], axis=0)
        # Among equals the first goes; rounding must not tell them apart.
        order = np.argsort(score.round(9), kind="stable")
        gone = order[: {0.29: 29, 0.5: 50, 0.8: 80}[sparsity]]
        assert not keep[0, gone, output].any()
        assert keep[0, :, output].sum() == 100 - len(gone)
    np.testing.assert_array_equal(weights, np.where(keep, w, 0))


def greedily(gram, best, cell, quota=None):
    """Remove cells of inputs one by one; gives their order, and the losses."""
    inputs, left = len(gram), list(range(len(gram) // cell))
    alive = np.ones(inputs, bool)
    weights, order, losses = best.copy(), [], []
    while left:
        found = {}
        kept = np.flatnonzero(alive)
        inverse = np.linalg.inv(gram[np.ix_(kept, kept)])
        for one in left:
            if (
                quota
                and sum(o // quota[1] == one // quota[1] for o in order) == quota[0]
            ):
                continue
            at = np.searchsorted(kept, range(one * cell, (one + 1) * cell))
            inner = np.linalg.inv(inverse[np.ix_(at, at)])
            found[one] = np.trace(weights[kept[at]].T @ inner @ weights[kept[at]])
        if not found:
            break
        one = min(found, key=found.__getitem__)
        alive[one * cell : (one + 1) * cell] = False
        kept = np.flatnonzero(alive)
        weights = np.zeros_like(best)
        weights[kept] = np.linalg.solve(gram[np.ix_(kept, kept)], (gram @ best)[kept])
        order.append(one)
        losses.append(found[one])
        left.remove(one)
    return order, losses


@pytest.mark.parametrize(
    ("spec", "cell", "wide", "quota"),
    [
        ("weight", 1, 1, None),
        ((4, 1), 4, 1, None),
        ((3, 2), 3, 2, None),
        ("2:4", 1, 1, (2, 4)),
    ],
)
def test_obs_is_greedy_removal_with_everything_solved_again(spec, cell, wide, quota):
    problem = problem_of(84, 4)
    gram, best = problem.gram[0], problem.best[0]
    scores = obs_scores(problem, Granularity.of(spec), 84)[0]
    for output in range(0, 4, wide):
        part = best[:, output : output + wide]
        order, losses = greedily(gram, part, cell, quota)
        mine = scores[::cell, output]
        assert list(np.argsort(mine)[: len(order)]) == order
        np.testing.assert_allclose(
            np.sort(mine)[: len(order)], np.maximum.accumulate(losses), rtol=1e-6
        )
        same = scores[:, output : output + wide].reshape(-1, cell, wide)
        assert (same == same[:, :1, :1]).all()


def test_obs_takes_what_is_gone_first():
    problem = problem_of(20, 3)
    gone = np.random.default_rng(0).random((1, 20, 3)) < 0.3
    scores = obs_scores(problem, Granularity.of("weight"), 20, gone)
    for output in range(3):
        count = gone[0, :, output].sum()
        first = np.argsort(scores[0, :, output])[:count]
        assert set(first) == set(np.flatnonzero(gone[0, :, output]))


@pytest.mark.parametrize("spec", ["weight", "2:4", (4, 1), (2, 3)])
@pytest.mark.parametrize("at_once", [8, 20, 128])
def test_the_errors_of_sparsegpt_add_up_to_the_loss(spec, at_once):
    problem = problem_of(60, 6, groups=2)
    kind = Granularity.of(spec)
    keep, weights, errors = sparsegpt(problem, 0.5, kind, 20, at_once=at_once)
    assert not weights[~keep].any()
    assert np.isclose(errors, loss_of(problem, weights))
    assert np.isclose(keep.mean(), 0.5, atol=0.01)
    if spec == "2:4":
        assert (keep.reshape(2, 15, 4, 6).sum(axis=2) == 2).all()
    # It never goes back, so a solution loses less.
    assert problem.loss(solve_on_mask(problem, keep)) <= errors


def test_sparsegpt_makes_up_with_later_inputs_only():
    """Input by input, later ones solved again with the earlier ones as they are."""
    problem = problem_of(10, 2)
    keep, found, _ = sparsegpt(problem, 0.5, Granularity.of("weight"), 10)
    gram, weights = problem.gram[0], problem.best[0].copy()
    for row, output in itertools.product(range(10), range(2)):
        if keep[0, row, output]:
            continue
        later = np.arange(row + 1, 10)
        weights[row, output] = 0
        fixed = weights[: row + 1, output] - problem.best[0, : row + 1, output]
        pull = gram[np.ix_(later, range(row + 1))] @ fixed
        change = np.linalg.solve(gram[np.ix_(later, later)], pull)
        weights[later, output] = problem.best[0, later, output] - change
    np.testing.assert_allclose(found[0], weights, atol=1e-9)


@pytest.mark.parametrize("method", ["wanda", "obs", "sparsegpt"])
@pytest.mark.parametrize("scope", ["layer", "output"])
def test_patterns_and_blocks_stay_within_a_place(method, scope):
    """Six inputs at each of three places: the last group of four is half empty."""
    if (method, scope) == ("sparsegpt", "output"):
        return
    problem = problem_of(18, 4)
    none = np.zeros((1, 18, 4), bool)
    keep, _ = MaskRule(method, Granularity.of("2:4"), scope)(problem, 6, 0.5, none)
    counts = (~keep).reshape(3, 6, 4)
    assert (counts[:, :4].sum(axis=1) == 2).all()
    assert not counts[:, 4:].any()  # filled up with zeros, which it loses first
    keep, _ = MaskRule(method, Granularity.of((4, 2)), scope)(problem, 6, 0.5, none)
    cells = keep.reshape(3, 6, 2, 2)
    assert (cells[:, :4] == cells[:, :1, :, :1]).all()
    assert (cells[:, 4:] == cells[:, 4:5, :, :1]).all()
    assert 0.3 < (~keep).mean() < 0.7


def test_masks_only_grow():
    problem = problem_of(30, 5)
    gone = np.random.default_rng(0).random((1, 30, 5)) < 0.3
    for method, scope in itertools.product(("wanda", "obs"), ("layer", "output")):
        rule = MaskRule(method, Granularity.of("weight"), scope)
        keep, weights = rule(problem, 30, 0.6, gone)
        assert not keep[gone].any() and not weights[gone].any()
        keep, _ = rule(problem, 30, 0.0, gone)
        np.testing.assert_array_equal(keep, ~gone)
    kind = Granularity.of("weight")
    keep, weights, _ = sparsegpt(problem, 0.6, kind, 30, gone, at_once=7)
    assert not keep[gone].any() and not weights[gone].any()
    assert np.isclose(keep.mean(), 0.4, atol=0.03)


@pytest.mark.parametrize("method", ["wanda", "obs", "sparsegpt"])
def test_dead_inputs_go_first_and_what_is_kept_of_them_keeps_its_value(method):
    x, w = rows_of(20, 4)
    x[0, :, 3:8] = 0.7
    problem = moments_of(x, w).problem(RIDGE)
    rule = MaskRule(method, Granularity.of("weight"), "output")
    if method == "sparsegpt":
        rule = MaskRule(method, Granularity.of("weight"), "layer")
    keep, _ = rule(problem, 20, 0.2, np.zeros((1, 20, 4), bool))
    assert keep[0, 3:8].sum() == 4 and keep.sum() == 64
    solved = solve_on_mask(problem, keep)
    dead = keep[0, 3:8]
    np.testing.assert_allclose(solved[0, 3:8][dead], w[0, 3:8][dead], rtol=1e-6)
    without_ridge = solve_on_mask(moments_of(x, w).problem(0.0), keep)
    np.testing.assert_allclose(without_ridge[0, 3:8][dead], w[0, 3:8][dead], atol=1e-6)


def test_steps_come_near_the_solution():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    gram = turn @ np.diag(np.logspace(0, 4, 64)) @ turn.T
    first = rng.normal(size=(64, 16))
    problem = LayerProblem(
        gram[None], (gram @ first)[None], first[None], np.diag(gram), 1.0
    )
    keep = rng.random((1, 64, 16)) > 0.6
    exact = problem.loss(solve_on_mask(problem, keep))
    steps = solve_on_mask(problem, keep, affordable=0)
    assert not steps[~keep].any()
    assert exact <= problem.loss(steps) < 1.002 * exact


def test_what_solving_pays():
    """A toy layer: 64 correlated inputs, 32 outputs, half of the weights to go."""
    found = {}
    for draw in range(3):
        rng = np.random.default_rng(draw)
        hidden = rng.normal(size=(1024, 16)) @ rng.normal(size=(16, 64))
        x = np.maximum(hidden + 0.3 * rng.normal(size=(1024, 64)), 0)[None]
        w = rng.normal(size=(1, 64, 32))
        as_it_is = moments_of(x, w, centred=False).problem(1e-6)
        problem = moments_of(x, w).problem(1e-6)
        none = np.zeros(w.shape, bool)
        for method in ("wanda", "obs", "sparsegpt"):
            scope = "layer" if method == "sparsegpt" else "output"
            rule = MaskRule(method, Granularity.of("weight"), scope)
            keep, weights = rule(as_it_is, 64, 0.5, none)
            plain = as_it_is.loss(weights)
            solved = problem.loss(solve_on_mask(problem, keep))
            for how, loss in (("plain", plain), ("solved", solved)):
                found.setdefault((method, how), []).append(loss / as_it_is.energy)
    mean = {key: 100 * np.mean(parts) for key, parts in found.items()}
    assert 4 < mean["wanda", "plain"] < 12 and mean["wanda", "solved"] < 2
    assert mean["wanda", "plain"] > 3 * mean["wanda", "solved"]
    assert mean["sparsegpt", "plain"] > 1.5 * mean["sparsegpt", "solved"]
    assert mean["obs", "solved"] < min(mean["wanda", "solved"], mean["obs", "plain"])
    assert mean["obs", "solved"] < mean["sparsegpt", "solved"]
