"""What runs a user's model leaves its states, seeds and fixed batches alone."""

import random

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.compat import same_randomness
from tf_spline_prune.compat._flavour import is_all_keras
from tf_spline_prune.errors import CalibrationError, CalibrationWarning

BATCH = 4
LAYERS = ["LSTM", "GRU", "Bidirectional", "RNN", "Counter"]


def recurrent(K, name):
    """Build a model with states, of a fixed batch size."""
    K.utils.set_random_seed(0)
    L = K.layers
    x = inputs = K.Input(batch_shape=(BATCH, 5, 3))
    if name == "Bidirectional":
        x = L.Bidirectional(L.LSTM(8, stateful=True))(x)
    elif name == "RNN":
        x = L.RNN([L.LSTMCell(8), L.GRUCell(7)], stateful=True)(x)
    elif name == "Counter":
        x = counter(K)()(L.Dense(8)(L.Flatten()(x)))
    else:
        x = getattr(L, name)(8, stateful=True)(x)
    x = L.Dense(6, activation="relu", name="middle")(x)
    model = K.Model(inputs, L.Dense(2)(x))
    model(points(BATCH), training=False)  # the states are no longer zero
    return model


def counter(K):
    """Make the class of a layer that counts its calls."""

    class Counter(K.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(
                name="count", shape=(), initializer="zeros", trainable=False
            )
            super().build(shape)

        def call(self, x):
            self.count.assign(self.count + 1.0)
            return x * 1.0

    return Counter


def points(count):
    return np.random.default_rng(0).normal(size=(count, 5, 3)).astype("float32")


def states(model):
    """Read, apart from the library, all that the model carries from call to call."""
    found = []
    for layer in model._flatten_layers():
        held = getattr(layer, "states", None) if hasattr(layer, "stateful") else None
        found += [s for s in keras.tree.flatten(held) if s is not None]
        found += [layer.count] if hasattr(layer, "count") else []
    assert found
    return [np.array(keras.ops.convert_to_numpy(state)) for state in found]


def unchanged(model, action):
    before, weights = states(model), model.get_weights()
    assert any(np.abs(state).max() > 0 for state in before)
    result = action()
    for one, other in zip(before, states(model), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    return result


@pytest.mark.parametrize("name", LAYERS)
def test_verification_and_recovery_keep_states(K, name):
    model = recurrent(K, name)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer")

    def twice():
        small = plan.apply(model)
        errors = [tsp.verify(model, small, plan) for _ in range(2)]
        assert max(errors) < 1e-9
        small = tsp.least_squares(model, small, plan, points(8))
        tsp.recalibrate_batchnorm(model, points(8))
        return tsp.prune(model, "magnitude", sparsity=0.3, data=points(8))

    small = unchanged(model, twice)
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize("name", ["LSTM", "RNN"])
@pytest.mark.parametrize(
    "criterion", ["activation", "reconstruction", "taylor", "snip"]
)
def test_criteria_with_data_keep_states(K, name, criterion):
    model = recurrent(K, name)
    model.compile(loss="mse")
    data = (points(8), np.ones((8, 2), "float32"))
    plan = unchanged(model, lambda: tsp.plan(model, criterion, sparsity=0.2, data=data))
    assert plan.removed


@pytest.mark.usefixtures("unconverted")
@pytest.mark.filterwarnings("ignore:Some activations are not known")
@pytest.mark.parametrize("name", ["GRU", "Counter"])
def test_codes_signals_and_scores_keep_states(K, name):
    model = recurrent(K, name)
    model.compile(loss="mse", metrics=["mae"])
    small = tsp.prune(model, "magnitude", sparsity=0.3)
    labels = np.ones((8, 2), "float32")

    def look():
        codes = tsp.PartitionCoder(model, ["middle"])(points(10))
        again = tsp.PartitionCoder(model, ["middle"])(points(10)[:4])
        np.testing.assert_array_equal(
            codes.unpack("middle")[:4], again.unpack("middle")
        )
        return tsp.report(model, small, data=(points(8), labels))

    unchanged(model, look)


@pytest.mark.parametrize("kind", ["saved_model", "litert"])
def test_exports_keep_states(K, kind, tmp_path):
    model = recurrent(K, "LSTM")
    if kind == "saved_model":
        unchanged(model, lambda: tsp.export_saved_model(model, tmp_path / "m"))
    else:
        unchanged(model, lambda: tsp.export_litert(model, tmp_path / "m.tflite"))


def test_batches_of_fixed_size_are_whole(K):
    model = recurrent(K, "LSTM")
    with pytest.warns(CalibrationWarning, match="first 8 of the data"):
        tsp.plan(model, "activation", sparsity=0.2, data=points(10))
    with pytest.raises(CalibrationError, match="4 inputs at a time"):
        tsp.plan(model, "activation", sparsity=0.2, data=points(3))


def test_a_layer_that_fixes_the_batch_by_itself(K):
    """The size is in the graph of the model, whatever its layers carry over."""
    L = K.layers
    inputs = K.Input(batch_shape=(BATCH, 6))
    x = L.Dense(10, activation="relu")(inputs)
    model = K.Model(inputs, L.Dense(3)(L.Reshape((5, 2))(x)))
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    assert tsp.verify(model, plan.apply(model), plan) < 1e-9
    x = np.random.default_rng(0).normal(size=(10, 6)).astype("float32")
    codes = tsp.PartitionCoder(model)(x)
    (layer,) = codes.layers
    hidden = keras.ops.convert_to_numpy(model.layers[1](x))
    np.testing.assert_array_equal(codes.unpack(layer), hidden > 0)


@pytest.mark.new_kernels
def test_seeds_of_the_session_are_as_they_were(K):
    """Whoever draws after us draws what he would have drawn without us."""
    import tensorflow as tf

    model = recurrent(K, "LSTM")

    def draw():
        return (
            np.random.normal(size=3),  # noqa: NPY002
            tf.random.normal((3,)).numpy(),
            keras.ops.convert_to_numpy(keras.random.normal((3,))),
        )

    K.utils.set_random_seed(7)
    keras.utils.set_random_seed(7)
    draw()
    plain = draw()
    K.utils.set_random_seed(7)
    keras.utils.set_random_seed(7)
    draw()
    with same_randomness(model):
        draw()
    for one, other in zip(plain, draw(), strict=True):
        np.testing.assert_array_equal(one, other)


def small_net(K):
    L = K.layers
    layers = [L.Dense(8, activation="relu", name="hidden"), L.Dropout(0.5), L.Dense(2)]
    return K.Sequential([K.Input((3,)), *layers])


def sane(model):
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    tsp.sanity_checks(model, plan, lambda m: 1.0, lambda m: None, num_seeds=1)


CALLS = {
    "prune": lambda m: tsp.prune(m, "magnitude", sparsity=0.5),
    "masks": lambda m: tsp.strip_masks(tsp.prune_once(m, 0.5)),
    "slice": lambda m: tsp.slice2d(m, points(3)[:, 0], extent=(0.4, 0.5)),
    "rounds": lambda m: tsp.prune_in_rounds(m, "magnitude", sparsity=0.5, rounds=2),
    "sensitivity": lambda m: tsp.sensitivity(m, None, lambda n: 1.0, "magnitude"),
    "sanity": sane,
    "costs": tsp.cost,
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_drawn_afterwards_is_what_would_have_been_drawn(K, name):
    """New layers take their seeds from generators of Python, which copies moved on."""
    model = small_net(K)

    def drawn(action):
        K.utils.set_random_seed(7)
        action(model)
        weights = K.layers.Dense(4)
        weights.build((None, 3))
        ones = np.ones((1, 32), "float32")
        return (
            random.random(),
            np.random.normal(size=3),  # noqa: NPY002
            np.array(weights.get_weights()[0]),
            np.array(K.layers.Dropout(0.5)(ones, training=True)),
        )

    for one, other in zip(drawn(lambda m: None), drawn(CALLS[name]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_new_weights_are_new_each_time(K):
    plan = tsp.plan(model := small_net(K), "magnitude", sparsity=0.5)
    one, other = (plan.apply(model, weights="reinitialize") for _ in range(2))
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def drawing(K, how):
    """Build a model that is traced, reads open sizes, and counts or draws at that."""
    L = K.layers

    class Block(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = L.Dense(8, name="inner")
            self.drawn = L.Dropout(0.5, seed=3)
            if how == "seed":
                self.seed = keras.random.SeedGenerator(7)

        def build(self, shape):
            self.inner.build(shape)
            if how == "count":
                self.count = self.add_weight(
                    name="count", shape=(), initializer="zeros", trainable=False
                )
            self.built = True

        def call(self, x):
            y = self.inner(x)
            if how == "count":
                self.count.assign(self.count + 1.0)
            elif how == "seed":
                y = y + keras.random.normal((1, 1, 8), seed=self.seed)
            elif how == "dropout":
                y = self.drawn(y, training=True)
            if K is keras:
                shape = keras.ops.shape
                y = keras.ops.reshape(y, (shape(y)[0], shape(y)[1], 2, 4))
                y = keras.ops.reshape(y, (shape(y)[0], shape(y)[1], 8))
            return y

    K.utils.set_random_seed(0)
    inputs = K.Input((None, 6))
    x = L.Dense(10, activation="relu", name="first")(inputs)
    x = Block(name="block")(L.Dense(6, name="second")(x))
    model = K.Model(inputs, L.Dense(2)(x))
    model(np.ones((2, 3, 6), "float32"))
    return model


@pytest.mark.parametrize("how", ["count", "seed", "dropout"])
def test_tracing_keeps_what_counts_and_what_is_drawn(K, how):
    """A `call` that is run to be traced counted on, and drew, in the user's model."""
    if how != "count" and K is not keras:
        pytest.skip("tf_keras keeps no such seeds")
    model = drawing(K, how)
    layer = model.get_layer("block")
    if how == "count":
        held = layer.count
    else:
        held = layer.seed.state if how == "seed" else layer.drawn.seed_generator.state
    before = held.numpy()
    tsp.cost(model)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, layers=["first"])
    assert len(plan.removed["first"]) == 3
    np.testing.assert_array_equal(held.numpy(), before)
    # What it adds is no constant of the copy, either.
    small = plan.apply(model)
    copied = small.get_layer("block")
    if how == "count":
        small(np.ones((2, 3, 6), "float32"))
        assert float(copied.count.numpy()) == float(before) + 1
    elif how == "seed":
        x = np.ones((2, 3, 6), "float32")
        assert np.ptp([float(small(x).numpy().sum()) for _ in range(3)]) > 0


def test_a_model_whose_call_draws_by_itself_is_refused():
    class Noisy(keras.Model):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(7)
            self.first, self.last = keras.layers.Dense(8), keras.layers.Dense(3)

        def call(self, x):
            return self.last(
                self.first(x) + keras.random.normal((1, 8), seed=self.seed)
            )

    model = Noisy()
    model(np.ones((2, 6), "float32"))
    before = model.seed.state.numpy()
    with pytest.raises(tsp.errors.ModelError, match="draws random numbers of a fixed"):
        tsp.plan(model, "magnitude", sparsity=0.3)
    np.testing.assert_array_equal(model.seed.state.numpy(), before)


def test_all_copies_draw_the_same_whoever_draws():
    """Keras' layers hold their seeds; TensorFlow's operations keep them in kernels."""
    import keras
    import tensorflow as tf

    def noisy(x):
        return x + tf.random.normal(tf.shape(x))

    L = keras.layers
    x = np.ones((2, 3), "float32")
    for layer, alone in (
        (L.Dropout(0.5), True),
        (L.GaussianNoise(1.0), True),
        (L.Lambda(noisy), False),
        (L.Dense(3, kernel_initializer="ones", activation=noisy), False),
    ):
        model = keras.Sequential([keras.Input((3,)), layer])
        drawn = []
        for _ in range(3):
            with same_randomness(model):
                drawn.append(np.asarray(model(x, training=True)))
        np.testing.assert_array_equal(drawn[0], drawn[1])
        np.testing.assert_array_equal(drawn[0], drawn[2])
        with same_randomness(model, seed=1):
            assert not np.array_equal(drawn[0], np.asarray(model(x, training=True)))
        assert is_all_keras(model) is alone
