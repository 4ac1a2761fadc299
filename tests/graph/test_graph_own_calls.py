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


class Root(layers.Layer):
    """Divides by the root mean square, and scales by numbers about one."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="normal")

    def call(self, x):
        square = ops.mean(ops.square(x), axis=-1, keepdims=True)
        return x * ops.rsqrt(square + 1e-6) * (1 + self.scale)


class PerPosition(Scale):
    """Takes the mean over positions off: every unit alone."""

    def call(self, x):
        return (x - ops.mean(x, axis=1, keepdims=True)) * self.gamma


class Vectors(layers.Layer):
    """A vector for each position, whatever goes in."""

    def build(self, shape):
        self.table = self.add_weight(shape=(5, shape[-1]), initializer="normal")

    def call(self, x):
        return ops.broadcast_to(self.table[: x.shape[1]], ops.shape(x))


class Shifted(Vectors):
    """What goes in counts, a little."""

    def call(self, x):
        return super().call(x) + 1e-3 * x


def test_a_users_normalisation_runs_over_the_units_that_are_left():
    model = model_with(Root(name="root"))
    assert "root (custom:Root) normalises" in tsp.ChannelGraph(model).explain("hidden")
    (group,) = tsp.ChannelGraph(model, approximate=True).groups
    assert group.approximate == ("root",)
    small = tsp.remove_units(model, {"hidden": [0, 5]}, approximate=True)
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("float32")
    (w, b), (scale,), (v, c) = (layer.get_weights() for layer in model.layers[1:])
    left = [1, 2, 3, 4, 6, 7]
    y = (x @ w + b)[..., left].astype("float64")
    y /= np.sqrt((y**2).mean(axis=-1, keepdims=True) + 1e-6)
    expected = y * (1 + scale[left]) @ v[left] + c
    np.testing.assert_allclose(small(x), expected, atol=1e-5)


def test_means_over_positions_leave_every_unit_alone():
    model = model_with(PerPosition())
    small = tsp.remove_units(model, {"hidden": [0, 5]})
    kernel, bias = model.get_layer("top").get_weights()
    kernel[[0, 5]] = 0
    model.get_layer("top").set_weights([kernel, bias])
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_a_table_of_positions_makes_the_units_that_it_is_added_to():
    def built(table):
        x = inputs = keras.Input((3, 4))
        y = layers.Dense(SIZE, name="hidden")(x)
        y = layers.Add()([y, table(y)])
        return keras.Model(inputs, layers.Dense(2, name="top")(y))

    keras.utils.set_random_seed(0)
    model = built(Vectors(name="table"))
    (group,) = tsp.ChannelGraph(model).groups
    assert group.makers == ("hidden", "table")
    small = tsp.remove_units(model, {"hidden": [0, 5]})
    assert small.get_layer("table").get_weights()[0].shape == (5, SIZE - 2)
    kernel, bias = model.get_layer("top").get_weights()
    kernel[[0, 5]] = 0
    model.get_layer("top").set_weights([kernel, bias])
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)
    assert not tsp.ChannelGraph(built(Shifted(name="table"))).groups
