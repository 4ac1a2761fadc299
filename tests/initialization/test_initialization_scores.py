"""Scores of connections against backpropagation and matrix products by hand."""

import early_nets
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.compat import Calibration, trace
from tf_spline_prune.errors import CriterionError

scores_of = tsp.initialization.connection_scores


def near(found, wanted, rel):
    """Compare two lists of arrays; `rel` is a share of the largest entry of all."""
    largest = max(np.abs(w).max() for w in wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rel * largest)


def negatives(K, model, x, y, weights, by, temperature=1.0):
    """Differentiate the gradient along `by`, by central differences."""
    step = 1e-4 / np.sqrt(sum((one**2).sum() for one in by))
    ahead, behind = (
        early_nets.gradients_by_hand(
            [w + sign * step * b for w, b in zip(weights, by, strict=True)],
            x,
            y,
            temperature,
        )
        for sign in (1, -1)
    )
    return [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]


def test_snip_is_weight_times_gradient(K):
    model = early_nets.mlp(K)
    x, y = early_nets.examples()
    before = model.get_weights()
    weights = list(early_nets.kernels(model).values())
    slopes = early_nets.gradients_by_hand(weights, x, y)
    wanted = [np.abs(w * g) for w, g in zip(weights, slopes, strict=True)]
    total = sum(array.sum() for array in wanted)
    for size in (7, 128):  # signs are added up over batches, of uneven sizes too
        found = scores_of(model, criteria.SNIP(batch_size=size), data=(x, y))
        assert list(found) == ["d1/kernel", "d2/kernel", "d3/kernel"]
        assert sum(a.sum() for a in found.values()) == pytest.approx(1, abs=1e-14)
        near(found.values(), [a / total for a in wanted], 1e-12)
        assert all(array.dtype == np.float64 for array in found.values())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for one, other in zip(
        scores_of(model, "force", data=(x, y)).values(), found.values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)  # in one round they are the same


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_weight_times_hessian_times_gradient(K, temperature):
    model = early_nets.mlp(K)
    x, y = early_nets.examples()
    weights = list(early_nets.kernels(model).values())
    slopes = early_nets.gradients_by_hand(weights, x, y, temperature)
    products = negatives(K, model, x, y, weights, slopes, temperature)
    wanted = [w * h for w, h in zip(weights, products, strict=True)]
    for size in (7, 128):
        grasp = criteria.GraSP(temperature=temperature, batch_size=size)
        found = scores_of(model, grasp, data=(x, y))
        near(found.values(), wanted, 1e-7)
    # A model that ends in a softmax is cooled before it.
    model.add(K.layers.Softmax())
    loss = K.losses.SparseCategoricalCrossentropy()
    near(scores_of(model, grasp, data=(x, y), loss=loss).values(), wanted, 1e-5)


def test_grasp_on_a_quadratic(K):
    """What holds the gradient down has a negative score, and goes first.

    The loss is the mean of (w1 x1 + w2 x2 - y)^2; with x = e1, e2 it is
    ((w1 - y1)^2 + (w2 - y2)^2) / 2, the gradient w - y and the Hessian 1. So the score
    is w (w - y): it is negative where w lies between 0 and y.
    """
    model = K.Sequential([K.Input((2,)), K.layers.Dense(1, use_bias=False, name="w")])
    model.set_weights([np.array([[0.5], [3.0]], "float32")])
    x, y = np.eye(2, dtype="float32"), np.array([[2.0], [2.0]], "float32")
    grasp = criteria.GraSP(loss="mse", temperature=1)
    found = scores_of(model, grasp, data=(x, y))["w/kernel"]
    np.testing.assert_allclose(found, [[0.5 * -1.5], [3.0 * 1.0]], rtol=1e-6)
    masked = tsp.prune_at_init(model, grasp, 0.5, data=(x, y))
    np.testing.assert_array_equal(
        early_nets.masks_of(masked)["w/kernel"], [[False], [True]]
    )
    with pytest.raises(ValueError, match="finite number above 0.*temperature=0"):
        criteria.GraSP(temperature=0)


def test_scores_of_a_network_with_branches(K):
    """Convolutions, BatchNormalization, sums and pools, against the gradient tape."""
    model = zoo.resnet(K)
    early_nets.compiled(K, model)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *zoo.SHAPE)).astype("float32")
    y = rng.integers(0, 5, 6)
    with tf.GradientTape() as tape:
        outputs = model(x, training=False)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)
        )
    held = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    values = [getattr(kernel, "_value", kernel) for kernel in held]
    slopes = tape.gradient(loss, values)
    wanted = [
        np.abs(v.numpy() * g.numpy()) for v, g in zip(values, slopes, strict=True)
    ]
    total = sum(array.sum() for array in wanted)
    found = scores_of(model, "snip", data=(x, y))
    near(found.values(), [a / total for a in wanted], 1e-4)


def test_signed_sums_are_alike_in_all_layers(K):
    """In a bias-free ReLU net each layer's sum of W dL/dW is the same."""
    model = early_nets.mlp(K, (12, 20, 30, 8, 4))
    x, y = early_nets.examples()
    names = {key.rpartition("/")[0]: ["kernel"] for key in early_nets.kernels(model)}
    connections = criteria.Connections(model, names)
    data = Calibration.of((x, y), trace(model))
    found = criteria.SNIP().saliencies(connections, data)
    sums = [of["kernel"].sum() for of in found.values()]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_masks_hang_on_no_scale(K, name):
    """Neither the scale of the loss nor that of a layer without bias matters."""
    model = early_nets.mlp(K)
    x, y = early_nets.examples()

    def loss(scale):
        def scaled(y_true, y_pred):
            each = K.losses.sparse_categorical_crossentropy(
                y_true, y_pred, from_logits=True
            )
            return scale * each

        return scaled

    masks = early_nets.masks_of(tsp.prune_at_init(model, name, 0.7, data=(x, y)))
    for scale in (1e-3, 64.0):
        other = tsp.prune_at_init(model, name, 0.7, data=(x, y), loss=loss(scale))
        for key, mask in early_nets.masks_of(other).items():
            np.testing.assert_array_equal(mask, masks[key])
    if name == "snip":
        # The factor of one layer, taken back in another: the same function.
        first, second, third = model.get_weights()
        model.set_weights([4 * first, second / 4, third])
        other = tsp.prune_at_init(model, name, 0.7, data=(x, y))
        for key, mask in early_nets.masks_of(other).items():
            np.testing.assert_array_equal(mask, masks[key])


@pytest.mark.parametrize("activation", ["relu6", "tanh", "gelu"])
def test_synflow_is_a_product_of_matrices(K, activation):
    model = early_nets.mlp(K, (12, 30, 20, 10, 4), activation)
    weights = [np.abs(w) for w in early_nets.kernels(model).values()]
    wanted = []
    for number, weight in enumerate(weights):
        before, after = np.ones(12), np.ones(4)
        for one in weights[:number]:
            before = before @ one
        for one in weights[:number:-1]:
            after = one @ after
        wanted.append(weight * np.outer(before, after))
    found = scores_of(model, "synflow")
    for one, other in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    model.add(K.layers.Softmax())  # which would make the sum of the outputs 1
    for one, other in zip(scores_of(model, "synflow").values(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_synflow_is_conserved(K):
    """Layers add up alike, and what flows into a unit flows out of it."""
    L = K.layers
    model = K.Sequential([K.Input((8, 8, 3))])
    for width in (6, 10, 8):
        model.add(L.Conv2D(width, 3, padding="same", use_bias=False))
        model.add(L.BatchNormalization())
        model.add(L.ReLU(6.0))
    model.add(L.MaxPooling2D())
    model.add(L.AveragePooling2D(2))
    model.add(L.GlobalAveragePooling2D())
    model.add(L.Dense(7, "tanh", use_bias=False))
    model.add(L.Dense(5, "softmax", use_bias=False))
    rng = np.random.default_rng(0)
    for layer in model.layers:  # as after some training, but without biases
        if "batch" in layer.name:
            gamma, beta, mean, variance = layer.get_weights()
            scale = rng.uniform(0.5, 2, gamma.shape)
            layer.set_weights([scale, beta, mean, 1 / scale])
    before = [np.array(w) for w in model.get_weights()]
    scores = list(scores_of(model, "synflow").values())
    sums = [array.sum() for array in scores]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-12)
    for one, other in zip(scores, scores[1:], strict=False):
        into = one.reshape(-1, one.shape[-1]).sum(axis=0)
        out = np.moveaxis(other, -2, 0).reshape(len(into), -1).sum(axis=1)
        np.testing.assert_allclose(into, out, rtol=1e-12)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_synflow_keeps_gates_and_reads_words(K):
    """A gate stays a gate; an input of whole numbers stays one."""
    L = K.layers
    x = inputs = K.Input((6,), dtype="int32")
    x = L.Embedding(9, 5, name="words")(x)
    x = L.Dense(4, use_bias=False, name="wide")(L.Flatten()(x))
    gate = L.Dense(4, "sigmoid", use_bias=False, name="gate")(x)
    x = L.Multiply()([x, gate])
    model = K.Model(inputs, L.Dense(3, use_bias=False, name="head")(x))
    found = scores_of(model, "synflow")
    words, wide, gate, head = (
        np.abs(np.asarray(model.get_layer(name).get_weights()[0], "float64"))
        for name in ("words", "wide", "gate", "head")
    )
    hidden = np.tile(words[1], 6) @ wide
    factors = 1 / (1 + np.exp(-hidden @ gate))
    wanted = head * (hidden * factors)[:, None]
    np.testing.assert_allclose(found["head/kernel"], wanted, rtol=1e-10)
    assert not found["words/embeddings"][[0, 2, 3, 4, 5, 6, 7, 8]].any()
    assert found["words/embeddings"][1].all()


def test_synflow_leaves_layers_of_ones_own_alone(K):
    """Its activation stands between two products, where nothing else knows of it."""

    class Twice(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.activation = K.activations.get("softsign")

        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(4, 4))

        def call(self, x):
            return 3 * self.activation(x @ self.kernel)

        def get_prunable_weights(self):
            return [self.kernel]

    model = K.Sequential([K.Input((4,)), Twice(name="own")])
    kernel = np.abs(model.get_weights()[0].astype("float64"))
    wanted = 3 * kernel / (1 + kernel.sum(axis=0)) ** 2
    found = scores_of(model, "synflow")["own/kernel"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_numbers_that_overflow(K):
    model = early_nets.mlp(K, (4, 4, 4, 4), std=3e38**0.5)
    for _ in range(12):
        model.add(K.layers.Dense(4, use_bias=False, kernel_initializer="ones"))
        model.layers[-1].set_weights([np.full((4, 4), 3e38, "float32")])
    with pytest.raises(CriterionError, match="not finite.*inf"):
        scores_of(model, "synflow")


@pytest.mark.parametrize("kind", ["uniform", "raw", "softmax"])
def test_losses_without_labels(K, kind):
    """The slopes at the logits, by hand: for "uniform" softmax less 1 / classes."""
    model = early_nets.mlp(K)
    x, _ = early_nets.examples()
    weights = list(early_nets.kernels(model).values())

    def loss(weights):
        z = x.astype("float64")
        for weight in weights[:-1]:
            z = np.maximum(z @ weight, 0)
        z = z @ weights[-1]
        log = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        target = {"uniform": 1 / z.shape[1], "raw": z, "softmax": np.exp(log)}[kind]
        return -(target * log).sum(axis=1).mean()

    wanted = [np.zeros_like(w) for w in weights]
    for number, at in ((0, (3, 5)), (1, (2, 1)), (1, (7, 7)), (2, (1, 3)), (2, (9, 0))):
        up, down = ([w.copy() for w in weights] for _ in range(2))
        up[number][at] += 1e-5
        down[number][at] -= 1e-5
        slope = (loss(up) - loss(down)) / 2e-5
        wanted[number][at] = abs(slope * weights[number][at])
    found = list(scores_of(model, "snip", data=x, loss=kind).values())
    chosen = [np.where(w, f, 0) for w, f in zip(wanted, found, strict=True)]
    total = sum(c.sum() for c in chosen) / sum(w.sum() for w in wanted)
    near(chosen, [w * total for w in wanted], 1e-6)
    assert total > 0


@pytest.mark.parametrize("kind", ["uniform", "raw", "softmax"])
def test_a_lone_logit_tells_two_classes_apart(K, kind):
    """It scores as two logits do of which the first is always zero."""
    layers = [K.layers.Dense(5, activation="relu"), K.layers.Dense(1)]
    lone = K.Sequential([K.Input((16,)), *layers, K.layers.Activation("sigmoid")])
    pair = K.Sequential(
        [K.Input((16,)), K.layers.Dense(5, activation="relu"), K.layers.Dense(2)]
    )
    *hidden, kernel, bias = lone.get_weights()
    columns = [np.concatenate([0 * w, w], axis=-1) for w in (kernel, bias)]
    pair.set_weights([*hidden, *columns])
    x = np.random.default_rng(0).normal(size=(20, 16)).astype("float32")
    first, last = scores_of(lone, "snip", data=x, loss=kind).values()
    wanted, both = scores_of(pair, "snip", data=x, loss=kind).values()
    near([first, last[:, 0]], [wanted, both[:, 1]], 1e-10)
    assert first.sum() > 0
