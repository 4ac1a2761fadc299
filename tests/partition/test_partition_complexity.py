"""Knots near inputs against plain geometry, and bounds on regions against counts."""

import itertools
import math

import numpy as np
import pytest
import zoo
from partition_reference import randomize

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError, ProbeError
from tf_spline_prune.partition.codes._local_complexity import ComplexityMeter


def mlp(K, widths=(30, 20), size=6):
    L = K.layers
    x = inputs = K.Input((size,))
    for number, width in enumerate(widths):
        x = L.Dense(width, activation="relu", name=f"layer_{number}")(x)
    return randomize(K.Model(inputs, L.Dense(3, name="head")(x)))


POINTS = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def test_the_first_layer_is_a_matter_of_distances(K):
    model = mlp(K)
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights()[:2])
    radius, directions = 0.3, 4
    frame = ComplexityMeter(model, radius, directions)._corners([(6,)])[0][:directions]
    np.testing.assert_allclose(
        frame @ frame.T, radius**2 * np.eye(directions), atol=1e-15
    )
    near = tsp.local_complexity(model, POINTS, radius, directions=directions)
    # A plane passes between the corners if it is nearer than the farthest of them.
    height = np.abs(POINTS @ kernel + bias)
    reach = np.abs(frame @ kernel).max(axis=0)
    np.testing.assert_array_equal(near["layer_0"], (height < reach).sum(axis=1))


def test_deeper_layers_are_counted_at_the_corners(K):
    model = mlp(K)
    radius = 0.5
    near = tsp.local_complexity(model, POINTS, radius, directions=6, batch_size=7)
    corners = ComplexityMeter(model, radius, 6)._corners([(6,)])[0]
    w = [np.asarray(v, "float64") for v in model.get_weights()]
    for i, point in enumerate(POINTS):
        hidden = np.maximum((point + corners) @ w[0] + w[1], 0)
        ahead = hidden @ w[2] + w[3] > 0
        mixed = ahead.any(axis=0) & ~ahead.all(axis=0)
        assert near["layer_1"][i] == mixed.sum()


def test_a_larger_radius_meets_more_of_the_first_layer(K):
    model = mlp(K)
    counts = [
        tsp.local_complexity(model, POINTS, r, layers="layer_0")["layer_0"]
        for r in (0.01, 0.1, 0.5, 2.0, 50.0)
    ]
    assert all((a <= b).all() for a, b in itertools.pairwise(counts))
    assert counts[0].sum() < 40 and (counts[-1] == 30).all()


def test_no_knot_is_near(K):
    model = mlp(K)
    values = model.get_weights()
    values[1][:], values[3][:] = 1000.0, 100000.0
    model.set_weights(values)
    near = tsp.local_complexity(model, POINTS, 0.5)
    assert not any(count.any() for count in near.values())


def test_folding_batch_normalization_changes_nothing(K):
    L = K.layers
    x = inputs = K.Input((6,))
    x = L.BatchNormalization(epsilon=1e-3)(L.Dense(25)(x))
    whole = randomize(K.Model(inputs, L.Dense(2)(L.ReLU(name="act")(x))))
    kernel, bias, gamma, beta, mean, variance = (
        np.asarray(w, "float64") for w in whole.get_weights()[:6]
    )
    scale = gamma / np.sqrt(variance + 1e-3)
    x = inputs = K.Input((6,))
    folded = K.Model(inputs, L.Dense(2)(L.ReLU(name="act")(L.Dense(25)(x))))
    folded.set_weights(
        [kernel * scale, beta + scale * (bias - mean), *whole.get_weights()[6:]]
    )
    one, other = (tsp.local_complexity(m, POINTS, 0.2)["act"] for m in (whole, folded))
    np.testing.assert_array_equal(one, other)
    assert one.any()


def test_images_and_many_lots(K, monkeypatch):
    model = zoo.resnet(K)
    x = np.random.default_rng(1).normal(size=(9, *model.inputs[0].shape[1:]))
    at_once = tsp.local_complexity(model, x, 0.05, directions=5)
    monkeypatch.setattr(
        "tf_spline_prune.partition.codes._local_complexity._AT_ONCE", 1000
    )
    for name, count in tsp.local_complexity(model, x, 0.05, directions=5).items():
        np.testing.assert_array_equal(count, at_once[name])
        assert count.shape == (9,)


def test_wrong_input(K):
    model = mlp(K)
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="radius"):
            tsp.local_complexity(model, POINTS, radius)
    with pytest.raises(ValueError, match="directions"):
        tsp.local_complexity(model, POINTS, 0.1, directions=0)
    with pytest.raises(ProbeError, match="shape"):
        tsp.local_complexity(model, POINTS[:, :3], 0.1)
    with pytest.raises(ValueError, match="layers that have knots"):
        tsp.local_complexity(model, POINTS, 0.1, layers=["head"])
    linear = K.Sequential([K.Input((6,)), K.layers.Dense(3)])
    with pytest.raises(ModelError, match="no\\s+partition"):
        tsp.local_complexity(linear, POINTS, 0.1)


def test_bounds():
    assert (tsp.max_regions(8, 2), tsp.max_regions(7, 2)) == (37, 29)
    for knots, dimension in itertools.product(range(9), range(7)):
        expected = sum(math.comb(knots, i) for i in range(dimension + 1))
        assert tsp.max_regions(knots, dimension) == expected
    assert tsp.max_regions(10, 10) == 2 * tsp.max_regions(9, 10) == 2**10
    assert tsp.max_regions([20, 20], 2) == 211**2
    with pytest.raises(ValueError, match="at least 0"):
        tsp.max_regions(-1, 2)


def test_a_slice_of_one_layer_reaches_the_bound(K):
    model = mlp(K, widths=(9,), size=2)
    plane = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    s = tsp.slice2d(model, plane, extent=(-1000.0, 1000.0))
    assert s.num_regions == tsp.max_regions(9, 2)


def test_points_lie_in_so_many_regions(K):
    model = mlp(K)
    codes = tsp.PartitionCoder(model)(POINTS)
    seen = {
        tuple(codes.unpack("layer_0")[i]) + tuple(codes.unpack("layer_1")[i])
        for i in range(len(POINTS))
    }
    assert codes.num_regions == len(seen)
    assert tsp.PartitionCoder(model)(np.repeat(POINTS[:1], 5, 0)).num_regions == 1
