"""`verify` raises no false alarm: operations inside layers, and what is random."""

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import BlindVerificationWarning, VerificationError


def functions(K):
    """Give einsum, matmul, transpose and softmax of a flavour."""
    if K is keras:
        ops = keras.ops
        return ops.einsum, ops.matmul, ops.transpose, ops.softmax
    import tensorflow as tf

    return tf.einsum, tf.matmul, tf.transpose, tf.nn.softmax


def attention(K, how):
    """Make the class of an attention layer of three Dense layers and operations."""
    einsum, matmul, transpose, softmax = functions(K)

    class Attention(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.query, self.key = K.layers.Dense(8), K.layers.Dense(8)
            self.value = K.layers.Dense(8)

        def build(self, shape):
            for layer in (self.query, self.key, self.value):
                layer.build(shape)
            self.built = True

        def call(self, x):
            q, k, v = self.query(x), self.key(x), self.value(x)
            if how == "einsum":
                weights = softmax(einsum("bqd,bkd->bqk", q, k))
                return einsum("bqk,bkd->bqd", weights, v)
            weights = softmax(matmul(q, transpose(k, (0, 2, 1))))
            return matmul(weights, v)

    return Attention


@pytest.mark.parametrize("how", ["einsum", "matmul"])
@pytest.mark.parametrize("build", ["functional", "subclassed", "nested"])
def test_operations_inside_layers_are_found_in_every_trace(K, how, build):
    K.utils.set_random_seed(0)
    L, Attention = K.layers, attention(K, how)
    x = inputs = K.Input((6, 12))
    if build == "subclassed":

        class Whole(K.Model):
            def __init__(self):
                super().__init__()
                self.one, self.two = Attention(), Attention()
                self.flat, self.head = L.Flatten(), L.Dense(3)

            def call(self, x):
                return self.head(self.flat(self.two(self.one(x))))

        model = Whole()
        model(np.zeros((1, 6, 12), "float32"))
    else:
        x = Attention()(L.Dense(16)(x))
        if build == "nested":
            inner = K.Input((6, 8))
            x = K.Model(inner, Attention()(inner))(x)
        else:
            x = Attention()(x)
        model = K.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    assert plan.removed
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    # The pruned model can be planned for again: its operations have places too.
    again = tsp.plan(small, "magnitude", sparsity=0.2)
    assert tsp.verify(small, again.apply(small), again) < 1e-9


def sampling(K, how):
    """Make the class of a layer that draws around a mean."""
    if K is keras:

        class Sampling(K.layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.seed = keras.random.SeedGenerator(3) if how == "seeded" else None

            def call(self, both):
                noise = keras.random.normal(keras.ops.shape(both[0]), seed=self.seed)
                return both[0] + keras.ops.exp(both[1]) * noise

    else:
        import tensorflow as tf

        normal = tf.random.normal if how == "seeded" else K.backend.random_normal

        class Sampling(K.layers.Layer):
            def call(self, both):
                return both[0] + tf.exp(both[1]) * normal(tf.shape(both[0]))

    return Sampling


def autoencoder(K, layer):
    K.utils.set_random_seed(0)
    L = K.layers
    inputs = K.Input((10,))
    hidden = L.Dense(16, activation="relu", name="encoder")(inputs)
    mean, log_std = L.Dense(4, name="mean")(hidden), L.Dense(4)(hidden)
    hidden = L.Dense(16, activation="relu", name="decoder")(layer([mean, log_std]))
    return K.Model(inputs, [L.Dense(10, activation="sigmoid")(hidden), mean])


@pytest.mark.parametrize("how", ["seeded", "global"])
def test_a_model_that_samples_is_compared_with_equal_samples(K, how):
    model = autoencoder(K, sampling(K, how)())
    plan = tsp.plan(model, "magnitude", sparsity=0.4, layers=["encoder", "decoder"])
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    weights[-2] = weights[-2][::-1]  # behind the samples
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-2
    assert tsp.prune(model, "magnitude", sparsity=0.4).count_params()


def noisy(K, source):
    """Make the class of a layer whose noise no seed governs."""

    class Noisy(K.layers.Layer):
        def call(self, both):
            return both[0] + float(source.normal())

    return Noisy


def test_what_no_seed_governs_is_left_out_and_said(K):
    source = np.random.default_rng(0)
    model = autoencoder(K, noisy(K, source)())
    plan = tsp.plan(model, "magnitude", sparsity=0.4, layers=["encoder", "decoder"])
    small = plan.apply(model)
    with pytest.warns(BlindVerificationWarning, match=r"outputs number \[0\]"):
        assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    weights[2] = weights[2][::-1]  # what gives the mean, the other output
    small.set_weights(weights)
    with pytest.warns(BlindVerificationWarning):
        assert tsp.verify(model, small, plan) > 1e-2
    alone = K.Model(model.inputs, model.outputs[0])
    with pytest.warns(BlindVerificationWarning, match="every output is random"):
        tsp.prune(alone, "magnitude", sparsity=0.4, layers=["encoder"])


@pytest.mark.parametrize("name", ["Dropout", "GaussianNoise", "GaussianDropout"])
def test_noise_that_is_always_on(K, name):
    L = K.layers
    inputs = K.Input((10,))
    x = L.Dense(16, activation="relu")(inputs)
    x = getattr(L, name)(0.5)(x, training=True)
    model = K.Model(inputs, L.Dense(3)(x))
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    weights[-2] = weights[-2][::-1]
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-2


def open_length(K, how):
    """Build a model of open length that 32 does not suit."""
    K.utils.set_random_seed(0)
    L = K.layers
    x = inputs = K.Input((None, None, 3) if how == "strides" else (None, 4))
    if how == "strides":  # at 32 nothing is left after five of them
        for _ in range(6):
            x = L.Conv2D(6, 3, strides=2, activation="elu")(x)
        return K.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    if how == "long":
        x = L.Conv1D(6, 80, activation="relu")(x)
    elif how == "thirds":
        down = L.Conv1D(6, 3, strides=3, padding="same", activation="relu")(x)
        x = L.Concatenate()([x, L.UpSampling1D(3)(down)])
    else:  # a length of three, or of thirteen
        width = 10 * (3 if how == "multiple" else 13)
        x = L.Reshape((-1, width))(L.Dense(10, activation="relu")(x))
    x = L.Dense(8, activation="relu")(x)
    return K.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("how", ["multiple", "thirds", "long", "strides"])
def test_an_open_size_is_one_that_the_model_takes(K, how):
    model = open_length(K, how)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer")
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-9
    weights = small.get_weights()
    weights[0] = np.roll(weights[0], 1, -1)
    small.set_weights(weights)
    assert tsp.verify(model, small, plan) > 1e-2


def test_a_model_that_takes_nothing_that_is_drawn_is_no_error(K):
    model = open_length(K, "thirteen")
    why = "itself cannot be run.*[Rr]eshape"
    with pytest.warns(BlindVerificationWarning, match=why):
        small = tsp.prune(model, "magnitude", sparsity=0.3, recover=None)
    assert small.count_params() < model.count_params()


def test_a_shrunk_model_that_cannot_be_run_is_an_error_of_ours(K):
    L = K.layers
    model = K.Sequential([K.Input((6,)), L.Dense(12, activation="relu"), L.Dense(3)])
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    small = plan.apply(model)
    small.layers[-1].activation = lambda x: x @ x
    with pytest.raises(VerificationError, match="cannot be run, and the original can"):
        tsp.verify(model, small, plan)


def test_rounding_is_no_spread(K):
    """The outputs are the same for all inputs, but for the last digit."""
    L = K.layers
    model = K.Sequential(
        [
            *(K.Input((6,)), L.Rescaling(3e-17)),
            *(L.Dense(12, activation="relu", bias_initializer="ones"), L.Dense(3)),
        ]
    )
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    assert tsp.verify(model, plan.apply(model), plan) < 1e-9
