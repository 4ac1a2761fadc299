"""Deep networks: each layer is run once, a lot of regions at a time."""

import functools

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError, RegionLimitError
from tf_spline_prune.partition.slices import _sliced_network as sliced_network

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def residual(K, blocks, units=6):
    """Two layers with knots a block, and tensors that are read behind both."""
    L = K.layers
    x = inputs = K.Input((2,))
    first = x = L.Dense(units)(x)
    for i in range(blocks):
        y = L.ReLU(name=f"in{i}")(L.BatchNormalization()(x))
        y = L.Dense(units, activation="relu", name=f"mid{i}")(y)
        x = L.Add()([x, L.Dense(units)(y)])
    x = L.Dense(2)(L.Concatenate()([x, first]))
    return zoo.settle(K.Model(inputs, x))


@pytest.fixture
def few_at_once(monkeypatch):
    """Lots of about a dozen regions."""
    monkeypatch.setattr(sliced_network, "_AT_ONCE", 600)


def test_lots_of_a_deep_network_give_the_same_slice(K, request):
    model = residual(K, 4)
    whole = tsp.slice2d(model, PLANE, (-3, 3))
    request.getfixturevalue("few_at_once")
    lots = tsp.slice2d(model, PLANE, (-3, 3))
    assert whole.num_regions > 100
    assert lots.regions_through == whole.regions_through
    # No region has more knots than are cut at a time: the order is the same too.
    np.testing.assert_array_equal(lots.offsets, whole.offsets)
    np.testing.assert_allclose(lots.points, whole.points, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(lots.born, whole.born)
    for name in whole.layers:
        np.testing.assert_array_equal(lots.codes.unpack(name), whole.codes.unpack(name))


def test_a_limit_counts_all_lots(few_at_once):
    import keras

    model = residual(keras, 3)
    through = tsp.slice2d(model, PLANE, (-3, 3)).regions_through
    names, counts = list(through), list(through.values())
    assert counts == sorted(counts) and counts[-1] > 2 * counts[1] > 60
    for number in (1, 3, 5):
        limit = counts[number] - 1
        done = sum(count <= limit for count in counts)
        part = tsp.slice2d(model, PLANE, (-3, 3), max_regions=limit, partial=True)
        assert not part.complete
        assert dict(part.regions_through) == dict(list(through.items())[:done])
        same = tsp.slice2d(model, PLANE, (-3, 3), layers=names[done - 1])
        np.testing.assert_array_equal(part.points, same.points)
        with pytest.raises(RegionLimitError) as error:
            tsp.slice2d(model, PLANE, (-3, 3), max_regions=limit)
        assert (
            f"{counts[done - 1]} regions before layer {names[done]!r}, number "
            f"{done + 1} of 6"
        ) in str(error.value)


def test_the_runs_of_layers_grow_with_the_depth_and_no_faster(monkeypatch):
    import keras

    calls = []
    before = keras.layers.Dense.call

    @functools.wraps(before)
    def counted(self, *args, **kwargs):
        calls.append(self.name)
        return before(self, *args, **kwargs)

    runs = []
    for blocks in (2, 4, 6, 8):
        model = residual(keras, blocks, units=3)
        with monkeypatch.context() as patch:
            patch.setattr(keras.layers.Dense, "call", counted)
            s = tsp.slice2d(model, PLANE, (-3, 3))
        assert s.complete and len(s.layers) == 2 * blocks
        runs.append(len(calls))
        calls.clear()
    assert runs[0] > 0
    steps = np.diff(runs)
    np.testing.assert_array_equal(steps, steps[0])


def test_values_in_an_uneven_shape_are_carried_too(K):
    """A tensor that no knot reads, of several axes, beside one that it reads."""
    L = K.layers
    inputs = K.Input((2,))
    image = L.Reshape((3, 2, 2))(L.Dense(12)(inputs))
    y = L.Conv2D(3, 2, padding="same", activation="relu")(image)
    y = L.MaxPooling2D(2, 1, name="pool")(L.Conv2D(2, 1)(y))
    x = L.Concatenate()([L.Flatten()(y), L.Flatten()(image)])
    model = zoo.settle(K.Model(inputs, L.Dense(2)(x)))
    s = tsp.slice2d(model, PLANE, (-2, 2))
    slopes, offsets = s.affine
    middles = np.array([region.polygon.mean(axis=0) for region in s.regions])
    given = np.einsum("rod,rd->ro", slopes, middles) + offsets
    assert s.num_regions > 20
    np.testing.assert_allclose(given, np.asarray(model(middles)), rtol=0, atol=1e-4)


def test_what_goes_around_the_knots_is_checked_as_well(K):
    """The product is made before the layers that cut, and read behind them alone."""
    L = K.layers
    inputs = K.Input((2,))
    x = L.Dense(4)(inputs)
    bent = L.Dense(4)(L.Dense(4)(L.Multiply()([x, x])))
    x = L.Dense(4, activation="relu", name="last")(L.ReLU(name="first")(x))
    x = L.ReLU(name="behind")(L.Add()([x, bent]))
    model = zoo.settle(K.Model(inputs, L.Dense(2)(x)))
    with pytest.raises(ModelError, match="not affine on the regions"):
        tsp.slice2d(model, PLANE, (-3, 3), layers="last")
