"""What is measured of a network, against NumPy and published numbers."""

import numpy as np
import pytest
import zoo
from initial_nets import deep

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots, value_and_grad
from tf_spline_prune.errors import CalibrationError, ModelError

diagnose = tsp.initialization.signal_propagation
RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 12)).astype("float32")
Y = RNG.integers(0, 5, 40)


def test_the_numbers_of_a_small_net(K):
    L = K.layers
    x = inputs = K.Input((12,))
    x = L.Dense(16, name="a")(x)
    x = L.ReLU()(x)
    x = L.Dense(16, activation="tanh", name="b")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(5, name="c")(x)))
    masked = tsp.prune_once(model, 0.25)
    layer = next(o for o in masked._flatten_layers() if hasattr(o, "kernel"))
    values = np.array(layer.bias.numpy())
    values[3] = -100.0  # a unit that is never active
    layer.bias.assign(values)
    found = diagnose(masked, X, Y, K.losses.SparseCategoricalCrossentropy(True))
    plain = tsp.strip_masks(masked)
    (w1, b1), (w2, b2), (w3, b3) = (
        [v.astype("float64") for v in plain.get_layer(n).get_weights()] for n in "abc"
    )
    one = X.astype("float64") @ w1 + b1
    rectified = np.maximum(one, 0)
    two = rectified @ w2 + b2
    three = np.tanh(two) @ w3 + b3
    assert found.layers == ("a", "b", "c")
    for name, sums in zip("abc", (one, two, three), strict=True):
        assert found.variance[name] == pytest.approx(np.square(sums).mean())
    dead = (rectified.max(axis=0) == rectified.min(axis=0)).mean()
    assert found.dead_units["a"] == dead >= 1 / 16
    assert found.dead_units["b"] == 0
    for name, w in zip("abc", (w1, w2, w3), strict=True):
        assert found.density[name] == np.count_nonzero(w) / w.size == 0.75
    odds = np.exp(three)
    error = (odds / odds.sum(axis=1, keepdims=True) - np.eye(5)[Y]) / len(X)
    last = np.tanh(two).T @ error
    back = error @ w3.T * (1 - np.tanh(two) ** 2)
    middle = rectified.T @ back
    first = X.T @ (back @ w2.T * (one > 0))
    expected = [np.square(g).mean() for g in (first, middle, last)]
    given = list(found.gradients.values())
    np.testing.assert_allclose(given, expected, rtol=1e-6)
    chi = [expected[0] / expected[1], expected[1] / expected[2]]
    np.testing.assert_allclose(list(found.chi.values()), chi, rtol=1e-6)
    values = [
        np.linalg.svd(
            w1 * (one[i] > 0) @ w2 * (1 - np.tanh(two[i]) ** 2) @ w3, compute_uv=False
        )
        for i in range(32)
    ]
    values = np.sort(np.ravel(values))[::-1]
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-6, atol=1e-9)
    given = [found.jacobian[key] for key in ("mean", "std", "max")]
    np.testing.assert_allclose(given, [values.mean(), values.std(), values[0]])
    assert "singular values" in str(found) and found.to_dict()["emptied"] == []


def test_an_empty_layer_and_units_without_inputs(K):
    masked = tsp.wrap_with_masks(deep(K, 4, "tanh", 12))
    slots = mask_slots(masked)
    slots[2].assign(np.zeros((12, 12), bool))
    keep = np.ones((12, 12), bool)
    keep[:, :3] = False
    slots[1].assign(keep)
    found = diagnose(masked, X)
    assert found.emptied == ("d2",)
    assert found.dead_units["d1"] == 0.25 and found.dead_units["d2"] == 1
    assert found.gradients is found.chi is None
    assert found.jacobian["max"] == 0 and found.jacobian["condition"] == float("inf")


def test_convolutions_nested_models_and_several_outputs(K):
    L = K.layers
    model = zoo.resnet(K)
    images = RNG.normal(size=(6, *zoo.SHAPE)).astype("float32")
    found = diagnose(model, images, jacobian_inputs=2)
    assert {"stem_conv", "r1s_conv", "head"} <= set(found.layers)
    assert found.singular_values.shape == (10,)
    x = inputs = K.Input(zoo.SHAPE)
    outer = K.Model(inputs, [model(x), L.GlobalMaxPooling2D()(x)])
    nested = diagnose(outer, images)
    assert nested.singular_values is None
    x = inputs = K.Input((7,), dtype="int32")
    x = L.GlobalAveragePooling1D()(L.Dense(6, name="d")(L.Embedding(9, 4)(x)))
    tokens = diagnose(K.Model(inputs, x), RNG.integers(0, 9, (5, 7)))
    assert tokens.singular_values is None and tokens.layers == ("d",)
    inner = {path.rpartition("/")[2]: v for path, v in nested.variance.items()}
    assert inner == pytest.approx(dict(found.variance))


# Mean singular values of the input-to-logit Jacobian of a 784-100x6-10 tanh network
# with weights of this variance; a source's and a reproduction on Gaussian inputs
# agree to a fifth.
PUBLISHED = {1e-4: 2.46e-7, 1e-2: 4.49e-1, 1.0: 1.03e3}


@pytest.mark.parametrize("variance", PUBLISHED)
def test_the_jacobians_and_emptied_layers_that_are_published(variance):
    import keras

    x = inputs = keras.Input((784,))
    for i in range(7):
        x = keras.layers.Dense(
            10 if i == 6 else 100,
            "linear" if i == 6 else "tanh",
            kernel_initializer=keras.initializers.RandomNormal(0, variance**0.5, i),
            name=f"d{i}",
        )(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100, 784)).astype("float32")
    labels = rng.integers(0, 10, 100)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = diagnose(model, points, jacobian_inputs=16)
    assert 1 / 1.3 < found.jacobian["mean"] / PUBLISHED[variance] < 1.3
    _, gradients = value_and_grad(model, loss)([points], labels)

    def snip(name, array):
        return np.abs(array * gradients[name.rpartition("/")[0]]["kernel"])

    masked = tsp.prune_once(model, 0.9, criterion=snip, scope="global")
    density = list(diagnose(masked, points, jacobian_inputs=0).density.values())
    if variance < 1:
        assert min(density) > 0.02
    else:
        # One per cent is what a mask leaves of any layer.
        assert max(density[3:]) < 0.02 < 0.05 < min(density[:2])


def test_critical_sparsity_by_counting():
    rng = np.random.default_rng(0)
    scores = {name: rng.random((20, 20)) * top for name, top in (("a", 1), ("b", 0.7))}
    critical = tsp.initialization.critical_sparsity(scores)
    both = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
    threshold = both[round(critical * both.size) - 1]
    assert (scores["b"] <= threshold).all() and (scores["a"] > threshold).any()
    assert (scores["b"] > both[round(critical * both.size) - 2]).any()


# By the closed form, and on average over ten draws.
MAGNITUDE = {
    (784, 300, 100, 10): (0.9991, 0.9992),
    (784, *[100] * 9, 10): (0.9395, 0.9451),
    (*[100] * 10, 10): (0.9990, 0.9987),
}


@pytest.mark.parametrize("widths", MAGNITUDE, ids=str)
def test_magnitude_empties_the_widest_layer_first(widths):
    shapes = list(zip(widths[:-1], widths[1:], strict=True))
    predicted = tsp.initialization.magnitude_critical_sparsity(shapes)
    measured = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scores = {
            str(i): np.abs(rng.normal(0, shape[0] ** -0.5, shape))
            for i, shape in enumerate(shapes)
        }
        measured.append(tsp.initialization.critical_sparsity(scores))
    known = MAGNITUDE[widths]
    assert predicted == pytest.approx(known[0], abs=1e-4)
    spread = 0.2 * (1 - known[1]) + 3 * np.std(measured)
    assert abs(np.mean(measured) - known[1]) < spread
    assert abs(np.mean(measured) - predicted) < 0.5 * (1 - predicted) + 1e-3


def test_wrong_input(K):
    model = zoo.mlp(K)
    with pytest.raises(CalibrationError, match="At least two"):
        diagnose(model, X[:1])
    with pytest.raises(ValueError, match="loss is needed"):
        diagnose(model, X, Y)
    with pytest.raises(ValueError, match="jacobian_inputs"):
        diagnose(model, X, jacobian_inputs=-1)
    inputs = K.Input((3,))
    with pytest.raises(ModelError, match="neither dense nor convolution"):
        diagnose(K.Model(inputs, K.layers.ReLU()(inputs)), X[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        tsp.initialization.critical_sparsity({"a": np.array([np.nan])})
    with pytest.raises(ValueError, match="It is empty"):
        tsp.initialization.critical_sparsity({})
    with pytest.raises(ValueError, match="shapes of kernels"):
        tsp.initialization.magnitude_critical_sparsity([(3,)])
