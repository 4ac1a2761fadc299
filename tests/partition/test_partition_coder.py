"""Packing, batches, subsets, bounds, errors, and what the coder leaves alone."""

import keras
import numpy as np
import partition_reference as ref
import pytest
import tensorflow as tf

import tf_spline_prune as tsp
from tf_spline_prune.errors import FlavourError, ModelError, ProbeError

POINTS = np.random.default_rng(1).normal(0, 1.5, (50, 6)).astype("float32")


def mlp(K, units=(13, 9), activation="relu", seed=0):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(units[0], activation=activation, name="one"),
            K.layers.Dense(units[1], activation=activation, name="two"),
            K.layers.Dense(2, name="head"),
        ]
    )
    return ref.randomize(model, seed)


def convnet(K):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((6, 6, 2)),
            L.Conv2D(5, 3, padding="same", activation="relu", name="conv"),
            L.MaxPooling2D(2, name="pool"),
            L.Flatten(),
            L.Dense(11, activation="relu", name="fc"),
        ]
    )
    return ref.randomize(model)


IMAGES = np.random.default_rng(2).normal(0, 1, (20, 6, 6, 2)).astype("float32")


def full_bits(model, points=POINTS):
    pre = ref.dense(points.astype("float64"), model.get_layer("one"))
    return {
        "one": ref.bits(pre),
        "two": ref.bits(ref.dense(ref.relu(pre), model.get_layer("two"))),
    }


def test_packing(K):
    model = mlp(K)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.num_points == 50
    assert dict(codes.num_knots) == {"one": 13, "two": 9}
    for name, bits in full_bits(model).items():
        packed = codes.packed[name]
        assert packed.dtype == np.uint8
        assert packed.shape == (50, 2)
        # The first knot in the highest bit; zeros fill the last byte.
        for row, byte_row in zip(bits, packed, strict=True):
            text = "".join("1" if b else "0" for b in row).ljust(16, "0")
            assert [int(text[:8], 2), int(text[8:], 2)] == byte_row.tolist()
        np.testing.assert_array_equal(codes.unpack(name), bits)
    assert codes.nbytes == 200
    with pytest.raises(KeyError, match="No layer of this name"):
        codes.unpack("head")


def test_bytes_there_and_back(K):
    codes = tsp.PartitionCoder(mlp(K))(POINTS)
    flat = codes.to_bytes()
    assert flat.shape == (codes.nbytes,)
    again = codes.like(flat)
    for name in codes.layers:
        np.testing.assert_array_equal(again.unpack(name), codes.unpack(name))


@pytest.mark.parametrize("size", [1, 7, 50, 64])
def test_batches_do_not_matter(K, size):
    model = mlp(K)
    coder = tsp.PartitionCoder(model, batch_size=size)
    codes = coder(POINTS)
    for name, bits in full_bits(model).items():
        np.testing.assert_array_equal(codes.unpack(name), bits)
    # The same coder reads a probe of another length.
    fewer = coder(POINTS[:9])
    assert fewer.num_points == 9
    np.testing.assert_array_equal(fewer.unpack("two"), codes.unpack("two")[:9])


def test_knots_are_strict(K):
    """A pre-activation of exactly zero is not above the knot."""
    model = mlp(K)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    codes = tsp.PartitionCoder(model)(POINTS)
    assert not codes.unpack("one").any()
    assert not codes.unpack("two").any()


def test_layers_argument(K):
    model = mlp(K)
    assert tsp.PartitionCoder(model).layers == ("one", "two")
    codes = tsp.PartitionCoder(model, layers=["two"])(POINTS)
    assert codes.layers == ("two",)
    np.testing.assert_array_equal(codes.unpack("two"), full_bits(model)["two"])
    assert tsp.PartitionCoder(model, layers="one").layers == ("one",)
    # In the order of computation, whatever order they are named in.
    assert tsp.PartitionCoder(model, layers=["two", "one"]).layers == ("one", "two")


@pytest.mark.parametrize(
    "bad",
    [
        {"layers": ["three"]},
        {"layers": ["head"]},
        {"layers": []},
        {"max_units_per_layer": 0},
        {"batch_size": 0},
        {"batch_size": -1},
        {"max_bytes": 0},
    ],
    ids=str,
)
def test_bad_arguments(K, bad):
    with pytest.raises(ValueError, match="Received"):
        tsp.PartitionCoder(mlp(K), **bad)


@pytest.mark.parametrize(
    "probe",
    [
        np.zeros((0, 6)),
        np.zeros((5, 7)),
        np.zeros((6,)),
        np.zeros((5, 6, 1)),
        [np.zeros((5, 6)), np.zeros((5, 6))],
        np.full((5, 6), np.nan),
        np.where(np.eye(6) > 0, np.inf, 0.0),
    ],
    ids=["empty", "wide", "no_batch", "deep", "two_inputs", "nan", "inf"],
)
def test_bad_probes(K, probe):
    coder = tsp.PartitionCoder(mlp(K))
    with pytest.raises(ProbeError, match="Received"):
        coder(probe)


def test_probe_of_other_types(K):
    model = mlp(K)
    coder = tsp.PartitionCoder(model)
    expected = full_bits(model)["two"]
    for probe in (POINTS.astype("float64"), tf.constant(POINTS), [POINTS]):
        np.testing.assert_array_equal(coder(probe).unpack("two"), expected)


def test_integer_probe(K):
    model = mlp(K)
    points = np.random.default_rng(0).integers(-3, 4, (50, 6))
    codes = tsp.PartitionCoder(model)(points)
    np.testing.assert_array_equal(codes.unpack("two"), full_bits(model, points)["two"])


@pytest.mark.parametrize("thing", [None, 3, "model", np.zeros(3)], ids=str)
def test_no_model(thing):
    with pytest.raises(FlavourError, match="Expected a Keras model"):
        tsp.PartitionCoder(thing)


def test_nan_weights_are_refused(K):
    model = mlp(K)
    coder = tsp.PartitionCoder(model)
    coder(POINTS)
    kernel, bias = model.get_layer("two").get_weights()
    kernel[0, 0] = np.nan
    model.get_layer("two").set_weights([kernel, bias])
    with pytest.raises(ModelError, match="1 of 117 values of two/kernel"):
        coder(POINTS)


def test_weights_are_read_at_each_call(K):
    model = mlp(K)
    coder = tsp.PartitionCoder(model)
    for seed in range(4):
        ref.randomize(model, seed)
        codes = coder(POINTS)
        for name, bits in full_bits(model).items():
            np.testing.assert_array_equal(codes.unpack(name), bits)


def test_one_trace_serves_all_calls(K):
    traced = []

    def activation(x):
        traced.append(None)
        return (keras.ops if K is keras else tf.nn).relu(x)

    activation.__name__ = "relu"
    model = mlp(K, activation=activation)
    coder = tsp.PartitionCoder(model, batch_size=16)
    coder(POINTS)
    del traced[:]
    for seed in range(3):
        ref.randomize(model, seed)
        coder(POINTS)
    assert not traced


def test_the_model_is_untouched(K):
    model = mlp(K)
    layers = [model.get_layer(n) for n in ("one", "two")]
    before = [(layer, layer.activation) for layer in layers]
    weights = model.get_weights()
    outputs = model.predict(POINTS, verbose=0)
    tsp.PartitionCoder(model)(POINTS)
    for layer, activation in before:
        assert layer.activation is activation
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(outputs, model.predict(POINTS, verbose=0))


def test_the_model_is_untouched_when_the_run_raises(K):
    fail = []

    def activation(x):
        if fail:
            raise RuntimeError("no")
        return (keras.ops if K is keras else tf.nn).relu(x)

    activation.__name__ = "relu"
    model = mlp(K, activation=activation)
    layers = [model.get_layer(n) for n in ("one", "two")]
    before = [layer.activation for layer in layers]
    coder = tsp.PartitionCoder(model)
    fail.append(True)
    with pytest.raises(Exception, match="no"):
        coder(POINTS)
    assert [layer.activation for layer in layers] == before
    fail.clear()
    np.testing.assert_array_equal(coder(POINTS).unpack("two"), full_bits(model)["two"])


def test_batch_statistics_are_untouched(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(8, name="lin"),
            K.layers.BatchNormalization(name="norm"),
            K.layers.ReLU(name="act"),
        ]
    )
    ref.randomize(model)
    before = model.get_weights()
    codes = tsp.PartitionCoder(model)(POINTS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("lin"))
    ref.check(codes, "act", ref.batch_norm(pre, model.get_layer("norm")))


# Subsets.


def locate(bits, subset):
    """Find for every column of a subset whether the full codes have it."""
    columns = {tuple(column) for column in bits.T}
    return [tuple(column) in columns for column in subset.T]


def test_subsets_are_columns_of_the_full_codes(K):
    model = convnet(K)
    full = tsp.PartitionCoder(model, max_units_per_layer=None)(IMAGES)
    some = tsp.PartitionCoder(model, max_units_per_layer=30, seed=5)(IMAGES)
    assert full.num_knots["conv"] == 180
    assert some.num_knots["conv"] == 30
    assert some.num_knots["pool"] == 30 * 4
    assert some.num_knots["fc"] == full.num_knots["fc"] == 11
    np.testing.assert_array_equal(some.unpack("fc"), full.unpack("fc"))
    for name in ("conv", "pool"):
        assert all(locate(full.unpack(name), some.unpack(name)))
        # The columns of each unit are columns of the same unit.
        for unit in np.unique(some.units[name]):
            own = some.unpack(name)[:, some.units[name] == unit]
            theirs = full.unpack(name)[:, full.units[name] == unit]
            assert all(locate(theirs, own))


def test_subsets_do_not_depend_on_batch_probe_or_process(K):
    model = convnet(K)
    first = tsp.PartitionCoder(model, max_units_per_layer=30, seed=5)(IMAGES)
    again = tsp.PartitionCoder(model, max_units_per_layer=30, seed=5, batch_size=3)(
        IMAGES
    )
    fewer = tsp.PartitionCoder(model, max_units_per_layer=30, seed=5)(IMAGES[:7])
    other = tsp.PartitionCoder(model, max_units_per_layer=30, seed=6)(IMAGES)
    for name in first.layers:
        np.testing.assert_array_equal(first.packed[name], again.packed[name])
        np.testing.assert_array_equal(first.packed[name][:7], fewer.packed[name])
    assert (first.packed["conv"] != other.packed["conv"]).any()
    # A layer's subset does not change when others are left out.
    alone = tsp.PartitionCoder(model, layers=["pool"], max_units_per_layer=30, seed=5)(
        IMAGES
    )
    np.testing.assert_array_equal(first.packed["pool"], alone.packed["pool"])


@pytest.mark.parametrize("cap", [3, 20], ids=["single", "whole_positions"])
def test_subsets_estimate_the_distance_without_bias(cap):
    model = convnet(keras)

    def codes(cap, seed=0, layers=("conv",)):
        coder = tsp.PartitionCoder(model, layers, cap, seed, batch_size=20)
        before = model.get_weights()
        first = coder(IMAGES)
        rng = np.random.default_rng(9)
        model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in before])
        second = coder(IMAGES)
        model.set_weights(before)
        return first, second

    first, second = (c.unpack("conv") for c in codes(None))
    per_column = (first != second).mean(axis=0)
    full = per_column.mean()
    assert 0.02 < full < 0.5
    estimates = [tsp.partition_distance(*codes(cap, seed)) for seed in range(30)]
    spread = np.std(estimates)
    assert spread > 0
    assert abs(np.mean(estimates) - full) < 4 * spread / np.sqrt(len(estimates))


@pytest.mark.parametrize("bound", [20 * 3, 200, 500, 1000, 10**6])
def test_max_bytes(K, bound):
    coder = tsp.PartitionCoder(convnet(K), max_bytes=bound)
    codes = coder(IMAGES)
    held = sum(array.nbytes for array in codes.packed.values())
    assert held == codes.nbytes <= bound
    if bound == 10**6:
        assert dict(codes.num_knots) == {"conv": 180, "pool": 180, "fc": 11}
    if bound == 500:  # the bound is made use of
        assert held > 300


def test_impossible_max_bytes(K):
    coder = tsp.PartitionCoder(convnet(K), max_bytes=20 * 3 - 1)
    with pytest.raises(ValueError, match="max_bytes=59"):
        coder(IMAGES)


def test_units_name_the_channel_of_each_knot(K):
    """Move one channel's bias: only its knots flip, and `units` finds them."""
    model = convnet(K)
    coder = tsp.PartitionCoder(model, max_units_per_layer=40, layers=["conv"])
    before = coder(IMAGES)
    kernel, bias = model.get_layer("conv").get_weights()
    for unit in range(5):
        moved = bias.copy()
        moved[unit] -= 100.0
        model.get_layer("conv").set_weights([kernel, moved])
        codes = coder(IMAGES)
        changed = (codes.unpack("conv") != before.unpack("conv")).any(axis=0)
        np.testing.assert_array_equal(codes.units["conv"][changed], unit)
        assert changed[codes.units["conv"] == unit].all()
        assert not codes.unpack("conv")[:, codes.units["conv"] == unit].any()
