"""Layers as matrix products: rows times matrix is what the layer computes."""

import numpy as np
import pytest

from tf_spline_prune.compat import read_weights, trace
from tf_spline_prune.pruning.recovery._linear_views import linear_views

# A layer, and its input.
WHOLE = {
    "dense": ("Dense", {"units": 4}, (5, 6)),
    "einsum": (
        "EinsumDense",
        {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
        (5, 6),
    ),
    "einsum, two summed": (
        "EinsumDense",
        {"equation": "abcd,cde->abe", "output_shape": (None, 4), "bias_axes": "e"},
        (5, 2, 3),
    ),
    "einsum, one per head": (
        "EinsumDense",
        {"equation": "abcd,cde->abce", "output_shape": (None, 3, 4), "bias_axes": "ce"},
        (5, 3, 2),
    ),
    "einsum, turned": (
        "EinsumDense",
        {"equation": "...x,yx->...y", "output_shape": 4, "bias_axes": "y"},
        (5, 6),
    ),
    "conv": (
        "Conv2D",
        {"filters": 4, "kernel_size": (3, 2), "strides": (1, 2), "padding": "same"},
        (7, 6, 3),
    ),
    "grouped": (
        "Conv2D",
        {"filters": 4, "kernel_size": 2, "groups": 2, "dilation_rate": 2},
        (7, 6, 4),
    ),
    "causal": (
        "Conv1D",
        {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        (9, 3),
    ),
    "conv3d": (
        "Conv3D",
        {"filters": 2, "kernel_size": 2, "padding": "same"},
        (4, 3, 4, 2),
    ),
    "depthwise": (
        "DepthwiseConv2D",
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
        (7, 7, 3),
    ),
    "depthwise1d": ("DepthwiseConv1D", {"kernel_size": 3}, (7, 3)),
    "transposed": (
        "Conv2DTranspose",
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
        (4, 5, 3),
    ),
    "transposed, even": (
        "Conv2DTranspose",
        {"filters": 4, "kernel_size": (4, 2), "strides": (2, 3), "padding": "same"},
        (4, 5, 3),
    ),
    "transposed, valid": (
        "Conv2DTranspose",
        {"filters": 4, "kernel_size": (3, 2), "strides": (2, 3)},
        (4, 5, 3),
    ),
    "transposed1d": (
        "Conv1DTranspose",
        {"filters": 4, "kernel_size": 5, "strides": 2, "padding": "same"},
        (6, 3),
    ),
    "transposed3d": (
        "Conv3DTranspose",
        {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "valid"},
        (2, 3, 2, 2),
    ),
    "separable": (
        "SeparableConv2D",
        {
            "filters": 4,
            "kernel_size": 3,
            "depth_multiplier": 2,
            "padding": "same",
            "strides": 2,
        },
        (7, 7, 3),
    ),
    "separable1d": (
        "SeparableConv1D",
        {"filters": 4, "kernel_size": 3, "padding": "valid"},
        (7, 3),
    ),
    "layer norm": ("LayerNormalization", {}, (5, 6)),
}


def with_random_weights(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0.5, 1, w.shape) for w in model.get_weights()])
    return model


def only_call(model):
    graph = trace(model)
    return graph, graph.calls[-1]


def product(view, call, values):
    """Multiply all rows, add the bias, and give what the layer's output looks like."""
    weights = read_weights(call.layer)
    taken = view.taken(call, values)
    chosen = np.arange(view.arrangement.num_rows(taken))
    states = None
    if view.states is not None:
        states = view.arrangement.rows(view.states(call, values), chosen)[0]
    rows = view.rows(call, values, chosen, states)
    matrix = view.arrangement.matrix(view.joined(weights))
    found = (rows @ matrix).swapaxes(0, 1).reshape(len(chosen), -1)
    if view.bias is not None and view.bias[0] in weights:
        name, row = view.bias
        bias = weights[name] if row is None else weights[name][row]
        found = found + bias.reshape(-1)
    return found, chosen


def check_back(view, call):
    weights = dict(read_weights(call.layer))
    kernel = view.joined(weights)
    again = view.arrangement.of_matrix(view.arrangement.matrix(kernel), kernel.shape)
    for name, array in view.parted(again, weights).items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize("case", list(WHOLE))
def test_product_is_what_the_layer_computes(K, case):
    kind, settings, shape = WHOLE[case]
    inputs = K.Input(shape)
    layer = getattr(K.layers, kind)(**settings)
    model = with_random_weights(K.Model(inputs, layer(inputs)))
    graph, call = only_call(model)
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    values = {
        graph.input_tensors[0]: K.ops.convert_to_tensor(x) if hasattr(K, "ops") else x
    }
    views = linear_views(call)
    assert views[-1].ends
    found, chosen = product(views[-1], call, values)
    want = views[-1].arrangement.outputs(np.asarray(model(x)), chosen)
    np.testing.assert_allclose(found, want, atol=2e-4)
    for view in views:
        check_back(view, call)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention(K, kind):
    L = K.layers
    if kind == "GroupQueryAttention":
        if not hasattr(L, kind):
            pytest.skip("Keras 3 alone has it")
        layer = L.GroupQueryAttention(
            head_dim=3, num_query_heads=4, num_key_value_heads=2
        )
    else:
        layer = L.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=5)
    inputs = K.Input((4, 6)), K.Input((5, 6))
    model = with_random_weights(K.Model(inputs, layer(*inputs)))
    graph, call = only_call(model)
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(3, n, 6)).astype("float32") for n in (4, 5)]
    values = dict(zip(graph.input_tensors, x, strict=True))
    query, key, value, out = linear_views(call)
    found, chosen = product(out, call, values)
    np.testing.assert_allclose(
        found, out.arrangement.outputs(np.asarray(model(x)), chosen), atol=2e-4
    )
    assert out.ends
    assert not query.ends
    for view, taken in ((query, x[0]), (key, x[1]), (value, x[1])):
        np.testing.assert_array_equal(view.taken(call, values), taken)
        check_back(view, call)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN", "GRU"])
def test_recurrent(K, kind, backwards):
    """The products, put through the cell by hand, make the layer's own states."""
    layer = getattr(K.layers, kind)(4, go_backwards=backwards)
    inputs = K.Input((5, 3))
    model = with_random_weights(K.Model(inputs, layer(inputs)))
    graph, call = only_call(model)
    x = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
    values = {graph.input_tensors[0]: x}
    made = [
        product(view, call, values)[0].reshape(2, 5, -1) for view in linear_views(call)
    ]
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    steps = range(4, -1, -1) if backwards else range(5)
    h, c = np.zeros((2, 4)), np.zeros((2, 4))
    for t in steps:
        z = [one[:, t] for one in made]
        if kind == "SimpleRNN":
            h = np.tanh(z[0])
        elif kind == "LSTM":
            i, f, g, o = np.split(z[0], 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (uz, ur, uh), (vz, vr, vh) = (np.split(one, 3, axis=1) for one in z)
            update, reset = sigmoid(uz + vz), sigmoid(ur + vr)
            h = update * h + (1 - update) * np.tanh(uh + reset * vh)
    np.testing.assert_allclose(np.asarray(model(x)), h, atol=1e-4)
    assert len(layer(x).shape) == 2, "the layer is as it was"
    for view in linear_views(call):
        check_back(view, call)
