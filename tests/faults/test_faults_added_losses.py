"""Losses and metrics beside the outputs stay in copies, or are said to be lost."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")


@pytest.fixture
def tfk():
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return tf_keras


def autoencoder(tfk):
    """The loss and the metric are of the bottleneck; units of `wide` may be pruned."""
    import tensorflow as tf

    L = tfk.layers
    inputs = tfk.Input((8,))
    mean, spread = L.Dense(3, name="mean")(inputs), L.Dense(3, name="spread")(inputs)
    wide = L.Dense(12, activation="relu", name="wide")(mean)
    model = tfk.Model(inputs, L.Dense(8, name="out")(wide))
    model.add_loss(tf.reduce_mean(tf.square(mean) + tf.exp(spread)) * 3.0)
    model.add_metric(tf.reduce_mean(spread), name="seen", aggregation="mean")
    return model


def chain(tfk):
    import tensorflow as tf

    L = tfk.layers
    layers = [L.Dense(6, name="first"), L.Dense(12, name="wide"), L.Dense(8)]
    model = tfk.Sequential([L.InputLayer((8,)), *layers])
    model.add_loss(tf.reduce_mean(model.layers[0].output ** 2))
    return model


def nested(tfk):
    inputs = tfk.Input((8,))
    return tfk.Model(inputs, tfk.layers.Dense(2)(autoencoder(tfk)(inputs)))


COPIES = {
    "masks": tsp.wrap_with_masks,
    "no masks": zoo.through_masks,
    "units": lambda m: tsp.remove_units(m, {wide(m): [1, 4]}),
}


def wide(model):
    """Name the layer whose units go, by its path."""
    inner = next((layer for layer in model.layers if hasattr(layer, "layers")), None)
    return "wide" if inner is None else f"{inner.name}/wide"


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("build", [autoencoder, chain, nested])
@pytest.mark.filterwarnings("ignore::tf_spline_prune.errors.SparsityWarning")
def test_what_a_model_adds_stays(tfk, build, name):
    """A copy trained on without its loss; that of a Sequential gave the loss."""
    model = build(tfk)
    copy = COPIES[name](model)
    expected, found = model(X), copy(X)
    assert found.shape == expected.shape
    if name != "units":
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    for one, other in zip(model.losses, copy.losses, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    for one in (model, copy):
        one.compile("sgd", "mse")
    values = [
        one.evaluate(X, expected, verbose=0, return_dict=True) for one in (model, copy)
    ]
    assert values[0].keys() == values[1].keys()
    if build is autoencoder:
        assert values[0]["seen"] == pytest.approx(values[1]["seen"])


def test_pruning_leaves_the_loss_as_it_is(tfk):
    model = autoencoder(tfk)
    small = tsp.prune(model, "magnitude", sparsity=0.5, layers="wide")
    assert small.get_layer("wide").units == 6
    model(X), small(X)
    np.testing.assert_allclose(model.losses[0], small.losses[0], rtol=1e-5)


class Own:
    """Makes a model, and a layer, whose `call` adds a loss to its own."""

    def __init__(self, K):
        class Net(K.Model):
            def __init__(self):
                super().__init__()
                self.hidden = K.layers.Dense(6, activation="relu")
                self.out = K.layers.Dense(2)

            def call(self, x):
                x = self.hidden(x)
                self.add_loss(mean_square(K, x))
                return self.out(x)

        class Block(K.layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.hidden = K.layers.Dense(6, activation="relu")

            def call(self, x):
                x = self.hidden(x)
                self.add_loss(mean_square(K, x))
                return x

        self.net, self.block = Net, Block


def mean_square(K, x):
    if K.__name__ == "keras":
        return K.ops.mean(x * x)
    import tensorflow as tf

    return tf.reduce_mean(x * x)


def test_a_layer_whose_call_adds_a_loss_is_left_whole(K):
    inputs = K.Input((8,))
    x = K.layers.Dense(6, name="first")(inputs)
    x = Own(K).block(name="block")(x)
    model = K.Model(inputs, K.layers.Dense(2)(x))
    with pytest.warns(tsp.errors.NothingPrunedWarning, match="block"):
        small = tsp.prune(model, "magnitude", sparsity=0.5)
    model(X), small(X)
    assert len(small.losses) == len(model.losses) == 1


def test_what_a_subclassed_model_adds_is_said_to_be_lost(tfk):
    model = Own(tfk).net()
    model(X)
    with pytest.warns(tsp.errors.SplinePruneWarning, match="without the losses"):
        tsp.prune(model, "magnitude", sparsity=0.5)
    assert model._losses == []  # no symbolic ones


def test_in_keras_3_such_a_model_is_refused():
    import keras

    model = Own(keras).net()
    model(X)
    with pytest.raises(tsp.errors.ModelError, match="add losses inside of layers"):
        tsp.prune(model, "magnitude", sparsity=0.5)


def test_a_function_as_loss_is_said_to_be_lost(tfk):
    model = zoo.mlp(tfk)
    model.add_loss(lambda: tfk.backend.sum(model.layers[0].kernel))
    with pytest.warns(tsp.errors.SplinePruneWarning, match="without the losses"):
        tsp.wrap_with_masks(model)


def test_classes_of_a_layer_s_parts_are_known_to_copies(K):
    """An initializer that nobody has registered was a refusal."""

    class Start(K.initializers.Initializer):
        def __call__(self, shape, dtype=None, **kwargs):
            return K.initializers.Ones()(shape, dtype)

        def get_config(self):
            return {}

    class Decay(K.regularizers.Regularizer):
        def __call__(self, x):
            return 0.5 * mean_square(K, x)

        def get_config(self):
            return {}

    inputs = K.Input((8,))
    parts = {"kernel_initializer": Start(), "kernel_regularizer": Decay()}
    x = K.layers.Dense(6, name="own", **parts)(inputs)
    model = K.Model(inputs, K.layers.Dense(2)(x))
    small = tsp.remove_units(model, {"own": [0]})
    assert isinstance(small.get_layer("own").kernel_initializer, Start)
    assert isinstance(small.get_layer("own").kernel_regularizer, Decay)
    assert len(small.losses) == 1


def test_functions_as_losses_are_those_of_the_copy(K):
    """A lambda was a warning about files, and the copy was not compiled."""

    class Far(K.losses.Loss):
        def call(self, true, found):
            return mean_square(K, true - found) * 2.0

    def seen(true, found):
        return mean_square(K, found)

    for loss in (lambda true, found: mean_square(K, true - found), Far()):
        model = zoo.mlp(K)
        model.compile(K.optimizers.SGD(0.3), loss, metrics=[seen])
        masked = tsp.wrap_with_masks(model)
        data = np.ones((8, 12), "float32"), np.ones((8, 5), "float32")
        one, other = (m.evaluate(*data, verbose=0) for m in (model, masked))
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert masked.optimizer is not model.optimizer
        assert float(np.array(masked.optimizer.learning_rate)) == pytest.approx(0.3)
