"""Distances between codes: brute force, and what holds of any of them."""

import numpy as np
import partition_reference as ref
import pytest
import zoo

import tf_spline_prune as tsp

POINTS = np.random.default_rng(1).normal(0, 1.5, (60, 12)).astype("float32")
IMAGES = np.random.default_rng(4).normal(0, 1, (20, *zoo.SHAPE)).astype("float32")


def wide_and_narrow(K):
    """A layer of 40 units and one of 3: a bit is not a layer."""
    return K.Sequential(
        [
            K.Input((12,)),
            K.layers.Dense(40, activation="relu", name="wide"),
            K.layers.Dense(3, activation="relu", name="narrow"),
        ]
    )


def brute_bits(model, points=POINTS):
    pre = ref.dense(points.astype("float64"), model.get_layer("wide"))
    return {
        "wide": pre > 0,
        "narrow": ref.dense(ref.relu(pre), model.get_layer("narrow")) > 0,
    }


def snapshots(model, seeds):
    coder = tsp.PartitionCoder(model)
    return [
        (coder(POINTS), brute_bits(ref.randomize(model, seed)))
        if ref.randomize(model, seed)
        else None
        for seed in seeds
    ]


def test_distance_is_the_mean_over_layers(K):
    (one, a), (two, b) = snapshots(wide_and_narrow(K), [0, 1])
    layers = {name: (a[name] != b[name]).mean() for name in a}
    assert abs(layers["wide"] - layers["narrow"]) > 0.01
    assert tsp.partition_distance(one, two, per_layer=True) == pytest.approx(layers)
    assert tsp.partition_distance(one, two) == pytest.approx(
        (layers["wide"] + layers["narrow"]) / 2
    )
    assert isinstance(tsp.partition_distance(one, two), float)


def test_unit_distances_of_dense(K):
    (one, a), (two, b) = snapshots(wide_and_narrow(K), [0, 1])
    found = tsp.unit_distances(one, two)
    for name in a:
        np.testing.assert_allclose(found[name], (a[name] != b[name]).mean(axis=0))


def test_unit_distances_of_convolution_pool_and_two_knots(K):
    model = K.Sequential(
        [
            K.Input(zoo.SHAPE),
            K.layers.Conv2D(4, 3, name="conv"),
            K.layers.ReLU(2.0, name="act"),
        ]
    )
    coder = tsp.PartitionCoder(model)
    pre, codes = [], []
    for seed in (0, 1):
        ref.randomize(model, seed, scale=4.0)
        codes.append(coder(IMAGES))
        pre.append(ref.conv(IMAGES.astype("float64"), model.get_layer("conv")))
    a, b = (p[..., None] > np.array([0.0, 2.0]) for p in pre)
    expected = (a != b).mean(axis=(0, 1, 2, 4))
    found = tsp.unit_distances(*codes)["act"]
    np.testing.assert_allclose(found, expected, atol=2e-4)  # a doubtful bit or two
    assert np.ptp(expected) > 0.01


def test_a_unit_outside_the_subset_is_nan(K):
    model = K.Sequential([K.Input((12,)), K.layers.Dense(40, activation="relu")])
    codes = tsp.PartitionCoder(model, max_units_per_layer=6)(POINTS)
    (name,) = codes.layers
    (found,) = tsp.unit_distances(codes, codes).values()
    seen = np.unique(codes.units[name])
    assert len(seen) == 6
    missing = np.setdiff1d(np.arange(len(found)), seen)
    assert np.isnan(found[missing]).all()
    np.testing.assert_array_equal(found[seen], 0.0)


def test_unit_distances_have_one_entry_a_unit_in_a_subset(K):
    """Also when the last units are not in the subset."""
    model = K.Sequential([K.Input((12,)), K.layers.Dense(40, activation="relu")])
    for seed in range(5):
        codes = tsp.PartitionCoder(model, max_units_per_layer=3, seed=seed)(POINTS)
        (found,) = tsp.unit_distances(codes, codes).values()
        assert found.shape == (40,)


def test_pseudo_metric(K):
    model = wide_and_narrow(K)
    codes = [c for c, _ in snapshots(model, range(5))]
    d = np.array([[tsp.partition_distance(a, b) for b in codes] for a in codes])
    assert (np.diag(d) == 0).all()
    np.testing.assert_array_equal(d, d.T)
    assert (d >= 0).all()
    assert (d <= 1).all()
    assert d[0, 1] > 0
    for i in range(5):
        for j in range(5):
            assert (d[i, j] <= d[i] + d[:, j] + 1e-12).all()


def test_opposite_codes_are_at_distance_one(K):
    model = K.Sequential([K.Input((12,)), K.layers.Dense(13, activation="relu")])
    model.set_weights([np.ones((12, 13)), np.full(13, -0.123)])
    coder = tsp.PartitionCoder(model)
    codes = coder(POINTS)
    model.set_weights([-np.ones((12, 13)), np.full(13, 0.123)])
    assert tsp.partition_distance(codes, coder(POINTS)) == 1.0


def test_positive_rescaling_of_units_changes_nothing(K):
    model = wide_and_narrow(K)
    ref.randomize(model)
    coder = tsp.PartitionCoder(model)
    before = coder(POINTS)
    # Powers of two, so that float32 rescales without rounding.
    scale = 2.0 ** np.random.default_rng(0).integers(-3, 4, 40)
    kernel, bias, out, out_bias = model.get_weights()
    model.set_weights([kernel * scale, bias * scale, out / scale[:, None], out_bias])
    assert tsp.partition_distance(before, coder(POINTS)) == 0.0
    # A negative one does.
    model.set_weights([-kernel, -bias, out, out_bias])
    layers = tsp.partition_distance(before, coder(POINTS), per_layer=True)
    assert layers["wide"] == 1.0


def test_folding_batch_normalization_changes_nothing(K):
    L = K.layers

    def net(bn):
        return K.Sequential(
            [
                K.Input(zoo.SHAPE),
                L.Conv2D(6, 3, name="c1"),
                *([L.BatchNormalization(name="n1")] if bn else []),
                L.ReLU(name="a1"),
                L.Conv2D(5, 3, name="c2"),
                *([L.BatchNormalization(name="n2")] if bn else []),
                L.ReLU(name="a2"),
            ]
        )

    model, folded = zoo.settle(net(True)), net(False)
    model.get_layer("n1").set_weights(
        [
            w * sign
            for w, sign in zip(
                model.get_layer("n1").get_weights(),
                (np.array([1, -1, 1, -1, 1, 1]), 1, 1, 1),
                strict=True,
            )
        ]
    )
    for i in ("1", "2"):
        kernel, bias = ref.weights(model.get_layer(f"c{i}"))
        gamma, beta, mean, variance = ref.weights(model.get_layer(f"n{i}"))
        scale = gamma / np.sqrt(variance + 1e-3)
        folded.get_layer(f"c{i}").set_weights(
            [kernel * scale, beta + scale * (bias - mean)]
        )
    one, two = (tsp.PartitionCoder(m)(IMAGES) for m in (model, folded))
    assert tsp.partition_distance(one, two) < 1e-4
    flipped = (one.unpack("a1") != two.unpack("a1")).sum()
    assert flipped <= 2


def test_mismatched_codes_are_refused(K):
    model = wide_and_narrow(K)
    codes = tsp.PartitionCoder(model)(POINTS)
    others = [
        tsp.PartitionCoder(model)(POINTS[:10]),
        tsp.PartitionCoder(model, layers=["wide"])(POINTS),
        tsp.PartitionCoder(model, max_units_per_layer=8)(POINTS),
    ]
    for other in others:
        for function in (tsp.partition_distance, tsp.unit_distances):
            with pytest.raises(ValueError, match="same coder and the same probe"):
                function(codes, other)


def test_codes_of_other_subsets_are_refused(K):
    """As many knots, but not the same ones: their bits do not correspond."""
    model = wide_and_narrow(K)
    one, two = (
        tsp.PartitionCoder(model, max_units_per_layer=8, seed=seed)(POINTS)
        for seed in (0, 1)
    )
    assert (one.units["wide"] != two.units["wide"]).any()
    with pytest.raises(ValueError, match="same coder and the same probe"):
        tsp.partition_distance(one, two)
