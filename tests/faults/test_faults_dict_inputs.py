"""A dict of inputs is taken wherever a model with several inputs is looked at."""

import numpy as np
import pytest
import tensorflow as tf

import tf_spline_prune as tsp


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    alpha = rng.normal(size=(20, 4)).astype("float32")
    return {"beta": rng.normal(size=(20, 3)).astype("float32"), "alpha": alpha}


def two_inputs(K, as_dict=True):
    """ReLU units of two inputs apart, read together."""
    alpha, beta = K.Input((4,), name="alpha"), K.Input((3,), name="beta")
    first = K.layers.Dense(6, activation="relu", name="first")(alpha)
    second = K.layers.Dense(5, activation="relu", name="second")(beta)
    output = K.layers.Dense(2)(K.layers.Concatenate()([first, second]))
    inputs = {"alpha": alpha, "beta": beta} if as_dict else [alpha, beta]
    return K.Model(inputs, output)


def sides(model, name, x):
    """Tell by hand on which side of its units' knots each input is."""
    kernel, bias = model.get_layer(name).get_weights()
    return x @ kernel + bias > 0


def test_a_dict_is_coded(K, arrays):
    for model in (two_inputs(K), two_inputs(K, as_dict=False)):
        codes = tsp.PartitionCoder(model)(arrays)
        for name, key in (("first", "alpha"), ("second", "beta")):
            expected = sides(model, name, arrays[key])
            assert np.array_equal(codes.unpack(name), expected)


def test_a_dict_of_tensors_is_coded(K, arrays):
    model = two_inputs(K)
    tensors = {name: tf.constant(array) for name, array in arrays.items()}
    codes = tsp.PartitionCoder(model)(tensors)
    assert np.array_equal(codes.unpack("first"), sides(model, "first", arrays["alpha"]))


def test_a_missing_input_is_named(K, arrays):
    with pytest.raises(tsp.errors.ProbeError, match="beta"):
        tsp.PartitionCoder(two_inputs(K))({"alpha": arrays["alpha"]})


@pytest.mark.parametrize("labels", [True, False])
def test_a_minibatch_is_a_dict_where_the_data_are(K, arrays, labels):
    given = (arrays, np.zeros(20)) if labels else arrays
    data = tf.data.Dataset.from_tensor_slices(given).batch(8)
    probe = tsp.probes.minibatch(data, 10)
    for name, array in arrays.items():
        assert np.array_equal(probe[name], array[:10])
    codes = tsp.PartitionCoder(two_inputs(K))(probe)
    assert codes.unpack("first").shape == (10, 6)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_minibatch_is_a_list_where_the_data_are(arrays, kind):
    batches = [(kind([arrays["alpha"], arrays["beta"]]), np.zeros(20))]
    probe = tsp.probes.minibatch(batches, 10)
    assert [part.shape for part in probe] == [(10, 4), (10, 3)]


def test_a_minibatch_of_plain_lists_is_an_array():
    probe = tsp.probes.minibatch([([[1.0, 2.0], [3.0, 4.0]], [0, 1])], 1)
    assert np.array_equal(probe, [[1.0, 2.0]])


def test_the_early_bird_takes_a_dict(K, arrays):
    model = two_inputs(K)
    model.compile("sgd", "mse")
    bird = tsp.SplineEarlyBird(arrays, threshold=0.9, lookback=1, stop=False)
    model.fit(arrays, np.zeros((20, 2)), epochs=3, verbose=0, callbacks=[bird])
    assert bird.ticket_epoch == 1
    assert (
        bird._key() != tsp.SplineEarlyBird(arrays | {"beta": arrays["beta"] * 2})._key()
    )


def test_complexity_is_counted_in_all_inputs_together(K, arrays):
    # One model of both inputs laid side by side has the same knots.
    model = two_inputs(K)
    together = K.Input((7,))
    first = K.layers.Dense(6, activation="relu", name="first")(together)
    second = K.layers.Dense(5, activation="relu", name="second")(together)
    twin = K.Model(together, K.layers.Concatenate()([first, second]))
    for name, rows in (("first", slice(0, 4)), ("second", slice(4, 7))):
        kernel, bias = model.get_layer(name).get_weights()
        wide = np.zeros((7, kernel.shape[1]))
        wide[rows] = kernel
        twin.get_layer(name).set_weights([wide, bias])
    found = tsp.local_complexity(model, arrays, radius=0.5)
    beside = np.concatenate([arrays["alpha"], arrays["beta"]], axis=1)
    expected = tsp.local_complexity(twin, beside, radius=0.5)
    for name in ("first", "second"):
        assert np.array_equal(found[name], expected[name])
        assert found[name].sum() > 0


def test_the_logger_takes_a_dict(K, arrays):
    model = two_inputs(K)
    model.compile("sgd", "mse")
    logger = tsp.LocalComplexityLogger({"train": arrays}, radius=0.5)
    logs = model.fit(
        arrays, np.zeros((20, 2)), epochs=1, verbose=0, callbacks=[logger]
    ).history
    near = tsp.local_complexity(model, arrays, radius=0.5)
    expected = np.mean(sum(near.values()))
    assert logs["local_complexity/train"] == [pytest.approx(expected)]


def test_one_input_by_name(K, arrays):
    """What needs a model with one input takes it by name as well."""
    given = K.Input((4,), name="alpha")
    hidden = K.layers.Dense(6, activation="relu")(given)
    model = K.Model({"alpha": given}, K.layers.Dense(2)(hidden))
    x = arrays["alpha"]
    assert tsp.slice2d(model, {"alpha": x[:3]}).num_regions == (
        tsp.slice2d(model, x[:3]).num_regions
    )
    slopes, offsets = tsp.local_affine(model, {"alpha": x})
    expected = np.asarray(model({"alpha": x}))
    np.testing.assert_allclose(
        np.einsum("noi,ni->no", slopes, x) + offsets, expected, atol=1e-5
    )
    assert tsp.jacobian_rank(model, {"alpha": x}).shape == (20,)


def test_several_inputs_have_no_plane(K, arrays):
    model = two_inputs(K)
    three = {name: array[:3] for name, array in arrays.items()}
    with pytest.raises(tsp.errors.ModelError, match="2 inputs"):
        tsp.slice2d(model, three)
    with pytest.raises(tsp.errors.ModelError, match="2 inputs"):
        tsp.local_affine(model, three)
