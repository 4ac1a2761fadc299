"""LAMP scores against the formula, unit by unit."""

import numpy as np
from criteria_models import applies, prepared, small_residual, weight

from tf_spline_prune import criteria
from tf_spline_prune.criteria._lamp import fractions_among_larger


def lamp(squares):
    return np.array([s / squares[squares >= s].sum() for s in squares])


def layer_scores(model, layer):
    kernel = weight(model, layer, "kernel")
    return lamp((kernel**2).reshape(-1, kernel.shape[-1]).sum(axis=0))


def test_scores(K):
    model = small_residual(K)
    criterion = criteria.LAMP()
    groups = prepared(model, criterion)
    np.testing.assert_allclose(
        criterion.scores(groups["inner"]), layer_scores(model, "inner"), rtol=1e-9
    )
    both = [layer_scores(model, name) for name in ("stem", "branch")]
    np.testing.assert_allclose(
        criterion.scores(groups["stem"]), np.mean(both, axis=0), rtol=1e-9
    )
    assert criterion.scores(groups["inner"]).max() == 1


def test_ties_and_zeros():
    np.testing.assert_allclose(
        fractions_among_larger(np.array([1.0, 1.0, 2.0])), [1 / 6, 1 / 6, 1]
    )
    assert fractions_among_larger(np.array([0.0, 0.0, 3.0])).tolist() == [0, 0, 1]
    assert fractions_among_larger(np.zeros(3)).tolist() == [0, 0, 0]


def test_no_layer_runs_dry(K):
    """One layer's weights count a thousandth; its largest unit outlives the rest."""
    model = small_residual(K)
    kernel, bias = model.get_layer("inner").get_weights()
    model.get_layer("inner").set_weights([kernel / 1000, bias])
    plan = applies(model, "lamp")
    assert len(plan.removed.get("inner", [])) < 5
    assert plan.criterion == "lamp"
