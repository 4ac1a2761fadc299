"""Sensitivity: each group alone, to each share, and nothing else."""

import json

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import CalibrationError, FlavourError


def inputs(model, count=16):
    shape = tuple(model.inputs[0].shape[1:])
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False)).astype("float64")


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_each_group_alone(K, name):
    model = getattr(zoo, name)(K)
    before = [np.array(w) for w in model.get_weights()]
    shares = (0.25, 0.5)
    result = tsp.sensitivity(
        model, None, lambda small: small.count_params(), "magnitude", shares
    )
    assert result.dense == model.count_params()
    assert result.shares == shares
    groups = {g.name: g for g in tsp.ChannelGraph(model).groups}
    assert set(result.metrics) == set(groups)
    for layer, values in result.metrics.items():
        assert result.units[layer] == groups[layer].num_units
        for share, value in zip(shares, values, strict=True):
            # Magnitude's scores of one group do not depend on the others'.
            alone = tsp.plan(
                model, "magnitude", sparsity=share, layers=list(groups[layer].makers)
            )
            assert set(alone.removed) == set(groups[layer].makers)
            assert value == alone.after.params
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_numbers_are_those_of_the_masked_model(K):
    model = zoo.mlp(K)
    x = inputs(model)
    whole = outputs(model, x)
    result = tsp.sensitivity(
        model,
        x,
        lambda small: np.abs(outputs(small, x) - whole).max(),
        "magnitude",
        shares=(0.5,),
    )
    kernel = model.get_layer("first").get_weights()[0]
    gone = np.argsort(np.linalg.norm(kernel, axis=0), kind="stable")[:16]
    reader, bias = (np.array(w) for w in model.get_layer("second").get_weights())
    reader[gone] = 0
    model.get_layer("second").set_weights([reader, bias])
    expected = np.abs(outputs(model, x) - whole).max()
    assert result.metrics["first"][0] == pytest.approx(expected, rel=1e-4)
    assert result.dense == pytest.approx(0, abs=1e-6)


def test_equal_models_are_measured_once_and_one_unit_stays(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential([K.Input((5,)), L.Dense(3, name="hidden"), L.Dense(2)])
    )
    seen = []

    def evaluate(small):
        seen.append(small.count_params())
        return small.get_layer("hidden").units

    result = tsp.sensitivity(model, None, evaluate, shares=(0.9, 0.1, 0.95, 0.34))
    assert result.shares == (0.1, 0.34, 0.9, 0.95)
    assert result.metrics == {"hidden": (3.0, 2.0, 1.0, 1.0)}
    assert len(seen) == 3  # three units, two, one


def test_layers_frozen_ones_and_approximate(K):
    L = K.layers
    model = zoo.mlp(K)
    model.get_layer("first").trainable = False
    count = lambda small: small.count_params()  # noqa: E731
    assert set(tsp.sensitivity(model, None, count).metrics) == {"second"}
    named = tsp.sensitivity(model, None, count, layers="first", shares=[0.5])
    assert set(named.metrics) == {"first"}
    x = inputs_ = K.Input((6,))
    x = L.LayerNormalization()(L.Dense(8, name="one")(x))
    normed = zoo.settle(K.Model(inputs_, L.Dense(3)(x)))
    with pytest.raises(ValueError, match="nothing to measure"):
        tsp.sensitivity(normed, None, count)
    assert set(tsp.sensitivity(normed, None, count, approximate=True).metrics) == {
        "one"
    }


def test_table_and_dict(K):
    model = zoo.mlp(K)
    result = tsp.sensitivity(
        model, None, lambda small: 0.5, "random", shares=(0.1, 0.5), seed=3
    )
    assert json.loads(json.dumps(result.to_dict())) == {
        "criterion": "random",
        "dense": 0.5,
        "shares": [0.1, 0.5],
        "units": {"first": 32, "second": 24},
        "metrics": {"first": [0.5, 0.5], "second": [0.5, 0.5]},
    }
    lines = str(result).splitlines()
    assert lines[2].split() == ["layer", "units", "10%", "50%"]
    assert lines[3].split() == ["first", "32", "0.5", "0.5"]


def test_wrong_input(K):
    model = zoo.mlp(K)
    good = lambda small: 0.5  # noqa: E731
    for wrong in ((), (0.0, 0.5), (0.5, 1.0), (0.5, "many"), 0.5):
        with pytest.raises(ValueError, match="`shares`"):
            tsp.sensitivity(model, None, good, shares=wrong)
    with pytest.raises(TypeError, match="`evaluate` must be a function"):
        tsp.sensitivity(model, None, 0.5)
    with pytest.raises(TypeError, match="must return one number"):
        tsp.sensitivity(model, None, lambda small: "good")
    with pytest.raises(ValueError, match="names no layer"):
        tsp.sensitivity(model, None, good, layers="third")
    with pytest.raises(ValueError, match="nothing to measure"):
        tsp.sensitivity(model, None, good, layers="head")
    with pytest.raises(CalibrationError):
        tsp.sensitivity(model, np.zeros((4, 13), "float32"), good)
    with pytest.raises(FlavourError):
        tsp.sensitivity("model", None, good)
