"""Initial weights: their moments, by hand, and models that are built with them."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError

STD = 1.3041


def tanh_edge(distribution="normal", **kwargs):
    return tsp.initialization.EdgeOfChaos("tanh", 0.2, distribution, 0, **kwargs)


def drawn(initializer, shape):
    return np.asarray(initializer(shape, dtype="float64"))


@pytest.mark.parametrize("shape", [(200, 100), (100, 300), (3, 3, 16, 64)])
@pytest.mark.parametrize("distribution", ["normal", "orthogonal", "delta_orthogonal"])
def test_units_have_the_variance_of_the_edge(distribution, shape):
    kernel = drawn(tanh_edge(distribution), shape).reshape(-1, shape[-1])
    mean = np.square(kernel).sum(axis=0).mean()
    assert mean == pytest.approx(STD**2, rel=0.03)
    rows, columns = kernel.shape
    if distribution == "orthogonal" and rows >= columns:
        gram = kernel.T @ kernel
        np.testing.assert_allclose(gram, STD**2 * np.eye(columns), atol=1e-3)
    elif distribution == "orthogonal":
        gram = kernel @ kernel.T * rows / columns
        np.testing.assert_allclose(gram, STD**2 * np.eye(rows), atol=1e-3)


def test_delta_orthogonal_is_zero_around_the_middle():
    kernel = drawn(tanh_edge("delta_orthogonal"), (3, 3, 20, 12))
    around = kernel.copy()
    around[1, 1] = 0
    assert not around.any()
    middle = kernel[1, 1]
    np.testing.assert_allclose(middle.T @ middle, STD**2 * np.eye(12), atol=1e-3)


def test_depthwise_units_read_one_channel():
    kernel = drawn(tanh_edge().depthwise, (3, 3, 400, 2))
    moments = np.square(kernel).sum(axis=(0, 1)).mean()
    assert moments == pytest.approx(STD**2, rel=0.05)


def test_draws_differ_and_can_be_repeated():
    one, same = tanh_edge(), tanh_edge()
    first, second = drawn(one, (8, 8)), drawn(one, (8, 8))
    assert (first != second).all()
    np.testing.assert_array_equal(drawn(same, (8, 8)), first)
    np.testing.assert_array_equal(drawn(same, (8, 8)), second)
    unseeded = [tsp.initialization.EdgeOfChaos("relu") for _ in range(2)]
    assert (drawn(unseeded[0], (4, 4)) != drawn(unseeded[1], (4, 4))).any()


def test_layers_of_both_flavours_take_it_and_files_hold_it(K, tmp_path):
    start = tanh_edge()
    L = K.layers
    given = {"kernel_initializer": start, "bias_initializer": start.bias}
    x = inputs = K.Input((8, 8, 3))
    x = L.Conv2D(64, 3, activation="tanh", **given)(x)
    x = L.DepthwiseConv2D(3, depthwise_initializer=start.depthwise)(x)
    outputs = L.Dense(500, **given)(L.Flatten()(x))
    model = K.Model(inputs, outputs)
    kernel, bias = model.layers[-1].get_weights()
    assert kernel.var() * len(kernel) == pytest.approx(STD**2, rel=0.02)
    assert bias.std() == pytest.approx(0.2, rel=0.1)
    model.save(tmp_path / "model.keras")
    loaded = K.models.load_model(tmp_path / "model.keras")
    held = loaded.layers[-1].kernel_initializer
    assert isinstance(held, tsp.initialization.EdgeOfChaos)
    assert held.get_config() == start.get_config()
    assert loaded.layers[-1].bias_initializer.role == "bias"
    tsp.wrap_with_masks(model)  # which builds the layers again from their configs


def test_apply_to_draws_a_copy(K):
    model = zoo.mobilenet(K)
    before = model.get_weights()
    start = tsp.initialization.EdgeOfChaos("gelu", 0.1, "orthogonal", seed=1)
    copy = start.apply_to(model)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    again = start.apply_to(model)
    stats, kinds = [], set()
    for layer, new, same in zip(model.layers, copy.layers, again.layers, strict=True):
        kinds.add(type(new).__name__)
        for one, other in zip(new.get_weights(), same.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        if isinstance(new, K.layers.BatchNormalization):
            for one, other in zip(layer.get_weights(), new.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)
        if isinstance(new, K.layers.DepthwiseConv2D):
            kernel = new.get_weights()[0]
            stats.append(np.square(kernel).sum(axis=(0, 1)).mean())
        elif isinstance(new, (K.layers.Conv2D, K.layers.Dense)):
            kernel = new.get_weights()[0]
            stats.append(
                np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1))).mean()
            )
    assert {"Conv2D", "DepthwiseConv2D", "Dense"} <= kinds
    np.testing.assert_allclose(stats, start.weight_std**2, rtol=1e-4)


def test_grouped_and_transposed_convolutions(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 8))
    x = L.Conv2D(12, 3, groups=4, name="grouped")(x)
    model = K.Model(inputs, L.Conv2DTranspose(5, 2, name="transposed")(x))
    copy = tanh_edge("orthogonal").apply_to(model)
    grouped = copy.get_layer("grouped").get_weights()[0].reshape(18, 4, 3)
    for group in range(4):
        gram = grouped[:, group].T @ grouped[:, group]
        np.testing.assert_allclose(gram, STD**2 * np.eye(3), atol=1e-3)
    kernel = copy.get_layer("transposed").get_weights()[0]  # 2, 2, outputs, inputs
    matrix = kernel.swapaxes(2, 3).reshape(-1, 5)
    np.testing.assert_allclose(matrix.T @ matrix, STD**2 * np.eye(5), atol=1e-3)


def test_wrong_input(K):
    with pytest.raises(ValueError, match="distribution"):
        tanh_edge("uniform")
    with pytest.raises(ValueError, match="role"):
        tanh_edge(role="gamma")
    with pytest.raises(ValueError, match="no edge of chaos"):
        tsp.initialization.EdgeOfChaos("softplus")
    with pytest.raises(ValueError, match="two axes"):
        tanh_edge()((5,))
    with pytest.raises(ModelError, match="before they are masked"):
        tanh_edge().apply_to(tsp.wrap_with_masks(zoo.mlp(K)))
    inputs = K.Input((3,))
    with pytest.raises(ModelError, match="neither dense nor convolution"):
        tanh_edge().apply_to(K.Model(inputs, K.layers.ReLU()(inputs)))
