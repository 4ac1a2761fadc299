"""A user's own layer with units inside it: the example of docs/layers.md."""

import pathlib
import re

import numpy as np
import zoo

import tf_spline_prune as tsp

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "layers.md"


def low_rank_dense(K):
    """Make the layer's class and register its rule, as the document shows."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    (code,) = [block for block in blocks if "register_rule(LowRankDense)" in block]
    names = {"tsp": tsp, "keras": K}
    exec(code, names)
    return names["LowRankDense"]


def test_the_rule_of_the_document(K):
    layer = low_rank_dense(K)
    assert tsp.check_rule(layer(units=6, rank=4), (8,)) < 1e-5
    assert tsp.check_rule(layer(units=6, rank=4), (3, 8)) < 1e-5


def test_units_inside_a_layer(K):
    layer = low_rank_dense(K)
    inputs = K.Input((5,))
    x = layer(6, 4, name="low")(K.layers.Dense(8, activation="relu", name="a")(inputs))
    model = zoo.settle(K.Model(inputs, K.layers.Dense(2, name="head")(x)))
    small = tsp.remove_units(model, {"low/rank": [1], "low": [0, 5], "a": [2]})
    low = small.get_layer("low")
    assert (low.units, low.rank) == (4, 3)
    assert [tuple(w.shape) for w in low.weights] == [(7, 3), (3, 4), (4,)]

    (w, b), (down, up, bias), (v, c) = [
        [a.astype("float64") for a in layer.get_weights()] for layer in model.layers[1:]
    ]
    x = np.random.default_rng(0).standard_normal((9, 5))
    a = np.maximum(x @ w + b, 0.0) * (np.arange(8) != 2)
    r = (a @ down) * (np.arange(4) != 1)
    expected = ((r @ up + bias) * ~np.isin(np.arange(6), [0, 5])) @ v + c
    np.testing.assert_allclose(small(x.astype("float32")), expected, atol=1e-5)
