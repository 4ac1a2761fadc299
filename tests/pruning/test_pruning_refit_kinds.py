"""Every kind of layer that is refitted, against brute force and cells by hand.

A layer is linear in its kernel, so the layer itself, given one kernel of a single 1
after the other, is the matrix of the least-squares problem.
"""

import functools

import keras
import numpy as np
import pytest
import zoo
from regression_reference import inputs_of, lstsq, mixed_plan, tensor, weights_of

import tf_spline_prune as tsp

pytestmark = pytest.mark.both_flavours

# What consumes eight units, its settings, and the shape of the model's input.
KINDS = {
    "EinsumDense": (
        {"equation": "abc,cde->abde", "output_shape": (5, 2, 3), "bias_axes": "de"},
        (5, 4),
    ),
    "Conv1DTranspose": (
        {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        (6, 4),
    ),
    "Conv2DTranspose": ({"filters": 3, "kernel_size": (3, 2), "strides": 2}, (4, 3, 3)),
    "SeparableConv2D": ({"filters": 3, "kernel_size": 2, "padding": "same"}, (4, 5, 3)),
    "DepthwiseConv2D": ({"kernel_size": 2, "depth_multiplier": 2}, (4, 5, 3)),
    "LayerNormalization": ({}, (5, 4)),
}
# These lose nothing themselves: they see what another layer made of a loss.
BEHIND = ("DepthwiseConv2D", "LayerNormalization")
KERNELS = {"SeparableConv2D": "pointwise_kernel", "LayerNormalization": "gamma"}


def model_of(K, reader, shape, behind=False):
    L = K.layers
    x = inputs = K.Input(shape)
    x = L.Dense(8, activation="relu", name="one")(x)
    if behind:
        x = L.Dense(5, activation="tanh", name="between")(x)
    x = reader(x)
    x = L.Dense(2, name="head")(L.Flatten()(L.Activation("tanh")(x)))
    return zoo.settle(K.Model(inputs, x))


def design(layer, x, kernel):
    """Return the layer's output for each kernel of one 1, flat: a column each."""
    values = layer.get_weights()
    names = [one.name.rpartition("/")[2].partition(":")[0] for one in layer.weights]
    given = [
        np.zeros_like(value) if name in (kernel, "bias", "beta") else value
        for name, value in zip(names, values, strict=True)
    ]
    # Of all that is called a kernel the last one: the pointwise one, the depthwise one.
    at = max(i for i, name in enumerate(names) if name.endswith(kernel))
    columns = []
    for place in range(values[at].size):
        one = np.zeros(values[at].size)
        one[place] = 1
        given[at] = one.reshape(values[at].shape)
        layer.set_weights(given)
        columns.append(np.asarray(layer(x.astype("float32"))).ravel())
    layer.set_weights(values)
    return np.stack(columns, axis=1).astype("float64")


@pytest.mark.parametrize("kind", list(KINDS))
def test_equals_brute_force(K, kind):
    settings, shape = KINDS[kind]
    reader = getattr(K.layers, kind)(name="reader", **settings)
    model = model_of(K, reader, shape, behind=kind in BEHIND)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = np.random.default_rng(0).normal(size=(60, *shape)).astype("float32")
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)

    want = tensor(K, model, model.get_layer("reader").output, x)
    found = tensor(K, result, result.get_layer("reader").output, x)
    seen = inputs_of(K, result, "reader", x)
    matrix = design(result.get_layer("reader"), seen, KERNELS.get(kind, "kernel"))
    outputs = want.shape[-2:] if kind == "EinsumDense" else want.shape[-1:]
    bias = np.tile(
        np.eye(int(np.prod(outputs))), (want.size // int(np.prod(outputs)), 1)
    )
    solution = np.linalg.lstsq(np.hstack([matrix, bias]), want.ravel(), rcond=None)[0]
    best = (np.hstack([matrix, bias]) @ solution).reshape(want.shape)
    scale = np.abs(want - want.mean()).max()
    np.testing.assert_allclose(found / scale, best / scale, atol=2e-3)
    # And it is worth it.
    cut = tensor(K, small, small.get_layer("reader").output, x)
    assert np.square(found - want).sum() < 0.9 * np.square(cut - want).sum()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gates_of(kind, w, x):
    """Run a recurrent layer by hand; gives gates before activation, and states."""
    units = w["recurrent_kernel"].shape[0]
    h = c = np.zeros((len(x), units))
    gates, before = [], []
    for step in x.swapaxes(0, 1):
        before.append(h)
        z = step @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]
        gates.append(z)
        if kind == "SimpleRNN":
            h = np.tanh(z)
            continue
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return np.stack(gates, 1), np.stack(before, 1)


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM"])
def test_recurrent_kernels_are_solved_on_inputs_and_states(K, kind):
    reader = getattr(K.layers, kind)(6, name="reader")
    L = K.layers
    inputs = K.Input((7, 4))
    x = L.Dense(8, activation="relu", name="one")(inputs)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(reader(x))))
    plan = mixed_plan(model, ["one", "reader"])
    assert plan.removed["reader"]
    small = plan.apply(model)
    data = np.random.default_rng(0).normal(size=(80, 7, 4)).astype("float32")
    result = tsp.least_squares(model, small, plan, data, ridge=0)

    w, exact = weights_of(model), data.astype("float64")
    units = np.setdiff1d(np.arange(8), plan.removed["one"])
    states = np.setdiff1d(np.arange(6), plan.removed["reader"])
    seen = np.maximum(exact @ w["one"]["kernel"] + w["one"]["bias"], 0)
    gates, before = gates_of(kind, w["reader"], seen)
    columns = np.concatenate([6 * gate + states for gate in range(gates.shape[2] // 6)])
    rows = np.concatenate([seen[..., units], before[..., states]], axis=2)
    rows = rows.reshape(-1, rows.shape[2])
    aim = (gates - w["reader"]["bias"])[..., columns].reshape(len(rows), -1)
    kernel, shift = lstsq(rows, aim)
    after = weights_of(result)["reader"]
    joined = np.concatenate([after["kernel"], after["recurrent_kernel"]])
    np.testing.assert_allclose(joined, kernel, atol=1e-3)
    np.testing.assert_allclose(
        after["bias"], w["reader"]["bias"][columns] + shift, atol=1e-3
    )
    full, cut, mended = (np.asarray(m(data)) for m in (model, small, result))
    assert np.square(mended - full).sum() < 0.6 * np.square(cut - full).sum()


def test_gru_makes_up_for_lost_inputs(K):
    L = K.layers
    inputs = K.Input((7, 4))
    x = L.Dense(8, activation="relu", name="one")(inputs)
    model = zoo.settle(K.Model(inputs, L.Dense(2)(L.GRU(6, name="reader")(x))))
    plan = mixed_plan(model, ["one", "reader"], sparsity=0.35)
    small = plan.apply(model)
    data = np.random.default_rng(0).normal(size=(80, 7, 4)).astype("float32")
    result = tsp.least_squares(model, small, plan, data)
    full, cut, mended = (np.asarray(m(data)) for m in (model, small, result))
    assert np.square(mended - full).sum() < 0.8 * np.square(cut - full).sum()


def heads_of(w, x):
    """Compute what attention's output projection is given, by hand."""
    q, k, v = (
        np.einsum("ntd,dhk->nthk", x, w[f"{name}/kernel"]) + w[f"{name}/bias"]
        for name in ("query", "key", "value")
    )
    scores = np.einsum("nthk,nshk->nhts", q, k) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.einsum("nhts,nshv->nthv", scores, v)


def test_attention_projections(K):
    """Inputs, heads and sizes are lost; each projection is solved on what it sees."""
    L = K.layers
    inputs = K.Input((6, 4))
    x = L.Dense(8, activation="relu", name="one")(inputs)
    attention = L.MultiHeadAttention(
        4, 3, value_dim=5, output_shape=4, name="attention"
    )
    x = attention(x, x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(L.Flatten()(x))))
    plan = mixed_plan(model, ["one", "attention/heads"], sparsity=0.25)
    assert plan.removed["one"] and plan.removed["attention/heads"]
    small = plan.apply(model)
    data = np.random.default_rng(0).normal(size=(60, 6, 4)).astype("float32")
    result = tsp.least_squares(model, small, plan, data, ridge=0)

    from tf_spline_prune.compat import read_weights

    old, new = (dict(read_weights(m.get_layer("attention"))) for m in (model, result))
    one = weights_of(model)["one"]
    seen = np.maximum(data.astype("float64") @ one["kernel"] + one["bias"], 0)
    units = np.setdiff1d(np.arange(8), plan.removed["one"])
    heads = np.setdiff1d(np.arange(4), plan.removed["attention/heads"])
    for name in ("query", "key", "value"):
        aim = np.einsum("ntd,dhk->nthk", seen, old[f"{name}/kernel"])[:, :, heads]
        rows = seen[..., units].reshape(-1, len(units))
        kernel, shift = lstsq(rows, aim.reshape(len(rows), -1))
        found = new[f"{name}/kernel"]
        np.testing.assert_allclose(found, kernel.reshape(found.shape), atol=2e-3)
        found = new[f"{name}/bias"] - old[f"{name}/bias"][heads]
        np.testing.assert_allclose(found, shift.reshape(found.shape), atol=2e-3)
    before, after = heads_of(old, seen), heads_of(new, seen[..., units])
    kernel = old["attention_output/kernel"]
    aim = before.reshape(-1, 20) @ kernel.reshape(20, 4)
    best, shift = lstsq(after.reshape(len(aim), -1), aim)
    found = new["attention_output/kernel"]
    np.testing.assert_allclose(found, best.reshape(found.shape), atol=5e-3)
    full, cut, mended = (np.asarray(m(data)) for m in (model, small, result))
    assert np.square(mended - full).sum() < 0.5 * np.square(cut - full).sum()


def test_error_is_that_behind_the_relu():
    """Majorisation ends where the convex error behind the ReLU is least."""
    from scipy.optimize import minimize

    from tf_spline_prune.pruning.recovery._regression import Sides, regress

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = (
        np.maximum(x @ rng.normal(size=(4, 1)), 0.3)
        - 0.8
        + 0.3 * rng.normal(size=(300, 1))
    )
    knots = rng.normal(0, 0.2, size=(300, 1))
    for sign in (1.0, -1.0):
        active = sign * (y - knots) > 0

        def loss(w, sign=sign, active=active):
            found = x @ w[:4, None] + w[4]
            beyond = np.maximum(sign * (found - knots), 0)
            return np.where(active, found - y, beyond)

        best = minimize(lambda w: np.square(loss(w)).sum(), np.zeros(5), method="BFGS")
        weights, shift = regress(
            x[None].copy(),
            y,
            np.zeros((1, 4, 1)),
            0.0,
            True,
            Sides(knots, np.array([sign])),
            300,
        )
        found = np.append(weights.ravel(), shift)
        assert np.square(loss(found)).sum() <= best.fun * (1 + 1e-4)
        plain, shift = regress(x[None].copy(), y, np.zeros((1, 4, 1)), 0.0)
        assert np.square(loss(np.append(plain.ravel(), shift))).sum() > 1.05 * best.fun


def behind_a_sum(K, gamma=1.0):
    L = K.layers
    inputs = K.Input((6,))
    h = L.Dense(12, activation="relu", bias_initializer="ones", name="one")(inputs)
    one, other = (L.Dense(4, use_bias=False, name=name)(h) for name in "ab")
    norm = L.BatchNormalization(gamma_initializer=K.initializers.Constant(gamma))
    return K.Model(inputs, norm(L.Add()([one, other]))), (6,)


def two_ranks(K):
    L = K.layers
    inputs = K.Input((5, 6))
    h = L.Dense(12, activation="relu", name="one")(inputs)
    shared = L.Dense(4, name="shared")
    outputs = [shared(h), shared(L.GlobalAveragePooling1D()(h))]
    return K.Model(inputs, outputs[0] + L.RepeatVector(5)(outputs[1])), (5, 6)


def by_name(K):
    L = K.layers
    inputs = K.Input((5, 6))
    h = L.Dense(12, activation="relu", name="one")(inputs)
    first = "sequences" if hasattr(K, "ops") else "inputs"
    return K.Model(inputs, L.LSTM(4)(**{first: h})), (5, 6)


def with_states(K):
    L = K.layers
    inputs = K.Input((5, 6))
    h = L.Dense(12, activation="relu", name="one")(inputs)
    start = L.Dense(4, name="start")(L.Flatten()(inputs))
    return K.Model(inputs, L.GRU(4)(h, initial_state=start)), (5, 6)


def other_directions(K):
    L = K.layers
    inputs = K.Input((5, 6))
    h = L.Dense(12, activation="relu", name="one")(inputs)
    return K.Model(inputs, L.Bidirectional(L.RNN(L.GRUCell(4)))(h)), (5, 6)


UNUSUAL = {
    "sum": behind_a_sum,
    "sum, small scale": functools.partial(behind_a_sum, gamma=0.05),
    "two ranks": two_ranks,
    "by name": by_name,
    "states": with_states,
}


@pytest.mark.filterwarnings("ignore:The layers of 1 weights are no matrix products")
@pytest.mark.parametrize("case", list(UNUSUAL))
def test_unusual_places_are_never_made_worse(K, case):
    K.utils.set_random_seed(0)
    model, shape = UNUSUAL[case](K)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = np.random.default_rng(0).normal(size=(200, *shape)).astype("float32")
    result = tsp.least_squares(model, small, plan, x)
    full, cut, mended = (np.asarray(m(x)) for m in (model, small, result))
    loss = np.square(mended - full).sum()
    assert loss <= 1.001 * np.square(cut - full).sum()
    solved = tsp.prune_once(model, 0.3, data=x, layers=".*", scope="layer")
    assert np.isfinite(np.asarray(solved(x))).all()


@pytest.mark.filterwarnings("ignore:The layers of . weights are no matrix products")
def test_cells_in_two_directions_are_masked_and_not_solved():
    model, shape = other_directions(keras)
    x = np.random.default_rng(0).normal(size=(200, *shape)).astype("float32")
    solved = tsp.prune_once(model, 0.3, data=x, scope="layer")
    assert np.isfinite(np.asarray(solved(x))).all()


def test_uses_of_different_sizes_keep_their_positions(K):
    L = K.layers
    inputs = [K.Input((96, 4)), K.Input((8, 4))]
    makers = [L.Conv1D(8, 1, activation="relu", name=f"one_{i}") for i in range(2)]
    shared = L.Conv1D(3, 3, padding="same", name="shared")
    outputs = [shared(make(x)) for make, x in zip(makers, inputs, strict=True)]
    model = zoo.settle(K.Model(inputs, outputs))
    plan = mixed_plan(model, ["one_0", "one_1"])
    small = plan.apply(model)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(300, n, 4)).astype("float32") for n in (96, 8)]
    result = tsp.least_squares(model, small, plan, data)
    for full, cut, mended in zip(
        *(m(data) for m in (model, small, result)), strict=True
    ):
        full, cut, mended = map(np.asarray, (full, cut, mended))
        assert np.square(mended - full).sum() < 0.8 * np.square(cut - full).sum()


@pytest.mark.parametrize("ridge", [1e-6, 1e-3])
def test_inputs_that_hardly_differ_are_no_failure(ridge):
    from tf_spline_prune.pruning.recovery._regression import regress

    rng = np.random.default_rng(0)
    x = 10 + rng.normal(size=(2000, 1)) + 1e-5 * rng.normal(size=(2000, 40))
    y = x @ rng.normal(size=(40, 2))
    first = np.zeros((1, 40, 2), "float32")
    weights, shift = regress(x[None].astype("float32"), y, first, ridge)
    found = x @ weights[0] + shift
    assert np.square(found - y).sum() < 1e-4 * np.square(y - y.mean(0)).sum()


def relu(x):
    """A user's own function, of a name that Keras knows."""
    return keras.ops.tanh(x)


BENT = {
    "layer": (lambda x: keras.layers.ReLU()(x), True),
    "name": (lambda x: keras.layers.Activation("relu")(x), True),
    "operation": (keras.ops.relu, True),
    "capped": (lambda x: keras.layers.ReLU(6.0)(x), False),
    "sloped": (lambda x: keras.activations.relu(x, negative_slope=0.2), False),
    "own": (lambda x: keras.layers.Activation(relu)(x), False),
}


@pytest.mark.parametrize("case", list(BENT))
def test_only_a_plain_relu_holds_back(case):
    from tf_spline_prune.compat import trace
    from tf_spline_prune.pruning.recovery._linear_views import linear_views
    from tf_spline_prune.pruning.recovery._output_tail import output_tail

    bend, plain = BENT[case]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, bend(keras.layers.Dense(3)(inputs)))
    graph = trace(model)
    call = graph.calls[0]
    assert output_tail(graph, call, linear_views(call)[0], 3).meets_relu is plain
