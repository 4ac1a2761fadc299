"""Statistics measured again, against float64 NumPy on what goes into each norm."""

import numpy as np
import pytest
import zoo
from regression_reference import inputs_of, mixed_plan, weights_of

import tf_spline_prune as tsp
from tf_spline_prune.errors import CalibrationError, FlavourError, ModelError


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def norms_of(model):
    return [one for one in model.layers if type(one).__name__ == "BatchNormalization"]


@pytest.mark.parametrize("build", [zoo.vgg, zoo.preact_resnet])
def test_statistics(K, build):
    model = build(K)
    model = mixed_plan(model, sparsity=0.3).apply(model)
    x = points(45, *zoo.SHAPE)
    before = [value.copy() for value in model.get_weights()]
    result = tsp.recalibrate_batchnorm(model, x, batch_size=20)
    norms = norms_of(model)
    assert len(norms) >= 3
    changed = set()
    for norm in norms:
        # What comes through the norms before, as they are now.
        given = inputs_of(K, result, norm.name, x)
        rows = given.reshape(-1, given.shape[-1])
        found, old = (weights_of(one)[norm.name] for one in (result, model))
        np.testing.assert_allclose(found["moving_mean"], rows.mean(axis=0), atol=2e-5)
        np.testing.assert_allclose(found["moving_variance"], rows.var(axis=0), 1e-4)
        assert np.abs(found["moving_mean"] - old["moving_mean"]).max() > 0.01
        changed |= {(norm.name, "moving_mean"), (norm.name, "moving_variance")}
    after = weights_of(result)
    for name, weights in weights_of(model).items():
        for key, value in weights.items():
            if (name, key) not in changed:
                np.testing.assert_array_equal(after[name][key], value)
    for one, two in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)


def test_memory_and_batches_do_not_matter(K):
    model, x = zoo.vgg(K), points(30, *zoo.SHAPE)
    want = tsp.recalibrate_batchnorm(model, x).get_weights()
    for settings in ({"max_bytes": 1}, {"batch_size": 7}, {"batch_size": 99}):
        found = tsp.recalibrate_batchnorm(model, x, **settings).get_weights()
        for one, two in zip(found, want, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-4)


def test_far_from_zero(K):
    """The variance does not drown in the mean."""
    model = K.Sequential([K.Input((3,)), K.layers.BatchNormalization(name="norm")])
    x = points(400, 3) + np.float32(3000.0)
    found = weights_of(tsp.recalibrate_batchnorm(model, x))["norm"]
    exact = x.astype("float64")
    np.testing.assert_allclose(found["moving_mean"], exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["moving_variance"], exact.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("max_bytes", [1, 2**29])
def test_a_shared_norm_is_measured_over_its_uses(K, max_bytes):
    """A norm of its own lies between them, and is measured first."""
    L = K.layers
    inputs = K.Input((5,))
    shared = L.BatchNormalization(name="shared")
    x = L.Dense(5, activation="relu", name="one")(shared(inputs))
    x = L.BatchNormalization(name="between")(x)
    x = shared(L.Dense(5, name="two")(x))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    x = points(60, 5)
    found = weights_of(tsp.recalibrate_batchnorm(model, x, max_bytes=max_bytes))

    w, x = weights_of(model), x.astype("float64")

    def normed(x, weights):
        scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + 1e-3)
        return (x - weights["moving_mean"]) * scale + weights["beta"]

    one = np.maximum(normed(x, w["shared"]) @ w["one"]["kernel"] + w["one"]["bias"], 0)
    between = found["between"]
    np.testing.assert_allclose(between["moving_mean"], one.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(between["moving_variance"], one.var(axis=0), rtol=1e-4)
    two = normed(one, between) @ w["two"]["kernel"] + w["two"]["bias"]
    both = np.concatenate([x, two])
    shared = found["shared"]
    np.testing.assert_allclose(shared["moving_mean"], both.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(shared["moving_variance"], both.var(axis=0), rtol=1e-4)


def test_another_axis(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((4, 6)),
                L.BatchNormalization(axis=1, name="norm"),
                L.Dense(3, name="head"),
            ]
        )
    )
    x = points(50, 4, 6) * np.arange(1, 5)[:, None]
    found = weights_of(tsp.recalibrate_batchnorm(model, x))["norm"]
    rows = np.swapaxes(x.astype("float64"), 1, 2).reshape(-1, 4)
    np.testing.assert_allclose(found["moving_mean"], rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found["moving_variance"], rows.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("build", [zoo.nested, zoo.subclassed])
def test_nested_and_subclassed(K, build):
    """Twice is once: each norm is measured on what the measured ones give."""
    model, x = build(K), points(20, *zoo.SHAPE)
    once = tsp.recalibrate_batchnorm(model, x)
    again = tsp.recalibrate_batchnorm(once, x)
    moved = 0.0
    for old, one, two in zip(
        model.get_weights(), once.get_weights(), again.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)
        moved = max(moved, np.abs(old - one).max())
    assert moved > 0.1


def test_a_model_without_norms(K):
    model = zoo.mlp(K)
    result = tsp.recalibrate_batchnorm(model, points(9, 12))
    assert result is not model
    for one, two in zip(result.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_wrong_input(K):
    model, x = zoo.vgg(K), points(9, *zoo.SHAPE)
    for data in (None, x[:0], x[:, 1:], np.full_like(x, np.nan), [x, x]):
        with pytest.raises(CalibrationError):
            tsp.recalibrate_batchnorm(model, data)
    for wrong in ({"batch_size": 0}, {"batch_size": -3}, {"max_bytes": 0}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            tsp.recalibrate_batchnorm(model, x, **wrong)
    for wrong in (None, "model", x):
        with pytest.raises(FlavourError):
            tsp.recalibrate_batchnorm(wrong, x)
    with pytest.raises(ModelError):
        tsp.recalibrate_batchnorm(K.Sequential([K.layers.Dense(3)]), x)
