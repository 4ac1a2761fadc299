"""The knobs that criteria share: how layers are joined, how groups compare."""

import numpy as np
import pytest
from criteria_models import applies, prepared, small_residual, weight

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.criteria._criterion import divisor, reduced, reduced_rows

ALGEBRA = {
    "mean": lambda raw: raw.mean(axis=0),
    "sum": lambda raw: raw.sum(axis=0),
    "max": lambda raw: raw.max(axis=0),
    "first": lambda raw: raw[0],
}
DIVISORS = {"none": lambda s: 1.0, "mean": np.mean, "max": np.max, "sum": np.sum}


@pytest.mark.parametrize("reduction", list(ALGEBRA))
def test_algebra(reduction):
    raw = np.random.default_rng(0).standard_normal((3, 5))
    want = ALGEBRA[reduction](raw)
    np.testing.assert_allclose(reduced(list(raw), reduction), want)
    matrices = np.random.default_rng(1).random((3, 5, 5))
    rows = reduced_rows([lambda i, m=m: m[i] for m in matrices], reduction)
    some = np.array([4, 1])
    np.testing.assert_allclose(rows(some), ALGEBRA[reduction](matrices)[some])


def test_divisors():
    scores = np.array([1.0, -2.0, 5.0])
    assert divisor(scores, "none") == 1
    assert divisor(scores, "mean") == pytest.approx(8 / 3)
    assert divisor(scores, "max") == 5
    assert divisor(scores, "sum") == 8
    assert all(divisor(np.zeros(3), name) == 1 for name in DIVISORS)


@pytest.mark.parametrize("normalizer", list(DIVISORS))
@pytest.mark.parametrize("reduction", list(ALGEBRA))
def test_of_magnitude_and_batchnorm_scale(K, reduction, normalizer):
    model = small_residual(K)
    knobs = {"reduction": reduction, "normalizer": normalizer}
    for criterion, layers, name in (
        (criteria.Magnitude(p=1, **knobs), ("stem", "branch"), "kernel"),
        (criteria.BatchNormScale(**knobs), ("stem_bn", "branch_bn"), "gamma"),
    ):
        parts = [np.abs(weight(model, layer, name)) for layer in layers]
        raw = np.array([part.reshape(-1, 6).sum(axis=0) for part in parts])
        raw = np.array([row / DIVISORS[normalizer](row) for row in raw])
        groups = prepared(model, criterion)
        found = criterion.scores(groups["stem"])
        np.testing.assert_allclose(found, ALGEBRA[reduction](raw), rtol=1e-6)
        assert criterion.get_config() == {**criterion.get_config(), **knobs}


@pytest.mark.parametrize("reduction", list(ALGEBRA))
def test_of_spline(K, reduction):
    model = small_residual(K)
    every = np.arange(6)
    alone = []
    for layer in ("stem", "branch"):
        kernel = weight(model, layer, "kernel")
        gamma = weight(model, f"{layer}_bn", "gamma")
        rows = (kernel * gamma / 1).reshape(-1, 6).T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        alone.append(1 - rows @ rows.T)
    criterion = criteria.Spline(rho=0.0, reduction=reduction)
    groups = prepared(model, criterion)
    found = criterion.pairs(groups["stem"]).rows(every)
    np.testing.assert_allclose(found, ALGEBRA[reduction](np.array(alone)), atol=3e-6)
    assert (np.diag(found) == 0).all()


@pytest.mark.parametrize("normalizer", list(DIVISORS))
def test_groups_are_compared(K, normalizer):
    """The plan is the one that the scores, divided group by group, ask for."""
    model = small_residual(K)
    criterion = criteria.LAMP(normalizer="none")
    groups = prepared(model, criterion)
    scores = {name: criterion.scores(group) for name, group in groups.items()}

    class Given(criteria.Criterion):
        name = "given"

        def get_config(self):
            return {}

        def scores(self, group):
            return scores[group.name]

    given = Given()
    given.normalizer = normalizer
    plan = tsp.plan(model, given, sparsity=0.4, max_sparsity=0.99)
    ranked = sorted(
        (score / DIVISORS[normalizer](values), name, unit)
        for name, values in scores.items()
        for unit, score in enumerate(values)
    )
    left = {name: len(values) for name, values in scores.items()}
    gone = []
    for _, name, unit in ranked:
        if left[name] > 1 and len(gone) < round(0.4 * 11):
            gone.append((name, unit))
            left[name] -= 1
    expected = {name: sorted(u for n, u in gone if n == name) for name in left}
    found = {name: plan.removed.get(name, []) for name in expected}
    assert found == expected


@pytest.mark.parametrize(
    "name", ["Magnitude", "BatchNormScale", "FPGM", "LAMP", "Spline"]
)
def test_wrong_knobs(name):
    cls = getattr(criteria, name)
    with pytest.raises(ValueError, match="`reduction` must.*Received: reduction='avg'"):
        cls(reduction="avg")
    with pytest.raises(ValueError, match="`normalizer` must.*Received: normalizer=1"):
        cls(normalizer=1)


@pytest.mark.parametrize("reduction", ["sum", "max", "first"])
def test_plans(K, reduction):
    model = small_residual(K)
    plan = applies(model, criteria.Spline(reduction=reduction, normalizer="max"))
    assert plan.criterion_config["reduction"] == reduction
