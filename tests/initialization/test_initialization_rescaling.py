"""Rescaled masks: the moments by hand, and the gradients of deep nets."""

import numpy as np
import pytest
from initial_nets import X, Y, convolutions, deep, gradient_norms, kernel, layers_of

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots, value_and_grad
from tf_spline_prune.errors import ModelError, RescaleError, RescaleWarning

rescale = tsp.initialization.rescale
EDGE = {"tanh": 0.2, "relu": 0.0}
DEPTH = 100


def on_edge(K, activation, depth=DEPTH):
    start = tsp.initialization.EdgeOfChaos(activation, EDGE[activation], seed=0)
    return start.apply_to(deep(K, depth, activation))


def randomly(model, sparsity=0.9, criterion="random"):
    return tsp.prune_once(model, sparsity, criterion=criterion, scope="global", seed=3)


def snip(model, sparsity):
    """Mask the weights of the smallest |w * gradient|."""
    _, gradients = value_and_grad(model, "mean_squared_error")([X], np.eye(64)[Y])

    def score(name, array):
        return np.abs(array * gradients[name.rpartition("/")[0]]["kernel"])

    return tsp.prune_once(model, sparsity, criterion=score, scope="global")


def masks(model):
    return [slot.keep().copy() for slot in mask_slots(model)]


def test_every_unit_gets_its_second_moment(K):
    model = convolutions(K)
    masked = randomly(model, 0.8)
    before = masked.get_weights()
    copy = rescale(masked, weight_std=1.3)
    for old, now in zip(before, masked.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    for old, new in zip(masks(masked), masks(copy), strict=True):
        np.testing.assert_array_equal(old, new)
    for name in ("c1", "c2", "c3", "head"):
        weights, old = kernel(copy, name), kernel(masked, name)
        assert ((weights != 0) == (old != 0)).all()
        units = weights.swapaxes(-1, -2) if name == "c3" else weights
        moments = np.square(units.reshape(-1, units.shape[-1])).sum(axis=0)
        np.testing.assert_allclose(moments[moments > 0], 1.69, rtol=1e-5)
    again = rescale(copy, weight_std=1.3)
    for old, now in zip(copy.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(old, now, rtol=1e-5)


def test_by_layer_and_by_tap(K):
    masked = randomly(convolutions(K), 0.5)
    layer = kernel(rescale(masked, granularity="layer", weight_std=1.3), "c1")
    assert np.square(layer).sum() / 24 == pytest.approx(1.69, rel=1e-5)
    old = kernel(masked, "c1")
    ratio = layer[old != 0] / old[old != 0]
    assert ratio.max() == pytest.approx(ratio.min(), rel=1e-5)
    taps = kernel(rescale(masked, granularity="tap", weight_std=1.3), "c1")
    moments = np.square(taps).sum(axis=2)
    np.testing.assert_allclose(moments[moments > 0], 1.69 / 9, rtol=1e-5)


def test_units_without_inputs_stay_at_zero(K):
    masked = tsp.wrap_with_masks(deep(K, 3, "tanh"))
    slot = mask_slots(masked)[1]
    keep = np.ones((64, 64), bool)
    keep[:, 5] = False
    slot.assign(keep)
    weights = kernel(rescale(masked, weight_std=1.0), "d1")
    assert not weights[:, 5].any() and np.isfinite(weights).all()


def test_depth_needs_the_edge():
    """Ordered networks lose their gradients, chaotic ones blow them up."""
    found = {}
    for weight_std, bias_std in ((1.3041, 0.2), (0.9, 0.2), (2.5, 0.2)):
        start = tsp.initialization.EdgeOfChaos(
            "tanh", bias_std, seed=0, weight_std=weight_std
        )
        drawn = [(start((64, 64)), start.bias((64,))) for _ in range(DEPTH)]
        layers = [tuple(np.asarray(array) for array in layer) for layer in drawn]
        norms = gradient_norms(layers, "tanh")
        found[weight_std] = norms[1] / norms[-2]
    assert 0.05 < found[1.3041] < 20
    assert found[0.9] < 1e-6 and found[2.5] > 1e3


@pytest.mark.parametrize(
    "activation, criterion",
    [("tanh", "magnitude"), ("relu", "random")],
)
def test_gradients_come_back_through_a_hundred_layers(activation, criterion):
    import keras

    dense = on_edge(keras, activation)
    masked = randomly(dense, criterion=criterion)
    assert gradient_norms([*layers_of(masked).values()], activation)[1] < 1e-9
    copy = rescale(
        masked, activation=activation, bias_std=EDGE[activation], granularity="unit"
    )
    norms = gradient_norms([*layers_of(copy).values()], activation)
    assert 0.1 < norms[1] / norms[-2] < 10


def test_data_bring_the_dense_signal_back(K):
    """What the weights sum up has the size that it had; biases are no part of it."""
    dense = on_edge(K, "relu", 12)
    biases = [0.2 * np.cos(i + np.arange(64)) for i in range(12)]
    for layer, bias in zip(dense.layers[1:], biases, strict=True):
        layer.bias.assign(bias)
    masked = snip(dense, 0.5)
    copy = rescale(masked, "data", dense=dense, data=X)
    signal = [X, X]
    for i in range(12):
        sums = []
        for x, model in zip(signal, (dense, copy), strict=True):
            sums.append(x @ kernel(model, f"d{i}"))
        squares = [np.square(s).mean() for s in sums]
        assert squares[1] == pytest.approx(squares[0], rel=1e-3)
        signal = [np.maximum(s + biases[i], 0) for s in sums]
    again = rescale(copy, "data", dense=dense, data=X)
    for old, now in zip(copy.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(old, now, rtol=1e-3)
    assert ((kernel(copy, "d4") != 0) == (kernel(masked, "d4") != 0)).all()


def test_what_explodes_is_refused():
    """Under ReLU, SNIP keeps weights between units that are active together."""
    import keras

    dense = on_edge(keras, "relu", 40)
    masked = snip(dense, 0.8)
    with pytest.raises(RescaleError, match="layers beyond"):
        rescale(masked, activation="relu", dense=dense, data=X)
    with pytest.warns(RescaleWarning, match="layers beyond"):
        rescale(masked, activation="relu", dense=dense, data=X, on_explosion="warn")


def test_wrong_input(K):
    dense = deep(K, 3, "tanh")
    masked = randomly(dense)
    with pytest.raises(ValueError, match="`target` must be"):
        rescale(masked, "eoc", weight_std=1.0)
    with pytest.raises(ValueError, match="`granularity` must be"):
        rescale(masked, granularity="row", weight_std=1.0)
    with pytest.raises(ValueError, match="Say either"):
        rescale(masked)
    with pytest.raises(ValueError, match="number above 0"):
        rescale(masked, weight_std=0.0)
    with pytest.raises(ValueError, match="go together"):
        rescale(masked, weight_std=1.0, data=X)
    with pytest.raises(ValueError, match="whole layers"):
        rescale(masked, "data", "unit", dense=dense, data=X)
    with pytest.raises(ModelError, match="no dense or convolution layer"):
        rescale(dense, weight_std=1.0)
    with pytest.raises(ModelError, match="the same layers"):
        rescale(masked, "data", dense=deep(K, 4, "tanh"), data=X)
