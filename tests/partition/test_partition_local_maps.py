"""Affine maps against products of matrices, differences and the forward pass."""

import numpy as np
import pytest
import zoo
from partition_reference import randomize

import tf_spline_prune as tsp
from tf_spline_prune.compat import predict, with_dtype
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._local_affine import jacobians


def dense_chain(K, slope):
    L = K.layers
    x = inputs = K.Input((5,))
    for width in (9, 8):
        x = L.Dense(width)(x)
        x = K.ops.abs(x) if slope == -1 and K.__name__ == "keras" else _act(K, slope)(x)
    return randomize(K.Model(inputs, L.Dense(4)(x)))


def _act(K, slope):
    if slope == -1:
        return K.layers.PReLU(alpha_initializer=K.initializers.Constant(-1.0))
    if K.__name__ == "keras":
        return K.layers.LeakyReLU(negative_slope=slope)
    return K.layers.LeakyReLU(alpha=slope)


def product_of_matrices(weights, x, slope):
    """The slopes and the offset of one region, layer by layer in NumPy."""
    A, b, z = np.eye(len(x)), np.zeros(len(x)), x
    for number, (kernel, bias) in enumerate(weights):
        A, b = kernel.T @ A, kernel.T @ b + bias
        z = z @ kernel + bias
        if number < len(weights) - 1:
            gate = np.where(z > 0, 1.0, slope)
            A, b, z = gate[:, None] * A, gate * b, gate * z
    return A, b


@pytest.mark.parametrize("slope", [0.0, 0.25, -1])
def test_maps_are_the_products_of_the_masked_matrices(K, slope):
    model = dense_chain(K, slope)
    if slope == -1 and K.__name__ != "keras":
        for layer in model.layers:
            if type(layer).__name__ == "PReLU":
                layer.set_weights([-np.ones_like(w) for w in layer.get_weights()])
    values = [
        np.asarray(w, "float64")
        for layer in model.layers
        if type(layer).__name__ == "Dense"
        for w in layer.get_weights()
    ]
    weights = list(zip(values[::2], values[1::2], strict=True))
    x = np.random.default_rng(1).normal(size=(12, 5))
    A, b = tsp.local_affine(model, x)
    for point, slopes, offset in zip(x, A, b, strict=True):
        expected, shift = product_of_matrices(weights, point, slope)
        np.testing.assert_allclose(slopes, expected, atol=1e-13)
        np.testing.assert_allclose(offset, shift, atol=1e-13)


def decoder(K):
    """More outputs than inputs, and most kinds of layers."""
    L = K.layers
    x = inputs = K.Input((3,))
    x = L.Reshape((2, 2, 4))(L.Dense(16, activation="relu")(x))
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    x = L.ReLU(max_value=6.0)(L.BatchNormalization()(x))
    y = L.Conv2D(4, 3, padding="same", activation="leaky_relu" if _k3(K) else "relu")(x)
    x = L.MaxPooling2D(2, strides=1)(L.Add()([x, y]))
    return randomize(K.Model(inputs, L.Conv2D(2, 2, activation="sigmoid")(x)))


def _k3(K):
    return K.__name__ == "keras"


@pytest.mark.parametrize("build", [decoder, zoo.resnet, zoo.nested, zoo.densenet])
def test_maps_hold_within_their_regions(K, build):
    model = build(K)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, *model.inputs[0].shape[1:]))
    A, b = tsp.local_affine(model, x)
    near = x + 1e-7 * rng.normal(size=x.shape)
    with np.errstate(divide="ignore"):
        (got,) = predict(with_dtype(model, "float64"), [near])
    got = np.asarray(got).reshape(len(x), -1)
    if build is decoder:
        got = np.log(got) - np.log1p(-got)  # what goes into the sigmoid
    expected = np.einsum("noi,ni->no", A, near.reshape(len(x), -1)) + b
    np.testing.assert_allclose(got, expected, atol=1e-10 * np.abs(expected).max())


def test_jacobians_are_those_of_the_whole_model(K):
    model = decoder(K)
    x = np.random.default_rng(3).normal(size=(3, 3))
    found = jacobians(model, x, batch_size=4)
    exact = with_dtype(model, "float64")
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1e-6
        (up,), (down,) = predict(exact, [x + step]), predict(exact, [x - step])
        slope = (np.asarray(up) - np.asarray(down)).reshape(3, -1) / 2e-6
        np.testing.assert_allclose(found[:, :, axis], slope, atol=1e-8)


def test_batches_do_not_matter(K):
    model = zoo.mlp(K)
    x = np.random.default_rng(4).normal(size=(7, *model.inputs[0].shape[1:]))
    one = tsp.local_affine(model, x, batch_size=1)
    for given, expected in zip(tsp.local_affine(model, x), one, strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-14)


def test_rank_is_that_of_the_narrowest_place(K):
    L = K.layers
    x = inputs = K.Input((6,))
    x = L.Dense(20, activation="linear")(L.Dense(4, activation="linear")(x))
    model = randomize(K.Model(inputs, L.Dense(12, activation="tanh")(x)))
    points = np.random.default_rng(5).normal(size=(9, 6))
    np.testing.assert_array_equal(tsp.jacobian_rank(model, points), 4)
    np.testing.assert_array_equal(tsp.jacobian_rank(model, points, 0.999), 1)
    dead = K.Sequential([K.Input((3,)), L.Dense(4, activation="relu")])
    dead.set_weights([np.ones((3, 4)), -100 * np.ones(4)])
    np.testing.assert_array_equal(tsp.jacobian_rank(dead, points[:, :3]), 0)


def test_half_precision_is_computed_in_float64(K):
    L = K.layers
    K.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = K.Sequential([K.Input((4,)), L.Dense(8, activation="relu"), L.Dense(3)])
    finally:
        K.mixed_precision.set_global_policy("float32")
    x = np.random.default_rng(6).normal(size=(5, 4))
    values = [np.asarray(w, "float64") for w in model.get_weights()]
    A, b = tsp.local_affine(model, x)
    pairs = [(values[0], values[1]), (values[2], values[3])]
    for point, slopes, offset in zip(x, A, b, strict=True):
        expected, shift = product_of_matrices(pairs, point, 0.0)
        np.testing.assert_allclose(slopes, expected, atol=1e-14)
        np.testing.assert_allclose(offset, shift, atol=1e-14)


def gated(K):
    L = K.layers
    x = inputs = K.Input((4,))
    return K.Model(inputs, L.Multiply()([L.Dense(6)(x), L.Dense(6)(x)]))


def test_what_is_not_affine_is_refused(K):
    L = K.layers
    x = np.ones((2, 4))
    smooth = K.Sequential([K.Input((4,)), L.Dense(3, activation="tanh"), L.Dense(2)])
    with pytest.raises(ModelError, match="tanh"):
        tsp.local_affine(smooth, x)
    assert jacobians(smooth, x).shape == (2, 2, 4)
    with pytest.raises(ModelError, match="multiplies tensors"):
        tsp.local_affine(gated(K), x)
    a, b = K.Input((4,)), K.Input((4,))
    with pytest.raises(ModelError, match="one input and one output"):
        tsp.local_affine(K.Model([a, b], L.Add()([a, b])), x)


def test_wrong_input(K):
    model = K.Sequential([K.Input((4,)), K.layers.Dense(3, activation="relu")])
    with pytest.raises(ValueError, match="Expected: shape"):
        tsp.local_affine(model, np.ones((2, 5)))
    with pytest.raises(ValueError, match="batch_size"):
        tsp.local_affine(model, np.ones((2, 4)), batch_size=0)
    with pytest.raises(ValueError, match="tolerance"):
        tsp.jacobian_rank(model, np.ones((2, 4)), 1.0)
    model.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    with pytest.raises(ModelError, match="finite"):
        tsp.local_affine(model, np.ones((2, 4)))
