"""The edge of chaos against published constants and against brute force."""

import keras
import numpy as np
import pytest
import tf_keras

import tf_spline_prune as tsp

BIASES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
# Standard deviation of the weights and mean square on the edge, four digits, by a
# Gauss-Hermite rule of 201 nodes.
TABLE = {
    "tanh": (
        (1.0668, 1.1225, 1.1934, 1.3041, 1.3956, 1.5497),
        (0.0759, 0.1537, 0.2733, 0.5121, 0.7635, 1.3179),
    ),
    "erf": (
        (1.0612, 1.1120, 1.1766, 1.2780, 1.3623, 1.5058),
        (0.0854, 0.1684, 0.2917, 0.5307, 0.7780, 1.3184),
    ),
    "gelu": (
        (1.9380, 1.8519, 1.7271, 1.5470, 1.4505, 1.3999),
        (0.0269, 0.0752, 0.1835, 0.5756, 1.4249, 6.4341),
    ),
    "silu": (
        (1.9608, 1.9050, 1.8201, 1.6795, 1.5756, 1.4569),
        (0.0421, 0.1136, 0.2597, 0.6895, 1.3996, 4.4281),
    ),
}
Z = np.linspace(-12, 12, 400_001)
DENSITY = np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi) * (Z[1] - Z[0])
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772


def negative(x):
    return np.minimum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Functions and derivatives, written by hand.
BY_HAND = {
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(negative(x))),
        lambda x: np.where(x > 0, 1.0, np.exp(negative(x))),
    ),
    "selu": (
        lambda x: SCALE * np.where(x > 0, x, ALPHA * np.expm1(negative(x))),
        lambda x: SCALE * np.where(x > 0, 1.0, ALPHA * np.exp(negative(x))),
    ),
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    ),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "relu6": (
        lambda x: np.clip(x, 0, 6),
        lambda x: ((x > 0) & (x < 6)).astype(float),
    ),
    "hard_tanh": (
        lambda x: np.clip(x, -1, 1),
        lambda x: (np.abs(x) < 1).astype(float),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name):
    theory = tsp.initialization.MeanField(name)
    points = [theory.edge_of_chaos(bias_std) for bias_std in BIASES]
    stds, squares = TABLE[name]
    np.testing.assert_allclose([p.weight_std for p in points], stds, atol=1e-4)
    np.testing.assert_allclose([p.q for p in points], squares, atol=1e-4)
    assert [p.bias_std for p in points] == list(BIASES)


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("bias_std", [0.05, 0.3])
def test_against_brute_force(name, bias_std):
    function, derivative = BY_HAND[name]
    point = tsp.initialization.edge_of_chaos(name, bias_std)
    x = np.sqrt(point.q) * Z
    chi = point.weight_std**2 * (DENSITY @ derivative(x) ** 2)
    assert chi == pytest.approx(1, abs=1e-3)
    square = point.weight_std**2 * (DENSITY @ function(x) ** 2)
    assert bias_std**2 + square == pytest.approx(point.q, rel=1e-3)
    theory = tsp.initialization.MeanField(name)
    assert theory.chi(point.q, point.weight_std) == pytest.approx(1, abs=1e-9)
    given = theory.next_variance(point.q, point.weight_std, bias_std)
    assert given == pytest.approx(point.q, rel=1e-9)


@pytest.mark.parametrize(
    "make, variance",
    [
        (lambda: "relu", 2.0),
        (lambda: keras.layers.LeakyReLU(negative_slope=0.1), 2 / 1.01),
        (lambda: tf_keras.layers.LeakyReLU(alpha=0.3), 2 / 1.09),
        (lambda: tf_keras.activations.relu, 2.0),
        (lambda: keras.layers.PReLU(), 2.0),
        (lambda: "linear", 1.0),
        (lambda: np.abs, 1.0),
    ],
    ids=["relu", "leaky", "leaky of tf_keras", "function", "prelu", "linear", "abs"],
)
def test_functions_that_scale_have_one_point(make, variance):
    activation = make()
    point = tsp.initialization.edge_of_chaos(activation)
    assert point.weight_std**2 == pytest.approx(variance, rel=1e-7)
    with pytest.raises(ValueError, match="but at bias_std=0"):
        tsp.initialization.edge_of_chaos(activation, 0.1)


def test_no_bias_makes_smooth_functions_linear():
    for name, slope in (("tanh", 1.0), ("gelu", 0.5), ("silu", 0.5)):
        point = tsp.initialization.edge_of_chaos(name)
        assert point.weight_std == pytest.approx(1 / slope, rel=1e-6)
        assert point.q == 0


def test_a_function_of_ones_own_with_its_derivative():
    given = tsp.initialization.edge_of_chaos(
        np.tanh, 0.2, derivative=lambda x: 1 - np.tanh(x) ** 2
    )
    known = tsp.initialization.edge_of_chaos("tanh", 0.2)
    assert given.weight_std == pytest.approx(known.weight_std, rel=1e-7)


def test_the_fixed_point_of_any_weights():
    theory = tsp.initialization.MeanField("tanh")
    q = theory.fixed_point(0.9, 0.2)
    square = 0.81 * (DENSITY @ np.tanh(np.sqrt(q) * Z) ** 2)
    assert 0.04 + square == pytest.approx(q, rel=1e-9)
    assert theory.chi(q, 0.9) < 1 < theory.chi(theory.fixed_point(2.5, 0.2), 2.5)
    relu = tsp.initialization.MeanField("relu")
    assert relu.fixed_point(1.5, 0.0) == float("inf")
    assert relu.fixed_point(2**0.5, 0.0, q=3.0) == pytest.approx(3)


def test_wrong_input():
    edge = tsp.initialization.edge_of_chaos
    with pytest.raises(ValueError, match="grows from layer to layer"):
        edge("softplus", 0.1)
    with pytest.raises(ValueError, match="no activation of this name"):
        edge("tanhh")
    with pytest.raises(ValueError, match="at least 0"):
        edge("tanh", -0.1)
    with pytest.raises(ValueError, match="by itself"):
        edge(np.sum)
    for thing in (3, keras.layers.ReLU):
        with pytest.raises(TypeError, match="name of an activation"):
            edge(thing)
