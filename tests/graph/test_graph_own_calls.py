"""Users' layers without a rule, of which their `call` shows what they do."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tf_spline_prune as tsp

SIZE = 8


class Scale(layers.Layer):
    """A scale for each unit, and one for all; takes its size as it comes."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="normal")
        self.all = self.add_weight(shape=(), initializer="normal")

    def call(self, x):
        return ops.relu(x * self.gamma) + (1.0 + self.all)


class Sized(layers.Layer):
    """Is told its size."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.gamma = self.add_weight(shape=(1, size), initializer="normal")

    def call(self, x):
        return x * self.gamma

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class Drop(layers.Layer):
    """Drops whole examples in training."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)
        self.rate = rate

    def call(self, x, training=None):
        if not training:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        kept = keras.random.uniform(shape, seed=self.seeds) > self.rate
        return x * ops.cast(kept, x.dtype) / (1 - self.rate)


class PerSize(Scale):
    """Divides by the number of its units."""

    def call(self, x):
        return x * self.gamma / x.shape[-1]


class Mean(Scale):
    """Each unit hangs on all."""

    def call(self, x):
        return x * self.gamma - ops.mean(x, axis=-1, keepdims=True)


class Turned(Scale):
    """The scales stand in another order than the units."""

    def call(self, x):
        return x * ops.flip(self.gamma, -1)


class InTraining(Scale):
    """Mixes its units in training alone."""

    def call(self, x, training=None):
        return ops.softmax(x) if training else x * self.gamma


def model_with(layer):
    keras.utils.set_random_seed(0)
    x = keras.Input((3, 4))
    y = layer(layers.Dense(SIZE, name="hidden")(x))
    y = layers.Dense(2, name="top")(y)
    model = keras.Model(x, y)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("layer", [Scale, lambda: Sized(SIZE), Drop])
def test_units_go_through_a_layer_that_treats_each_alone(layer, tmp_path):
    model = model_with(layer())
    small = tsp.remove_units(model, {"hidden": [0, 5]})
    kernel, bias = model.get_layer("top").get_weights()
    kernel[[0, 5]] = 0
    model.get_layer("top").set_weights([kernel, bias])
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)
    assert small.layers[2].output.shape == (None, 3, SIZE - 2)
    small.save(tmp_path / "small.keras")
    known = {"Scale": Scale, "Sized": Sized, "Drop": Drop}
    again = keras.models.load_model(tmp_path / "small.keras", known)
    np.testing.assert_array_equal(again(x), small(x))


@pytest.mark.parametrize("kind", [PerSize, Mean, Turned, InTraining])
def test_any_other_is_a_barrier(kind):
    graph = tsp.ChannelGraph(model_with(kind(name="odd")))
    assert not graph.groups
    assert "odd" in graph.explain("hidden")


def test_reading_a_call_changes_nothing():
    model = model_with(Drop())
    layer = model.layers[2]
    state, held = layer.seeds.state.numpy(), {**vars(layer)}
    tsp.ChannelGraph(model)
    np.testing.assert_array_equal(layer.seeds.state.numpy(), state)
    assert {**vars(layer)}.keys() == held.keys()
    model = model_with(Scale())
    gamma = model.layers[2].gamma
    tsp.ChannelGraph(model)
    assert model.layers[2].gamma is gamma


class By(layers.Layer):
    """Takes a number besides."""

    def call(self, x, factor):
        return x * factor


@pytest.mark.parametrize("factor", [2.0, ops.convert_to_tensor(2.0)])
def test_what_takes_more_than_its_tensor_is_a_barrier(factor):
    x = layers.Dense(SIZE, name="hidden")(keras.Input((4,)))
    y = By(name="by")(x, factor=factor)
    model = keras.Model(x._keras_history.operation.input, layers.Dense(2)(y))
    assert not tsp.ChannelGraph(model).groups
