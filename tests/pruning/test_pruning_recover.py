"""`prune(recover=...)`: what is lost, and what comes back."""

import numpy as np
import pytest
import zoo
from regression_reference import weights_of

import tf_spline_prune as tsp
from tf_spline_prune.errors import CalibrationError

STEPS = ("merge", "least_squares", "batchnorm")


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def low_rank(model, names, rank, seed=0):
    """Make the units of layers depend on each other, roughly, as training does."""
    rng = np.random.default_rng(seed)
    for name in names:
        kernel, *rest = model.get_layer(name).get_weights()
        flat = kernel.reshape(-1, kernel.shape[-1])
        left, values, right = np.linalg.svd(flat, full_matrices=False)
        values[rank:] *= 0.05
        flat = (left * values) @ right + 0.01 * rng.normal(size=flat.shape)
        model.get_layer(name).set_weights([flat.reshape(kernel.shape), *rest])
    return model


def error(model, small, x):
    whole, found = (np.asarray(one(x, training=False)) for one in (model, small))
    return np.sqrt(np.mean((whole - found) ** 2) / whole.var())


def test_reconstruction_and_least_squares_save_most_of_the_output(K):
    names = ["a2_conv", "b1_conv"]
    model = low_rank(zoo.vgg(K), names, 6)
    x, fresh = points(100, *zoo.SHAPE), points(50, *zoo.SHAPE, seed=1)
    settings = {"sparsity": 0.4, "layers": names, "verify": False}
    bare = tsp.prune(model, "reconstruction", data=x, recover=None, **settings)
    full = tsp.prune(model, "reconstruction", data=x, **settings)
    blind = tsp.prune(model, "random", recover=None, **settings)
    solved = tsp.prune(model, "random", data=x, recover="least_squares", **settings)
    errors = [error(model, one, fresh) for one in (full, solved, bare, blind)]
    full, solved, bare, blind = errors
    assert full < 0.4 * bare, errors
    assert full < 0.8 * solved, errors
    assert solved < 0.6 * blind, errors


def test_what_each_value_does(K):
    model, x = zoo.mlp(K), points(200, 12)
    plan = tsp.plan(model, "spline", sparsity=0.4)
    plain = plan.apply(model)
    merged = plan.apply(tsp.merge(model, plan))
    solve = tsp.least_squares
    expected = {
        None: plain,
        (): plain,
        "merge": merged,
        ("merge",): merged,
        "least_squares": solve(model, plain, plan, x),
        ("merge", "least_squares"): solve(model, merged, plan, x),
        ("least_squares", "merge"): solve(model, merged, plan, x),  # always so
        "auto": solve(model, merged, plan, x),
    }
    for recover, want in expected.items():
        recover = list(recover) if isinstance(recover, tuple) else recover
        found = tsp.prune(model, "spline", sparsity=0.4, data=x, recover=recover)
        for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two, err_msg=str(recover))
    found = tsp.prune(model, sparsity=0.4)
    for one, two in zip(found.get_weights(), merged.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_batchnorm_comes_last(K):
    model, x = zoo.vgg(K), points(40, *zoo.SHAPE)
    steps = ["batchnorm", "least_squares"]
    settings = {"sparsity": 0.3, "layers": ["a1_conv", "a2_conv"], "data": x}
    found = tsp.prune(model, recover=steps, **settings)
    solved = tsp.prune(model, recover=["least_squares"], **settings)
    want = tsp.recalibrate_batchnorm(solved, x)
    for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    alone = tsp.prune(model, recover="batchnorm", **settings)
    kernel = weights_of(alone)["b1_conv"]["kernel"]
    assert np.abs(kernel - weights_of(found)["b1_conv"]["kernel"]).max() > 1e-3


def test_data_may_be_batches_that_come_once(K):
    model, x = zoo.mlp(K), points(100, 12)
    settings = {"sparsity": 0.4, "recover": list(STEPS)}
    want = tsp.prune(model, "reconstruction", data=x, **settings)
    once = ((x[i : i + 20], np.zeros(20)) for i in range(0, 100, 20))
    found = tsp.prune(model, "reconstruction", data=once, **settings)
    for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("wrong", ["Merge", "all", ["merge", "least"], [None], 3, True])
def test_unknown_steps(K, wrong):
    with pytest.raises(ValueError, match="`recover` must be.* or None"):
        tsp.prune(zoo.mlp(K), sparsity=0.4, recover=wrong)


@pytest.mark.parametrize(
    "steps", ["least_squares", "batchnorm", ["merge", "least_squares"], STEPS]
)
def test_steps_that_need_data(K, steps):
    with pytest.raises(CalibrationError, match="data=x_train"):
        tsp.prune(zoo.mlp(K), sparsity=0.4, recover=steps)


def test_recovery_goes_with_the_models_own_weights(K):
    model, x = zoo.mlp(K), points(30, 12)
    for weights in ("reinitialize", zoo.mlp(K)):
        for steps in ("merge", ["least_squares"], "batchnorm"):
            with pytest.raises(ValueError, match='weights="inherit" only'):
                tsp.prune(
                    model,
                    "spline",
                    sparsity=0.4,
                    data=x,
                    recover=steps,
                    weights=weights,
                )
    other = zoo.settle(zoo.mlp(K), seed=1)
    found = tsp.prune(
        model, "spline", sparsity=0.4, data=x, weights=other
    )  # "auto": nothing
    want = tsp.plan(model, "spline", sparsity=0.4).apply(model, other)
    for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_one_pass_serves_criterion_and_recovery(K, monkeypatch):
    """And what `prune` decides is what `plan` does."""
    from tf_spline_prune.pruning.recovery import _recording

    def second(*args):
        raise AssertionError("the data run through the model again")

    model, x = zoo.vgg(K), points(80, *zoo.SHAPE)
    plan = tsp.plan(model, target_macs=0.6, data=x)
    want = tsp.least_squares(model, plan.apply(model), plan, x)
    monkeypatch.setattr(_recording, "watch", second)
    found = tsp.prune(model, target_macs=0.6, data=x)
    for one, two in zip(found.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    with pytest.raises(AssertionError, match="again"):
        tsp.prune(model, "magnitude", target_macs=0.6, data=x)
