"""A model as one flat list of calls, run whole and in pieces."""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune import compat
from tf_spline_prune.compat import Calibration, Passes, call_layer, run_calls, trace

pytestmark = pytest.mark.both_flavours


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def diamond(K):
    L = K.layers
    inputs = [K.Input((4,)), K.Input((4,))]
    same = L.Dense(4, name="same")
    left, right = same(inputs[0]), same(inputs[1])
    x = L.Concatenate(name="join")([L.ReLU()(left), right])
    outputs = [L.Dense(2, name="head")(x), L.Add()([left, right])]
    return zoo.settle(K.Model(inputs, outputs))


def taken(graph):
    return {call.key: list(call.inputs) for call in graph.calls}


def test_every_tensor_is_made_once(K):
    graph = trace(diamond(K))
    assert graph.input_tensors == ("input:0", "input:1")
    inputs = {
        "same": ["input:0"],
        "same:1": ["input:1"],
        "ReLU": ["same:0"],
        "Concatenate": ["ReLU:0", "same:1:0"],
        "head": ["Concatenate:0"],
        "Add": ["same:0", "same:1:0"],
    }
    assert taken(graph) == inputs
    assert {c.key: c.outputs for c in graph.calls} == {n: (f"{n}:0",) for n in inputs}
    assert graph.output_tensors == ("head:0", "Add:0")
    assert {t: call.key for t, call in graph.producer_of.items()} == {
        f"{name}:0": name for name in inputs
    }
    assert {t: [c.key for c in graph.consumers_of[t]] for t in graph.consumers_of} == {
        tensor: [name for name in inputs if tensor in inputs[name]]
        for tensor in (*graph.input_tensors, *graph.producer_of)
    }
    assert graph.ends() == {"head", graph.producer_of["Add:0"].name}
    assert [len(uses) for uses in graph.uses.values()] == [2, 1, 1, 1, 1]


def test_a_chain_ends_where_tensors_meet_or_leave(K):
    graph = trace(diamond(K))
    behind = {call.key: list(graph.chain(call.outputs[0])) for call in graph.calls}
    assert {key: [call.key for call in calls] for key, calls in behind.items()} == {
        "same": [],
        "same:1": [],
        "ReLU": ["Concatenate", "head"],
        "Concatenate": ["head"],
        "head": [],
        "Add": [],
    }


def test_masks_are_no_inputs():
    """Keras 3 hands the mask of an Embedding on as a tensor."""
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True, name="words")(inputs)
    graph = trace(zoo.settle(keras.Model(inputs, keras.layers.LSTM(3)(x))))
    lstm = graph.calls[-1]
    assert lstm.inputs == ("words:0",)
    assert [graph.producer_of[mask].kind for mask in lstm.masks] == ["op:notequal"]
    assert set(lstm.needs()) == {*lstm.inputs, *lstm.masks}
    (args, kwargs) = lstm.fill({"words:0": 1})
    assert args == (1,)
    assert kwargs["mask"] is None


def test_what_is_needed_later(K):
    graph = trace(diamond(K))
    order = ["same", "same:1", "ReLU", "Concatenate", "head", "Add"]
    assert list(graph.branch_by_branch) == ["same", "ReLU", "same:1", *order[3:]]
    both = {"same:0", "same:1:0"}
    assert [graph.live(order, place) for place in range(7)] == [
        {"input:0", "input:1"},
        {"same:0", "input:1"},
        both,
        both | {"ReLU:0"},
        both | {"Concatenate:0"},
        both | {"head:0"},
        {"head:0", "Add:0"},
    ]


BUILDS = [zoo.mlp, zoo.resnet, zoo.nested, zoo.subclassed]


@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_pieces_make_the_whole(K, build):
    model = build(K)
    shape = (12,) if build is zoo.mlp else zoo.SHAPE
    x = points(5, *shape)
    graph = trace(model)
    order = graph.branch_by_branch
    values = {graph.input_tensors[0]: x}
    for place in range(0, len(order), 3):
        needed = graph.live(order, place)
        values = {name: value for name, value in values.items() if name in needed}
        calls = [graph.call_of[key] for key in order[place : place + 3]]
        run_calls(calls, values, call_layer)
    found = np.asarray(values[graph.output_tensors[0]])
    np.testing.assert_allclose(found, np.asarray(model(x)), atol=1e-5)
    (whole,) = graph.run([x], call_layer)
    np.testing.assert_allclose(np.asarray(whole), found, atol=1e-6)


@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_copies_have_the_same_tensors(K, build):
    """Whatever names Keras gives to their layers without weights."""
    model = build(K)
    copy = compat.with_weights(model, {})
    again = compat.with_weights(copy, {})
    graphs = [trace(one) for one in (model, copy, again)]
    assert taken(graphs[0]) == taken(graphs[1]) == taken(graphs[2])
    ends = {graph.output_tensors for graph in graphs}
    assert len(ends) == 1


def test_a_nested_model_used_twice(K):
    L = K.layers
    given = K.Input((4,))
    inner = K.Model(given, L.ReLU()(L.Dense(4, name="d")(given)), name="inner")
    inputs = K.Input((4,))
    model = zoo.settle(K.Model(inputs, inner(inner(inputs))))
    graph = trace(model)
    assert taken(graph) == {
        "inner/d": ["input:0"],
        "ReLU": ["inner/d:0"],
        "inner/d:1": ["ReLU:0"],
        "ReLU (2)": ["inner/d:1:0"],
    }
    assert [call.path for call in graph.uses["inner/d"]] == ["inner/d"] * 2


@pytest.mark.parametrize("max_bytes", [1, 500, 2**20])
def test_passes(K, max_bytes):
    """Forwards and back, with whatever memory: the tensors are those of the model."""
    model = zoo.mlp(K)
    x = points(10, 12)
    graphs = [trace(model), trace(compat.with_weights(model, {}))]
    passes = Passes(graphs, Calibration([x]), 4, max_bytes)
    exact = {"input:0": x.astype("float64")}
    y = exact["input:0"]
    for name in ("first", "second"):
        kernel, bias = model.get_layer(name).get_weights()
        y = exact[f"{name}:0"] = np.maximum(y @ kernel + bias, 0)
    reads = {"first": "input:0", "second": "first:0", "head": "second:0"}
    for first, last in ((0, 0), (1, 2), (2, 2), (0, 1), (1, 1)):
        seen = {}

        def visit(call, values, seen=seen):
            pair = [compat.numpy_of(one, call.inputs[0]) for one in values]
            np.testing.assert_array_equal(*pair)
            seen.setdefault(call.key, []).append(pair[0])

        passes.run(graphs[1].calls[first : last + 1], visit)
        assert list(seen) == ["first", "second", "head"][first : last + 1]
        for name, found in seen.items():
            assert [len(array) for array in found] == [4, 4, 2]
            array = np.concatenate(found)
            np.testing.assert_allclose(array, exact[reads[name]], atol=1e-5)


def test_a_layer_of_the_name_of_the_inputs(K):
    inputs = K.Input((4,), name="x")
    first = K.layers.Dense(4, activation="relu", name="input")(inputs)
    x = K.layers.Add(name="add")([first, inputs])
    model = zoo.settle(K.Model(inputs, K.layers.Dense(2, name="head")(x)))
    graph = trace(model)
    assert taken(graph) == {
        "input (2)": ["input:0"],
        "Add": ["input (2):0", "input:0"],
        "head": ["Add:0"],
    }
    assert sorted(graph.branch_by_branch) == sorted(graph.call_of)
    x = points(6, 4)
    got = compat.run_eagerly(graph, [x], call_layer)
    np.testing.assert_allclose(got[0], model(x), rtol=1e-5, atol=1e-6)


def test_calls_have_names_of_their_own():
    twice, other = (keras.layers.Dense(4, name=name) for name in ("a", "a:1"))
    inputs = keras.Input((4,))
    outputs = other(twice(twice(inputs)))
    assert [call.name for call in trace(keras.Model(inputs, outputs)).calls] == [
        "a",
        "a:1",
        "a:1:1",
    ]


def test_one_tensor_as_data_and_as_a_mask():
    data, mask = keras.Input((4, 4)), keras.Input((4, 4))
    attention = keras.layers.MultiHeadAttention(1, 2, name="mha")
    inner = keras.Model([data, mask], attention(data, data, attention_mask=mask))
    inputs = keras.Input((4, 3))
    x = keras.layers.Dense(4, activation="relu", name="first")(inputs)
    for outputs in (inner([x, x]), attention(x, x, attention_mask=x)):
        graph = trace(keras.Model(inputs, outputs))
        call = graph.calls[-1]
        assert call.inputs == ("first:0", "first:0")
        assert call.masks == ("first:0",)
        assert len(call.input_shapes) == 2
        found = tsp.ChannelGraph(graph.model)
        assert "mask" in found.explain("first")


@pytest.mark.parametrize("inside", [False, True])
def test_without_calls(K, inside):
    """What is taken out of a graph, or of a model in it, hands its input on."""
    L = K.layers
    x = inputs = K.Input((4,))
    x = L.Activation("tanh", name="first")(x)
    x = L.Activation("sigmoid", name="second")(x)
    model = K.Model(inputs, L.Add(name="sum")([x, x]), name="inner")
    if inside:
        outer = K.Input((4,))
        model = K.Model(outer, model(outer))
    prefix = "inner/" if inside else ""
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    for gone, expected in (
        (["first"], 2 / (1 + np.exp(-x))),
        (["second"], 2 * np.tanh(x)),
        (["first", "second"], 2 * x),
    ):
        graph = compat.without_calls(trace(model), {prefix + name: 0 for name in gone})
        small = compat.rebuild(graph)
        np.testing.assert_allclose(np.asarray(small(x)), expected, rtol=1e-5)
        left = {"first", "second", "sum"} - set(gone)
        assert {c.name for c in trace(small).calls} == {prefix + n for n in left}
