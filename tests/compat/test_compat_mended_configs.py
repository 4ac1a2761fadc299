"""Layers that are not built again by their own `get_config`, but could be."""

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError


class Patches(keras.layers.Layer):
    """Says sizes that `__init__` does not take, and leaves out one that it takes."""

    def __init__(self, width, scale=1.0, biased=True, **kwargs):
        super().__init__(**kwargs)
        self.width, self.scale, self.biased = width, scale, biased
        self.area = width * width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.width))
        if self.biased:
            self.bias = self.add_weight(shape=(self.width,))

    def call(self, x):
        y = keras.ops.matmul(x, self.kernel) * self.scale
        return y + self.bias if self.biased else y

    def get_config(self):
        known = {"width": self.width, "scale": self.scale, "area": self.area}
        return {**super().get_config(), **known}


class Forgets(Patches):
    """Its `get_config` cannot be called at all."""

    def get_config(self):
        return {**super().get_config(), "lost": self.lost}


class Changes(Patches):
    """Keeps under the name of an argument what it made of it."""

    def __init__(self, width, scale=1.0, biased=True, **kwargs):
        super().__init__(width, scale, biased, **kwargs)
        self.scale = 2 * scale


def model_with(layer):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    y = keras.layers.Dense(8, activation="relu", name="hidden")(layer(x))
    model = keras.Model(x, keras.layers.Dense(2, name="top")(y))
    for weight in model.weights:
        draw = np.random.default_rng(len(weight.path)).normal(size=weight.shape)
        weight.assign(draw)
    return model


def without(model, units):
    kernel = model.get_layer("top").kernel
    values = kernel.numpy()
    values[units] = 0
    kernel.assign(values)
    return model


@pytest.mark.parametrize("kind", [Patches, Forgets])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_built_from_what_its_init_takes_and_can_be_saved(kind, biased, tmp_path):
    model = model_with(kind(6, 3.0, biased, name="odd"))
    small = tsp.remove_units(model, {"hidden": [0, 5]})
    said = small.get_layer("odd").get_config()
    small = tsp.remove_units(small, {"hidden": [0]})
    assert small.get_layer("odd").get_config() == said
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")
    expected = without(model, [0, 1, 5])(x)
    np.testing.assert_allclose(small(x), expected, atol=1e-5)
    small.save(tmp_path / "small.keras")
    known = {"Patches": Patches, "Forgets": Forgets}
    again = keras.models.load_model(tmp_path / "small.keras", known)
    np.testing.assert_array_equal(again(x), small(x))


def test_one_that_would_compute_something_else_is_refused():
    model = model_with(Changes(6, 3.0, name="odd"))
    with pytest.raises(ModelError, match="get_config.*'odd'"):
        tsp.remove_units(model, {"hidden": [0]})


def test_a_layer_of_keras_that_was_given_a_policy_object():
    policy = keras.DTypePolicy("float32")
    model = model_with(keras.layers.Identity(dtype=policy, name="same"))
    with pytest.raises(NotImplementedError):
        model.get_layer("same").get_config()
    small = tsp.remove_units(model, {"hidden": [2]})
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(small(x), without(model, [2])(x), atol=1e-5)
    assert small.get_layer("same").get_config()["name"] == "same"


class Draws(keras.layers.Layer):
    """Draws by itself, and does not say how."""

    def __init__(self, method, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.method, self.seed = method, seed
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, x):
        drawn = keras.random.normal(keras.ops.shape(x), seed=self.seeds)
        return x + drawn if self.method == "add" else x * drawn

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def test_a_layer_that_draws():
    model = model_with(Draws("multiply", name="odd"))
    small = tsp.remove_units(model, {"hidden": [0, 5]})
    assert small.get_layer("odd").method == "multiply"


class Drops(Patches):
    """Says a layer where it takes a rate, which it keeps under another name."""

    def __init__(self, width, drop=0.0, **kwargs):
        super().__init__(width, **kwargs)
        self.rate = drop
        self.drop = keras.layers.Dropout(drop)

    def call(self, x):
        return self.drop(super().call(x))

    def get_config(self):
        return {**super().get_config(), "drop": self.drop}


def test_what_shows_in_training_alone_is_compared_too():
    small = tsp.remove_units(model_with(Drops(6, name="odd")), {"hidden": [0]})
    assert small.get_layer("odd").rate == 0.0
    with pytest.raises(ModelError, match="get_config.*'odd'"):
        tsp.remove_units(model_with(Drops(6, 0.5, name="odd")), {"hidden": [0]})
