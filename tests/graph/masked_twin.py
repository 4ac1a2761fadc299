"""Cases that are built twice: plain, and with the removed units hidden by hand.

A case is a function `case(K, L, x, keep)`: it builds a network from the input `x`
up to a last Dense layer named `head`. In the plain network `keep` gives its tensor
back. In the twin it multiplies it by zeros where removed units lie, just before
whatever reads them. Where they lie is written into the case; nothing here asks the
package. What no tensor shows, such as what a recurrent layer reads of itself, is
set to zero in the twin's weights, by `zero`.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp


@dataclass(frozen=True)
class Case:
    """A network and what is to be removed of it.

    Attributes:
        build: The function `build(K, L, x, keep)`.
        shape: Shape of the input, or a list of shapes.
        gone: For each layer the indices of all units that are hidden.
        expect: For `"layer"` the shape of its first weight in the smaller model,
            for `"layer.attribute"` the value of an attribute.
        ask: What to ask for, where that takes the rest of `gone` along.
        zero: Weights to set to zero: layer, index of the weight, axis, indices.
        integers: Inputs are integers below this number.
        only: The flavour that has such layers.
        tolerance: The relative error that rounding may leave.
    """

    build: object
    shape: object
    gone: dict
    expect: dict
    ask: dict | None = None
    zero: list = field(default_factory=list)
    integers: int = 0
    only: str = ""
    tolerance: float = 1e-5


def collector(cases):
    """Make a decorator that turns builders into cases and lists them."""

    def case(shape, gone, expect, **more):
        def collect(function):
            cases.append(Case(function, shape, gone, expect, **more))
            return function

        return collect

    return case


def names(cases):
    """Name the cases, for pytest."""
    return [case.build.__name__ for case in cases]


class Keep:
    """Hides the units of layers in tensors; without `gone` it does nothing."""

    def __init__(self, K, gone=None):
        self.K, self.gone = K, gone

    def vector(self, name, units):
        """Give the zeros and ones of a layer's units."""
        ones = np.ones(units, "float32")
        # Where one half of the units is left, the other half went along.
        ones[[unit for unit in self.gone.get(name, []) if unit < units]] = 0.0
        return ones

    def __call__(self, tensor, name, axis=-1, repeat=1, tile=1):
        """Hide units.

        Args:
            tensor: A tensor that holds them.
            name: A layer, or pairs of a layer and its number of units, side by side.
            axis: The axis that holds them.
            repeat: How many neighbouring positions each unit takes.
            tile: How often the whole line of units is there.
        """
        if self.gone is None:
            return tensor
        size = tensor.shape[axis] // repeat // tile
        sizes = [(name, size)] if isinstance(name, str) else name
        line = np.concatenate([self.vector(n, units) for n, units in sizes])
        line = np.tile(np.repeat(line, repeat), tile)
        shape = [1] * (len(tensor.shape) - 1)
        shape[axis if axis < 0 else axis - 1] = len(line)
        return hide(self.K, line.reshape(shape))(tensor)


def hide(K, mask):
    """Make a layer that multiplies by a fixed array and hands time masks on."""

    class Hide(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def compute_output_shape(self, shape):
            return shape

        def call(self, inputs):
            return inputs * mask

    return Hide()


def build(K, case, gone=None):
    """Build the plain network of a case, or with `gone` its twin."""
    shapes = case.shape if isinstance(case.shape, list) else [case.shape]
    dtype = "int32" if case.integers else "float32"
    inputs = [K.Input(shape, dtype=dtype) for shape in shapes]
    x = inputs if isinstance(case.shape, list) else inputs[0]
    y = case.build(K, K.layers, x, Keep(K, gone))
    return K.Model(x, K.layers.Dense(2, name="head")(y))


def twin_of(K, model, case):
    """Build the network with the units hidden and the weights of `model`."""
    twin = build(K, case, case.gone)
    for layer in with_weights(model):
        arrays = layer.get_weights()
        for name, index, axis, places in case.zero:
            if name == layer.name:
                np.moveaxis(arrays[index], axis, 0)[places] = 0.0
        twin.get_layer(layer.name).set_weights(arrays)
    return twin


def with_weights(model):
    """List the layers with weights; an adapted Normalization comes as it is."""
    return [la for la in model.layers if la.weights and "Normalization" != kind(la)]


def kind(layer):
    return type(layer).__name__


def settle(model):
    """Give all weights values, the adapted ones left out."""
    for layer in with_weights(model):
        zoo.settle(layer, seed=sum(map(ord, layer.name)))
    return model


def inputs_of(case, count=6):
    rng = np.random.default_rng(1)
    shapes = case.shape if isinstance(case.shape, list) else [case.shape]
    if case.integers:
        return [rng.integers(0, case.integers, (count, *s), "int32") for s in shapes]
    return [rng.normal(size=(count, *s)).astype("float32") for s in shapes]


def run(model, inputs):
    return np.asarray(model(inputs if len(inputs) > 1 else inputs[0], training=False))


def assert_equal(found, expected, tolerance):
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 1e-3  # a twin that says nothing proves nothing
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def assert_sizes(model, expect):
    for key, size in expect.items():
        name, _, attribute = key.partition(".")
        layer = model.get_layer(name)
        if attribute:
            assert getattr(layer, attribute) == size, key
        else:
            assert tuple(layer.weights[0].shape) == size, key


def skip_other_flavour(K, case):
    if case.only not in ("", K.__name__):
        pytest.skip(f"{K.__name__} has no such layer")


def check(K, case):
    """Assert that removal gives the twin's function, in the sizes expected."""
    skip_other_flavour(K, case)
    model = settle(build(K, case))
    inputs = inputs_of(case)
    whole = run(model, inputs)
    small = tsp.remove_units(model, case.ask or case.gone)
    expected = run(twin_of(K, model, case), inputs)
    assert np.abs(expected - whole).max() > 1e-4  # the units did matter
    assert_equal(run(small, inputs), expected, case.tolerance)
    assert_sizes(small, case.expect)
    np.testing.assert_array_equal(run(model, inputs), whole)


def check_plan(K, case):
    """Assert that a plan over the same layers costs what it says, and verifies."""
    skip_other_flavour(K, case)
    model = settle(build(K, case))
    plan = tsp.plan(model, "random", sparsity=0.4, scope="layer")
    small = plan.apply(model)
    assert plan.after == tsp.cost(small)
    assert plan.before == tsp.cost(model)
    assert any(old > new for old, new in plan.units.values())
    assert tsp.verify(model, small, plan) <= 3 * case.tolerance


def scale_layer(K):
    """Make a layer class of the flavour with one trained scale a unit."""

    class Scale(K.layers.Layer):
        def __init__(self, dim, **settings):
            super().__init__(**settings)
            self.dim = dim

        def build(self, shape):
            self.gamma = self.add_weight(name="gamma", shape=(self.dim,))
            super().build(shape)

        def call(self, inputs):
            return inputs * self.gamma

        def get_config(self):
            return {**super().get_config(), "dim": self.dim}

    return Scale
