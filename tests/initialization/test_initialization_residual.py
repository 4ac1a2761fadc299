"""Scaled residual branches, against nets that are built with the factor."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import CurrentWeights, is_compiled, trace, value_and_grad
from tf_spline_prune.errors import ModelError

stable = tsp.initialization.stable_residual
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, *zoo.SHAPE)).astype("float32")


def dense_blocks(K, depth, factor=None, width=48, operation=False):
    """y + W relu(y), times a factor; one block is nested where there are several."""
    L = K.layers
    x = inputs = K.Input((width,))
    for i in range(depth):
        nested = i == 1
        y = start = K.Input((width,)) if nested else x
        z = L.Dense(width, use_bias=False, name=f"w{i}")(L.ReLU()(y))
        if factor is not None:
            z = L.Rescaling(factor(i + 1, depth))(z)
        out = y + z if operation else L.Add()([z, y])
        x = K.Model(start, out, name="nest")(x) if nested else out
    return K.Model(inputs, L.Dense(10, name="head")(x))


def he(model):
    return tsp.initialization.EdgeOfChaos("relu", seed=0).apply_to(model)


@pytest.mark.parametrize("operation", [False, True], ids=["layer", "operation"])
@pytest.mark.parametrize("decrease", [False, True], ids=["equal", "decreasing"])
def test_it_is_the_net_that_is_built_with_the_factor(K, operation, decrease):
    def factor(number, depth):
        if decrease:
            return 1 / np.sqrt(number * np.log(number + 1) ** 2)
        return depth**-0.5

    plain = zoo.settle(dense_blocks(K, 3, operation=operation))
    expected = zoo.settle(dense_blocks(K, 3, factor, operation=operation))
    x = RNG.normal(size=(5, 48)).astype("float32")
    given = stable(plain, decrease)
    outputs = [np.asarray(model(x)) for model in (given, expected, plain)]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    assert np.abs(outputs[0] - outputs[2]).max() > 0.1


def test_shortcuts_that_are_projected_and_blocks_with_normalisation(K, tmp_path):
    for build, last, total in (
        (zoo.resnet, ["r0b_bn", "r1b_bn", "r2b_bn"], 3),
        (zoo.preact_resnet, ["p0_c2", "p1_c2"], 2),
    ):
        model = build(K)
        model.compile("sgd", "mse")
        copy = stable(model)
        # The same by hand: what ends a branch has the factor in its weights.
        for name in last:
            layer = model.get_layer(name)
            values = layer.get_weights()
            count = 2 if "bn" in name else 1  # gamma and beta, or the kernel
            scaled = [v * total**-0.5 for v in values[:count]]
            layer.set_weights([*scaled, *values[count:]])
        np.testing.assert_allclose(
            np.asarray(copy(IMAGES)), np.asarray(model(IMAGES)), rtol=1e-4, atol=1e-5
        )
        scales = [v for v in copy.layers if isinstance(v, K.layers.Rescaling)]
        assert len(scales) == total
        assert is_compiled(copy)
    copy.save(tmp_path / "model.keras")
    loaded = K.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(IMAGES)), copy(IMAGES))
    small = tsp.prune(copy, "magnitude", sparsity=0.3)
    assert tsp.cost(small).params < 0.7 * tsp.cost(model).params


def test_float64_stays(K):
    from tf_spline_prune.compat import with_dtype

    copy = stable(with_dtype(dense_blocks(K, 3, operation=True), "float64"))
    assert "float64" in str(copy.output.dtype)


def test_gradients_do_not_grow_with_depth():
    """Mean squares of w * gradient, times depth, stay; in a plain net they grow."""
    import keras

    x = RNG.normal(size=(64, 48)).astype("float32")
    targets = np.eye(10)[np.arange(64) % 10]
    found = {}
    for depth in (8, 16):
        plain = he(dense_blocks(keras, depth))
        for kind, model in (("plain", plain), ("stable", stable(plain))):
            _, gradients = value_and_grad(model, "mse")([x], targets)
            weights = CurrentWeights(trace(model))
            squares = [
                np.mean((weights[path]["kernel"] * gradients[path]["kernel"]) ** 2)
                for path in gradients
                if path != "head"
            ]
            assert len(squares) == depth
            found[kind, depth] = depth * np.mean(squares)
            if kind == "stable":
                assert max(squares) < 4 * min(squares)
    assert 0.5 < found["stable", 16] / found["stable", 8] < 2
    assert found["plain", 16] / found["plain", 8] > 1e3


def test_wrong_input(K):
    with pytest.raises(ModelError, match="no residual block"):
        stable(zoo.mlp(K))
    with pytest.raises(ModelError, match="before the weights are masked"):
        stable(tsp.wrap_with_masks(zoo.resnet(K)))
