"""A user's `train_step` is kept in a copy where it can be, and else warned of."""

import warnings

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat.build import _model_class

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def layers(K):
    return [K.layers.Dense(8, activation="relu", name="hidden"), K.layers.Dense(2)]


def counting(base):
    """Derive a class that counts its steps of training while they are traced."""

    class Counting(base):
        steps = 0

        def train_step(self, data):
            type(self).steps += 1
            return super().train_step(data)

    return Counting


def functional(K, cls, *args, **kwargs):
    given = K.Input((4,))
    hidden, output = layers(K)
    return cls(given, output(hidden(given)), *args, **kwargs)


def trained(model):
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, np.zeros((16, 2)), batch_size=8, verbose=0)
    return type(model).steps


def test_a_functional_model_stays_of_its_class(K):
    cls = counting(K.Model)
    model = functional(K, cls)
    small = tsp.prune(model, sparsity=0.5)
    assert type(small) is cls and small.name == model.name
    assert small.get_layer("hidden").units == 4
    assert trained(small) == 2
    assert model.get_layer("hidden").units == 8


def test_a_sequential_model_stays_of_its_class(K):
    cls = counting(K.Sequential)
    small = tsp.prune(cls([K.Input((4,)), *layers(K)]), sparsity=0.5)
    assert type(small) is cls and trained(small) == 2


def test_a_constructor_that_hands_all_on_is_kept(K):
    class Own(counting(K.Model)):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracker = K.metrics.Mean("loss")

    small = tsp.remove_units(functional(K, Own), {"hidden": [0, 3]})
    assert type(small) is Own and trained(small) == 2


def test_a_nested_model_stays_of_its_class(K):
    cls = counting(K.Model)
    inner = functional(K, cls, name="inner")
    given = K.Input((4,))
    model = K.Model(given, K.layers.Dense(3)(inner(given)))
    small = tsp.remove_units(model, {"inner/hidden": [1]})
    assert type(small.get_layer("inner")) is cls


@pytest.mark.parametrize("call", ["prune", "lossless", "wrap", "strip", "batchnorm"])
def test_all_copies_keep_it(K, call):
    cls = counting(K.Model)
    model = functional(K, cls)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tsp.errors.NothingPrunedWarning)
        warnings.simplefilter("ignore", tsp.errors.SparsityWarning)  # masks never set
        made = {
            "prune": lambda: tsp.prune(model, sparsity=0.5, data=X),
            "lossless": lambda: tsp.lossless(model),
            "wrap": lambda: tsp.wrap_with_masks(model),
            "strip": lambda: zoo.through_masks(model),
            "batchnorm": lambda: tsp.recalibrate_batchnorm(model, X),
        }[call]()
    assert type(made) is cls


def lossy(K):
    """Give models whose class cannot be made of inputs and outputs alone."""

    class Subclassed(K.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers(K)

        def call(self, x):
            return self.second(self.first(x))

        def train_step(self, data):
            return super().train_step(data)

    class Weighted(counting(K.Model)):
        def __init__(self, inputs=None, outputs=None, alpha=2.0, **kwargs):
            super().__init__(inputs, outputs, **kwargs)
            self.alpha = alpha

    class Popped(counting(K.Model)):
        def __init__(self, *args, **kwargs):
            alpha = kwargs.pop("alpha", 2.0)
            super().__init__(*args, **kwargs)
            self.alpha = alpha

    class Whole(counting(K.Model)):
        def __init__(self, *args, **kwargs):
            given = K.Input((4,))
            hidden, output = layers(K)
            super().__init__(given, output(hidden(given)))

    subclassed = Subclassed()
    subclassed(X)
    return {
        "Subclassed": subclassed,
        "Weighted": functional(K, Weighted, alpha=3.0),
        "Popped": functional(K, Popped, alpha=3.0),
        "Whole": Whole(),
    }


@pytest.mark.parametrize("kind", ["Subclassed", "Weighted", "Popped", "Whole"])
def test_a_lost_train_step_is_a_warning_and_one_only(K, kind):
    model = lossy(K)[kind]
    before = [np.copy(array) for array in model.get_weights()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = tsp.prune(model, sparsity=0.5, data=X)
    ours = [w for w in caught if issubclass(w.category, tsp.errors.SplinePruneWarning)]
    (said,) = [str(w.message) for w in ours]
    assert "`train_step`" in said and kind in said
    assert not isinstance(small, type(model))
    assert small.get_layer("hidden" if kind != "Subclassed" else model.first.name)
    for array, now in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(array, now)
    with pytest.warns(tsp.errors.SplinePruneWarning, match="`train_step`"):
        tsp.wrap_with_masks(model)


def test_a_plain_model_is_not_warned_of(K):
    class Plain(K.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers(K)

        def call(self, x):
            return self.second(self.first(x))

    model = Plain()
    model(X)
    tsp.prune(model, sparsity=0.5)  # warnings are errors here


def test_a_plain_model_is_built_once(K, monkeypatch):
    """What Keras' classes inherit from TensorFlow is no user's own."""
    made = []
    model = functional(K, K.Model)
    monkeypatch.setattr(_model_class, "_settings", made.append)
    tsp.remove_units(model, {"hidden": [0]})
    assert not made


def test_a_call_that_always_trains_is_told_where_keras_overrules_it():
    """`predict` of the copy was no longer random, and nobody said so."""

    class Doubtful(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(8, activation="relu")
            self.drop, self.last = keras.layers.Dropout(0.5), keras.layers.Dense(3)

        def call(self, x):
            return self.last(self.drop(self.first(x), training=True))

    x = np.ones((2, 6), "float32")
    model = Doubtful()
    model(x)
    with pytest.warns(tsp.errors.SplinePruneWarning, match="answer as in inference"):
        small = tsp.prune(model, "magnitude", sparsity=0.3)
    assert np.ptp([float(np.sum(small(x))) for _ in range(5)]) > 0
    assert np.ptp([np.sum(small.predict(x, verbose=0)) for _ in range(5)]) == 0
