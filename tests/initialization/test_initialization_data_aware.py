"""Knots are placed between groups of data, and the output is fitted to labels."""

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import CalibrationError, ModelError
from tf_spline_prune.initialization.repair._data_aware import centres_of, pairs_of

RNG = np.random.default_rng(0)
CORNERS = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
LABELS = np.repeat(np.arange(4), 50)
X = (CORNERS[LABELS] + 0.1 * RNG.normal(size=(200, 2))).astype("float32")


def net(K, units=6, bias=True):
    L = K.layers
    x = inputs = K.Input((2,))
    x = L.Dense(units, activation="relu", use_bias=bias, name="hidden")(x)
    return K.Model(inputs, L.Dense(4, name="head", use_bias=bias)(x))


def weights(model):
    return [np.asarray(w, "float64") for w in model.get_weights()]


def test_centres_are_those_of_the_groups():
    centres = centres_of(X.astype("float64"), 4, np.random.default_rng(1))
    expected = np.stack([X[c == LABELS].mean(axis=0) for c in range(4)])
    far = np.abs(centres[:, None] - expected).max(axis=2)
    assert (far.min(axis=0) < 1e-5).all() and len(centres) == 4
    # The nearest neighbours come first, each pair once.
    pairs = [frozenset(pair) for pair in pairs_of(CORNERS)]
    assert len(set(pairs)) == len(pairs) == 6
    assert frozenset((0, 3)) == pairs[-1] or frozenset((0, 3)) in pairs[3:]
    assert {frozenset((0, 1)), frozenset((0, 2))} <= set(pairs[:3])


def test_every_line_passes_between_the_data(K):
    model = net(K)
    placed = tsp.initialization.DataAware(X).apply_to(model)
    kernel, bias, *_ = weights(placed)
    ahead = X @ kernel + bias
    np.testing.assert_allclose(ahead.std(axis=0), 1.0, rtol=1e-4)
    parted = np.abs(ahead).min(axis=0) / np.abs(ahead).mean(axis=0)
    share = (ahead > 0).mean(axis=0)
    assert ((share > 0.01) & (share < 0.99)).all()
    assert np.count_nonzero(parted > 0.05) >= 3  # between groups, not through one
    # Without labels the last layer is as it was, and the model given is untouched.
    np.testing.assert_array_equal(placed.get_weights()[2], model.get_weights()[2])


def test_the_output_is_fitted_by_least_squares(K):
    placed = tsp.initialization.DataAware((X, LABELS)).apply_to(net(K, units=12))
    kernel, bias, head, shift = weights(placed)
    hidden = np.maximum(X @ kernel + bias, 0)
    wanted = 4.0 * (np.eye(4)[LABELS] - 0.25)
    moved = hidden - hidden.mean(axis=0)
    ridge = 1e-3 * np.square(moved).sum() / 12
    rows = np.concatenate([moved, np.sqrt(ridge) * np.eye(12)])
    target = np.concatenate([wanted - wanted.mean(axis=0), np.zeros((12, 4))])
    expected = np.linalg.lstsq(rows, target, rcond=None)[0]
    np.testing.assert_allclose(head, expected, atol=1e-4)
    assert ((hidden @ head + shift).argmax(axis=1) == LABELS).mean() > 0.95


def test_without_biases_and_numbers_for_labels(K):
    targets = np.stack([X[:, 0] - X[:, 1]] * 4, axis=1)
    start = tsp.initialization.DataAware((X, targets))
    kernel, head = weights(start.apply_to(net(K, 12, bias=False)))
    np.testing.assert_allclose(np.square(X @ kernel).mean(axis=0), 1.0, rtol=1e-4)
    off = np.maximum(X @ kernel, 0) @ head - targets
    assert np.sqrt(np.square(off).mean()) < 0.3 * targets.std()


def test_convolutions_are_placed_by_their_windows(K):
    L = K.layers
    x = inputs = K.Input((8, 8, 1))
    x = L.Conv2D(5, 3, strides=2, padding="same", name="first")(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(6, 3, activation="relu", name="second")(x)
    model = K.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    images = RNG.normal(size=(60, 8, 8, 1)).astype("float32")
    placed = tsp.initialization.DataAware((images, np.arange(60) % 3)).apply_to(model)
    taps = K.Model(placed.input, placed.get_layer("first").output)
    seen = np.asarray(taps(images)).reshape(-1, 5)
    np.testing.assert_allclose(seen.std(axis=0), 1.0, rtol=1e-3)
    share = (seen > 0).mean(axis=0)
    assert ((share > 0.02) & (share < 0.98)).all()


def test_it_can_be_repeated(K):
    model = net(K)
    one, other = (tsp.initialization.DataAware(X, 3).apply_to(model) for _ in range(2))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_input(K):
    model = net(K)
    with pytest.raises(ValueError, match="seed"):
        tsp.initialization.DataAware(X, -1)
    with pytest.raises(CalibrationError, match="does not fit"):
        tsp.initialization.DataAware(X[:, :1]).apply_to(model)
    with pytest.raises(ValueError, match="from 0 to 3"):
        tsp.initialization.DataAware((X, LABELS + 1)).apply_to(model)
    with pytest.raises(ValueError, match="fit the output"):
        tsp.initialization.DataAware((X, np.zeros((200, 3)))).apply_to(model)
    with pytest.raises(ModelError, match="before the weights are masked"):
        tsp.initialization.DataAware(X).apply_to(tsp.wrap_with_masks(model))
    bare = K.Sequential([K.Input((2,)), K.layers.ReLU()])
    with pytest.raises(ModelError, match="nothing to place"):
        tsp.initialization.DataAware(X).apply_to(bare)
