"""Sums of distances against a loop in float64."""

import numpy as np
import pytest
from criteria_models import applies, prepared, small_residual, weight

from tf_spline_prune import criteria
from tf_spline_prune.criteria import _fpgm as fpgm


def sums(rows):
    return np.array([np.linalg.norm(rows - row, axis=1).sum() for row in rows])


def layer_sums(model, layer):
    kernel = weight(model, layer, "kernel")
    return sums(kernel.reshape(-1, kernel.shape[-1]).T)


def test_scores(K):
    model = small_residual(K)
    criterion = criteria.FPGM(normalizer="none")
    groups = prepared(model, criterion)
    found = criterion.scores(groups["inner"])
    np.testing.assert_allclose(found, layer_sums(model, "inner"), rtol=1e-5)
    both = np.array([layer_sums(model, name) for name in ("stem", "branch")])
    for reduction, want in {
        "mean": both.mean(axis=0),
        "sum": both.sum(axis=0),
        "max": both.max(axis=0),
        "first": both[0],
    }.items():
        criterion = criteria.FPGM(reduction=reduction, normalizer="none")
        groups = prepared(model, criterion)
        np.testing.assert_allclose(criterion.scores(groups["stem"]), want, rtol=1e-5)
    criterion = criteria.FPGM()
    groups = prepared(model, criterion)
    want = (both / both.mean(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(criterion.scores(groups["stem"]), want, rtol=1e-5)


@pytest.mark.parametrize("pairs", [2**24, 100, 3])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_blocks_duplicates_and_shifts(monkeypatch, pairs, shift):
    monkeypatch.setattr(fpgm, "_PAIRS", pairs)
    rows = np.random.default_rng(0).standard_normal((41, 20)) + shift
    rows[7] = rows[30]
    want = sums(rows)
    np.testing.assert_allclose(fpgm._distance_sums(rows), want, rtol=1e-4)
    found = fpgm._distance_sums(rows * 1e25)  # squares would overflow float32
    np.testing.assert_allclose(found, want * 1e25, rtol=1e-4)
    assert (fpgm._distance_sums(np.ones((4, 3))) == 0).all()
    assert fpgm._distance_sums(np.ones((1, 3))).tolist() == [0]


def test_the_unit_in_the_middle_goes_first(K):
    model = small_residual(K)
    kernel, bias = model.get_layer("inner").get_weights()
    kernel[..., 2] = kernel[..., [0, 1, 3, 4]].mean(axis=-1)
    model.get_layer("inner").set_weights([kernel, bias])
    criterion = criteria.FPGM()
    groups = prepared(model, criterion)
    assert criterion.scores(groups["inner"]).argmin() == 2


def test_plans(K):
    assert applies(small_residual(K), "fpgm").criterion == "fpgm"
