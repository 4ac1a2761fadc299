"""`verify` sees: what is wrong is told from what is right, or it says that it is blind.

Every model here was one whose shrunk copy could be shuffled without a word, or is a
sibling of such a one.
"""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import trace
from tf_spline_prune.compat.data._model_inputs import _smaller_size as smaller_size
from tf_spline_prune.errors import BlindVerificationWarning
from tf_spline_prune.pruning.checks._verify import Comparison, require_verified


def compared(model, small, plan):
    """Give what the comparison of `prune` takes."""
    graph = plan.graph_of(model)
    return graph, trace(small), graph.removal(plan.removed), {}


def shuffled(model, seed=1):
    """Put the weights of every layer into another order."""
    rng = np.random.default_rng(seed)
    weights = model.get_weights()
    model.set_weights([rng.permutation(w.ravel()).reshape(w.shape) for w in weights])


@pytest.mark.parametrize(
    "name",
    [
        "MobileNet",
        pytest.param("MobileNetV2", marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", marks=pytest.mark.slow),
        pytest.param("MobileNetV3Small", marks=pytest.mark.slow),
    ],
)
def test_stock_networks_with_shuffled_weights(name):
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10)
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    shuffled(small)
    assert tsp.verify(model, small, plan) > 0.1


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_a_glance_sees_units_change_places(name):
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(64, 64, 3), classes=10)
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    take = compared(model, small, plan)
    verdict = Comparison(*take)._at_a_glance(4, 0)
    assert verdict.excess < 1 and verdict.seen > 1e3
    # The first consumer, one in the middle, and the last.
    convolutions = [x for x in small.layers if type(x).__name__ == "Conv2D"]
    places = (1, len(convolutions) // 2, -1)
    for layer in (*(convolutions[place] for place in places), small.layers[-1]):
        weights = layer.get_weights()
        layer.set_weights([np.roll(weights[0], 1, axis=-2), *weights[1:]])
        assert Comparison(*take)._at_a_glance(4, 0) is None
        with pytest.raises(tsp.errors.VerificationError, match="rounding explains"):
            require_verified(*take)
        layer.set_weights(weights)


def test_pictures_are_smaller_only_where_all_layers_take_them_alike():
    L = keras.layers

    def size(*layers, shape=(128, 160, 3)):
        model = keras.Sequential([keras.Input(shape), L.Conv2D(4, 3), *layers])
        return smaller_size(trace(model))

    assert size() == size(L.MaxPooling2D(), L.GlobalMaxPooling2D()) == [32, 40, 3]
    gates = [L.GlobalAveragePooling2D(), L.Reshape((1, 1, 4)), L.Conv2D(2, 1)]
    assert size(*gates, shape=(64, 64, 3)) == [32, 32, 3]
    assert size(L.MaxPooling2D(5), L.MaxPooling2D(5)) == [32, 40, 3]
    assert size(L.MaxPooling2D(5), L.MaxPooling2D(5), L.Conv2D(2, 2)) == [64, 80, 3]
    assert size(L.Flatten()) is size(L.PReLU()) is size(L.LayerNormalization()) is None
    assert size(L.BatchNormalization(axis=1)) is size(L.Reshape((-1, 4))) is None
    assert size(L.Conv2D(2, 3, dilation_rate=8, padding="same")) == [32, 40, 3]
    assert size(L.Conv2D(2, 3, dilation_rate=16, padding="same")) == [64, 80, 3]
    assert size(shape=(48, 48, 3)) is size(shape=(None, 64, 3)) is None
    # Halves that are odd do not fit what skips them.
    inputs = keras.Input((72, 72, 3))
    down = L.Conv2D(4, 3, strides=8, padding="same")(inputs)
    skip = L.Conv2D(4, 3, strides=1, padding="same")(inputs)
    model = keras.Model(inputs, L.Concatenate()([L.UpSampling2D(8)(down), skip]))
    assert smaller_size(trace(model)) is None


def ending(K, how):
    """Build a deep model with tiny logits that ends in one of many ways."""
    L = K.layers
    ops = keras.ops
    x = inputs = K.Input((6,))
    for width in (12, 10):
        x = L.Dense(width, activation="relu")(x)
    x = L.Rescaling(1e-6)(x)
    if how == "inside":
        x = L.Dense(4, activation="softmax")(x)
    elif how == "sigmoid":
        x = L.Dense(4, activation="sigmoid")(x)
    elif how == "layer":
        x = L.Softmax()(L.Dense(4)(x))
    elif how == "activation":
        x = L.Activation("softmax")(L.Dense(4)(x))
    elif how == "operation":
        if K is keras:
            x = ops.softmax(L.Dense(4)(x))
        else:
            import tensorflow as tf

            x = tf.nn.softmax(L.Dense(4)(x))
    elif how == "reshaped":
        x = L.Reshape((2, 2))(L.Dense(4, activation="softmax")(x))
        x = L.Activation("linear", dtype="float32")(x)
    elif how == "in time":
        x = L.RepeatVector(3)(x)
        x = L.TimeDistributed(L.Dense(4, activation="softmax"))(x)
    elif how == "nested":
        head = K.Sequential([K.Input((10,)), L.Dense(4, activation="softmax")])
        x = head(x)
    elif how == "two":
        x = [L.Dense(4, activation="softmax")(x), L.Dense(2, activation="tanh")(x)]
    return K.Model(inputs, x)


ENDINGS = ("inside", "sigmoid", "layer", "activation", "operation", "reshaped")
ENDINGS = (*ENDINGS, "in time", "nested", "two")


@pytest.mark.parametrize("how", ENDINGS)
def test_small_logits_behind_a_squashing_function(K, how):
    model = ending(K, how)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer")
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    # Units of the first layer change places in its reader alone.
    weights[2] = weights[2][::-1]
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-2


@pytest.mark.parametrize("how", ["argmax", "greater", "cast"])
def test_decisions_and_whole_numbers_hide_nothing(K, how):
    """A fault that changes no decision is seen in what is decided on."""
    import tensorflow as tf

    L = K.layers
    functions = {
        "argmax": keras.ops.argmax if K is keras else tf.argmax,
        "greater": lambda x: x > 0.0,
        "cast": lambda x: (keras.ops if K is keras else tf).cast(x, "int32"),
    }
    inputs = K.Input((6,))
    x = L.Dense(3)(L.Dense(12, activation="relu")(inputs))
    model = K.Model(inputs, functions[how](x))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    weights[-1] = weights[-1] + 1e-3
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-5


@pytest.mark.parametrize("everywhere", [False, True])
def test_what_is_not_finite_is_compared_and_not_called_random(K, everywhere):
    import tensorflow as tf

    L = K.layers
    root = keras.ops.sqrt if K is keras else tf.sqrt
    inputs = K.Input((6,))
    x = L.Dense(4)(L.Dense(12, activation="relu")(inputs))
    model = K.Model(inputs, root(x))
    if everywhere:
        model.layers[2].bias.assign(np.full(4, -1e4))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    if everywhere:
        with pytest.warns(BlindVerificationWarning, match="no output depends"):
            assert np.isnan(tsp.verify(model, small, plan))
        return
    assert tsp.verify(model, small, plan) < 1e-9
    shuffled(small)
    assert not tsp.verify(model, small, plan) < 1e-2
    with pytest.raises(tsp.errors.VerificationError, match="rounding explains"):
        require_verified(*compared(model, small, plan))


def test_a_large_constant_does_not_hide_what_moves(K):
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    # Of each output another: its spread is that over inputs, not over outputs.
    model.layers[-1].bias.assign([1e5, 2e5, -1e5])
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-6
    weights = small.get_weights()
    weights[2] = weights[2][::-1]
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-2
    with pytest.raises(tsp.errors.VerificationError, match="rounding explains"):
        require_verified(*compared(model, small, plan))


@pytest.mark.parametrize("build", [zoo.mlp, zoo.mobilenet])
def test_every_mutation_is_seen(K, build):
    """Perturb the largest entry of each weight, swap two units, drop a bias."""
    model = build(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer")
    small = plan.apply(model)
    right = tsp.verify(model, small, plan)
    assert right < 1e-9
    weights = small.get_weights()
    rng = np.random.default_rng(0)
    for index in rng.choice(len(weights), min(3, len(weights)), replace=False):
        changed = [w.copy() for w in weights]
        largest = np.abs(changed[index]).argmax()
        changed[index].flat[largest] *= 1.01
        small.set_weights(changed)
        assert tsp.verify(model, small, plan) > max(1e-7, 100 * right), index
    changed = [w.copy() for w in weights]
    changed[-2][[0, 1]] = changed[-2][[1, 0]]  # two inputs of the head
    small.set_weights(changed)
    assert tsp.verify(model, small, plan) > 1e-4
    small.set_weights([*weights[:-1], np.zeros_like(weights[-1])])
    assert tsp.verify(model, small, plan) > 1e-2


@pytest.mark.parametrize("dead", ["head", "units", "constant"])
def test_blind_is_said(K, dead):
    """Nothing answers to the removed units: the head, or what it reads, is zero."""
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    first, head = model.layers
    if dead == "head":
        head.kernel.assign(np.zeros((12, 3)))
    elif dead == "units":
        first.kernel.assign(np.zeros((6, 12)))
        first.bias.assign(np.full(12, -1.0))
    else:
        first.bias.assign(np.full(12, -1e9))
    plan = tsp.plan(model, "random", sparsity=0.3)
    with pytest.warns(BlindVerificationWarning, match="nothing is proven"):
        assert np.isnan(tsp.verify(model, plan.apply(model), plan))
    with pytest.warns(BlindVerificationWarning):
        small = tsp.prune(model, "random", sparsity=0.3, recover=None)
    assert small.count_params() < model.count_params()


def test_units_that_only_large_inputs_wake_are_seen(K):
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    model.layers[0].bias.assign(np.full(12, -50.0))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    shuffled(small)
    assert tsp.verify(model, small, plan) > 1e-2


def test_units_whose_removal_changes_nothing_are_proven_all_the_same(K):
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    kernel = np.array(model.layers[1].kernel)
    kernel[:4] = 0
    model.layers[1].kernel.assign(kernel)
    first = np.array(model.layers[0].kernel)
    first[:, :4] *= 1e-3
    model.layers[0].kernel.assign(first)
    plan = tsp.plan(model, "magnitude", sparsity=1 / 3)
    assert list(map(sorted, plan.removed.values())) == [[0, 1, 2, 3]]
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9


def test_one_input_is_too_few_and_two_are_taken(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan, num_inputs=1) < 1e-9
    shuffled(small)
    assert tsp.verify(model, small, plan, num_inputs=1) > 1e-2


def test_layers_that_compute_in_one_precision_only_are_still_compared(K):
    def half(x):
        if K is keras:
            return 0.5 * keras.ops.matmul(x, keras.ops.eye(4, dtype="float32"))
        import tensorflow as tf

        return 0.5 * tf.matmul(x, tf.eye(4, dtype="float32"))

    L = K.layers
    inputs = K.Input((6,))
    x = L.Dense(4)(L.Dense(12, activation="relu")(inputs))
    model = K.Model(inputs, L.Lambda(half, output_shape=(4,))(x))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-4
    shuffled(small)
    assert tsp.verify(model, small, plan) > 1e-2


@pytest.mark.parametrize("how", ["rescaled", "mean", "beside"])
def test_what_is_seen_is_not_called_blind(K, how):
    """Tiny logits behind a softmax that is not the end; a bias is off by one place."""
    L = K.layers
    x = inputs = K.Input((6,))
    x = L.Rescaling(1e-6)(L.Dense(12, activation="relu")(x))
    x = L.Dense(4, activation="softmax", bias_initializer="uniform")(x)
    if how == "rescaled":
        x = L.Rescaling(2.0, -1.0)(x)
    else:
        other = L.Dense(4, activation="sigmoid")(inputs)
        x = (L.Average if how == "mean" else L.Concatenate)()([x, other])
    model = K.Model(inputs, x)
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    small.layers[3].bias.assign(np.roll(np.array(small.layers[3].bias), 1))
    assert tsp.verify(model, small, plan) > 1e-3
    with pytest.raises(tsp.errors.VerificationError, match="rounding explains"):
        require_verified(*compared(model, small, plan))


def test_units_that_are_seldom_awake_are_seen(K):
    """Each unit answers to one input in twenty: of eight, two or three answer to it."""
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    kernel = np.array(model.layers[0].kernel)
    model.layers[0].bias.assign(-1.65 * np.linalg.norm(kernel, axis=0))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    for unit in range(len(weights[1]) - 1):
        changed = [w.copy() for w in weights]
        changed[2][[unit, unit + 1]] = weights[2][[unit + 1, unit]]
        small.set_weights(changed)
        assert tsp.verify(model, small, plan) > 1e-3
