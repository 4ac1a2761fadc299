"""Probes against their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_spline_prune as tsp

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2)], ids=str)
def test_plane_is_the_double_loop(shape):
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    n = 7
    expected = [
        alpha * a + beta * b
        for alpha in np.linspace(0, 1, n)
        for beta in np.linspace(0, 1, n)
    ]
    probe = tsp.probes.plane(a, b, n)
    assert probe.dtype == np.float32
    np.testing.assert_allclose(probe, expected, atol=1e-6)
    # The corners: the origin, the two inputs, their sum.
    np.testing.assert_array_equal(probe[0], np.zeros(shape))
    np.testing.assert_allclose(probe[n - 1], b, rtol=1e-6)
    np.testing.assert_allclose(probe[n * (n - 1)], a, rtol=1e-6)
    np.testing.assert_allclose(probe[-1], a + b, rtol=1e-5, atol=1e-6)


def test_plane_has_ten_thousand_points():
    assert tsp.probes.plane(np.zeros(2), np.ones(2)).shape == (10_000, 2)
    np.testing.assert_array_equal(tsp.probes.plane(np.zeros(2), np.ones(2), 1), 0)


def test_minibatch_of_tf_data():
    x = np.arange(50.0, dtype="float32").reshape(25, 2)
    y = np.arange(25)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    probe = tsp.probes.minibatch(data, 10)
    assert isinstance(probe, np.ndarray)
    np.testing.assert_array_equal(probe, x[:10])
    np.testing.assert_array_equal(tsp.probes.minibatch(data, 1000), x)
    alone = tf.data.Dataset.from_tensor_slices(x).batch(4)
    np.testing.assert_array_equal(tsp.probes.minibatch(alone, 6), x[:6])


def test_minibatch_takes_no_more_than_it_needs():
    taken = []

    def batches():
        for i in range(100):
            taken.append(i)
            yield np.full((4, 2), i), np.zeros(4)

    assert tsp.probes.minibatch(batches(), 8).shape == (8, 2)
    assert taken == [0, 1]


def test_minibatch_of_lists_and_sequences():
    x = np.arange(12.0).reshape(6, 2)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return x[2 * i : 2 * i + 2], np.zeros(2)

    np.testing.assert_array_equal(tsp.probes.minibatch(Batches(), 5), x[:5])
    np.testing.assert_array_equal(tsp.probes.minibatch([x[:4], x[4:]], 5), x[:5])


def test_mix_lies_between_pairs():
    """With unit vectors as inputs a mix shows its own weights."""
    x = np.eye(6, dtype="float32")
    probe = tsp.probes.mix(x, 500, seed=3)
    assert probe.shape == (500, 6)
    assert probe.dtype == np.float32
    np.testing.assert_allclose(probe.sum(axis=1), 1.0, atol=1e-6)
    assert (probe >= 0).all()
    assert ((probe > 0).sum(axis=1) <= 2).all()
    pairs = (probe > 0).sum(axis=1) == 2
    assert 0.7 < pairs.mean() < 0.95  # 5 of 6 pairs are of two inputs
    # Each input is used, and the weights are uniform in [0, 1].
    assert (probe.sum(axis=0) > 0).all()
    weights = probe[pairs].max(axis=1)
    assert abs(weights.mean() - 0.75) < 0.03
    assert abs(probe[pairs].min(axis=1).min()) < 0.02


def test_mix_is_seeded():
    x = RNG.normal(size=(9, 3, 2))
    first = tsp.probes.mix(x, 20, seed=1)
    assert first.shape == (20, 3, 2)
    np.testing.assert_array_equal(first, tsp.probes.mix(x, 20, seed=1))
    assert (first != tsp.probes.mix(x, 20, seed=2)).any()


def test_noise_is_standard_normal():
    probe = tsp.probes.noise((4, 5), 2000, seed=1)
    assert probe.shape == (2000, 4, 5)
    assert probe.dtype == np.float32
    assert abs(probe.mean()) < 0.02
    assert abs(probe.std() - 1) < 0.02
    np.testing.assert_array_equal(probe, tsp.probes.noise((4, 5), 2000, seed=1))
    assert (probe != tsp.probes.noise((4, 5), 2000, seed=2)).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: tsp.probes.plane(np.zeros(2), np.zeros(3)),
        lambda: tsp.probes.plane(np.zeros(2), np.zeros(2), 0),
        lambda: tsp.probes.minibatch([], 3),
        lambda: tsp.probes.minibatch([np.zeros((3, 2))], 0),
        lambda: tsp.probes.mix(np.zeros((0, 2)), 3),
        lambda: tsp.probes.mix(np.zeros((2, 2)), 0),
        lambda: tsp.probes.noise((2,), 0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="Received: "):
        make()
