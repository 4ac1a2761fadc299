"""A model as a flat list of steps, run in pieces."""

import numpy as np
import pytest
import zoo

from tf_spline_prune import compat
from tf_spline_prune.compat import Calibration, Passes, Program, trace

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


def test_steps_and_slots(K):
    program = Program(trace(diamond(K)))
    assert program.inputs == ["input:0", "input:1"]
    reads = {
        "same": ["input:0"],
        "same:1": ["input:1"],
        "ReLU": ["same:0"],
        "Concatenate": ["ReLU:0", "same:1:0"],
        "head": ["Concatenate:0"],
        "Add": ["same:0", "same:1:0"],
    }
    assert program.wiring() == reads
    assert {name: step.outputs for name, step in program.steps.items()} == {
        name: (f"{name}:0",) for name in reads
    }
    assert program.outputs == ["head:0", "Add:0"]


def test_what_is_read_later(K):
    program = Program(trace(diamond(K)))
    order = ["same", "same:1", "ReLU", "Concatenate", "head", "Add"]
    both = {"same:0", "same:1:0"}
    assert [program.live(order, place) for place in range(7)] == [
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
    program = Program(trace(model))
    order = list(program.steps)
    values = {program.inputs[0]: x}
    for place in range(0, len(order), 3):
        needed = program.live(order, place)
        values = {slot: value for slot, value in values.items() if slot in needed}
        names = order[place : place + 3]
        program.run(names, values)
    found = np.asarray(values[program.outputs[0]])
    np.testing.assert_allclose(found, np.asarray(model(x)), atol=1e-5)


@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_copies_have_the_same_steps(K, build):
    """Whatever names Keras gives to their layers without weights."""
    model = build(K)
    copy = compat.with_weights(model, {})
    again = compat.with_weights(copy, {})
    programs = [Program(trace(one)) for one in (model, copy, again)]
    assert programs[0].wiring() == programs[1].wiring() == programs[2].wiring()
    assert programs[0].outputs == programs[1].outputs == programs[2].outputs


def test_a_nested_model_used_twice(K):
    L = K.layers
    given = K.Input((4,))
    inner = K.Model(given, L.ReLU()(L.Dense(4, name="d")(given)), name="inner")
    inputs = K.Input((4,))
    model = zoo.settle(K.Model(inputs, inner(inner(inputs))))
    program = Program(trace(model))
    assert program.wiring() == {
        "inner/d": ["input:0"],
        "ReLU": ["inner/d:0"],
        "inner/d:1": ["ReLU:0"],
        "ReLU (2)": ["inner/d:1:0"],
    }


@pytest.mark.parametrize("max_bytes", [1, 500, 2**20])
def test_passes(K, max_bytes):
    """Forwards and back, with whatever memory: the tensors are those of the model."""
    model = zoo.mlp(K)
    x = points(10, 12)
    program = Program(trace(model))
    twin = Program(trace(compat.with_weights(model, {})))
    passes = Passes([program, twin], Calibration([x]), 4, max_bytes)
    exact = {"input:0": x.astype("float64")}
    y = exact["input:0"]
    for name in ("first", "second"):
        kernel, bias = model.get_layer(name).get_weights()
        y = exact[f"{name}:0"] = np.maximum(y @ kernel + bias, 0)
    reads = {"first": "input:0", "second": "first:0", "head": "second:0"}
    for first, last in ((0, 0), (1, 2), (2, 2), (0, 1), (1, 1)):
        seen = {}

        def visit(step, values, seen=seen):
            pair = [compat.numpy_of(one, step.inputs[0]) for one in values]
            np.testing.assert_array_equal(*pair)
            seen.setdefault(step.name, []).append(pair[0])

        passes.run(first, last, visit)
        assert list(seen) == ["first", "second", "head"][first : last + 1]
        for name, found in seen.items():
            assert [len(array) for array in found] == [4, 4, 2]
            array = np.concatenate(found)
            np.testing.assert_allclose(array, exact[reads[name]], atol=1e-5)
