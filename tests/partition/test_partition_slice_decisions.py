"""Who wins where on a slice, where inputs lie on it, and how its regions grow."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import with_dtype

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def net(K, outputs, shape=(2,)):
    L = K.layers
    model = K.Sequential(
        [
            K.Input(shape),
            L.Flatten(),
            L.Dense(12, activation="relu", name="first"),
            L.Dense(10, activation="relu", name="second"),
            L.Dense(outputs, name="head"),
        ]
    )
    return zoo.settle(model)


@pytest.mark.parametrize("outputs, classes", [(1, None), (4, None), (4, (3, 1))])
def test_the_class_of_every_part_is_that_of_the_outputs(K, outputs, classes):
    model = net(K, outputs)
    s = tsp.slice2d(model, PLANE, (-3, 3), classes=classes)
    points, offsets, winners = s.decisions
    rng = np.random.default_rng(0)
    exact = with_dtype(model, "float64")
    inner, areas = [], []
    for corners in np.split(points, offsets[1:-1]):
        inner.append(rng.dirichlet(np.ones(len(corners)), 5) @ corners)
        x, y = (corners - corners[0]).T
        areas.append((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
    assert sum(areas) == pytest.approx(36)
    scores = np.asarray(exact(np.concatenate(inner)))
    if outputs == 1:
        expected = (scores[:, 0] > 0).astype(int)
    elif classes is None:
        expected = scores.argmax(axis=1)
    else:
        expected = np.where(scores[:, 3] > scores[:, 1], 3, 1)
    # Slivers, whose rounded points may lie outside of them, are left out.
    large = np.array(areas) > 1e-9
    np.testing.assert_array_equal(
        winners[large], expected.reshape(-1, 5)[large].min(axis=1)
    )
    np.testing.assert_array_equal(
        winners[large], expected.reshape(-1, 5)[large].max(axis=1)
    )
    assert len(set(winners)) > 1 and large.mean() > 0.9
    assert len(winners) > s.num_regions


def test_of_classes_that_score_alike_the_first_wins(K):
    model = K.Sequential([K.Input((2,)), K.layers.Dense(3)])
    model.set_weights([np.array([[1.0, 1, 0], [0, 0, 1]]), np.zeros(3)])  # x, x and y
    points, offsets, winners = tsp.slice2d(model, PLANE, (-1, 1)).decisions
    areas = {0: 0.0, 1: 0.0, 2: 0.0}
    for corners, winner in zip(np.split(points, offsets[1:-1]), winners, strict=True):
        x, y = (corners - corners[0]).T
        areas[winner] += (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert areas == pytest.approx({0: 2.0, 1: 0.0, 2: 2.0})


def test_where_inputs_lie(K):
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(3, 4, 3))
    s = tsp.slice2d(net(K, 2, (4, 3)), anchors)
    np.testing.assert_allclose(
        s.coordinates(anchors), [[0, 0], [1, 0], [0, 1]], atol=1e-12
    )
    inputs = rng.normal(size=(7, 4, 3))
    uv = s.coordinates(inputs)
    spans = (anchors[1:] - anchors[0]).reshape(2, -1)
    feet = anchors[0].ravel() + uv @ spans
    # What is left over is at right angles to the plane.
    left = inputs.reshape(7, -1) - feet
    np.testing.assert_allclose(left @ spans.T, 0, atol=1e-10)
    assert np.abs(left).max() > 0.1
    assert s.coordinates(inputs[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match=r"\('n', 4, 3\).*\(3, 4\)"):
        s.coordinates(np.zeros((3, 4)))


def test_how_the_regions_grow(K):
    model = net(K, 3)
    s = tsp.slice2d(model, PLANE, (-3, 3))
    first = tsp.slice2d(model, PLANE, (-3, 3), layers="first")
    counts = {"first": first.num_regions, "second": s.num_regions}
    assert s.regions_through == counts and first.regions_through == {
        "first": counts["first"]
    }
    np.testing.assert_array_equal(s.anchors, PLANE)
