"""What users call data, made into one array an input."""

import types

import numpy as np
import pytest

from tf_spline_prune.compat import Calibration
from tf_spline_prune.compat.graph._blueprint import Blueprint, Input
from tf_spline_prune.compat.graph._graph import flat_graph
from tf_spline_prune.errors import CalibrationError

ONE = [Input("x", (None, 3), "float32")]
TWO = [Input("b", (None, 3), "float32"), Input("a", (None, None, 2), "int32")]
X = np.arange(30, dtype="float32").reshape(10, 3)
A = np.arange(80).reshape(10, 4, 2)
Y = np.arange(10)


def of(data, inputs=ONE):
    ids = tuple(range(len(inputs)))
    blueprint = Blueprint(None, tuple(inputs), (), ids, ids, (None, None), False)
    return Calibration.of(data, flat_graph(blueprint))


def test_arrays():
    found = of(X)
    assert found.labels is None
    assert len(found) == 10
    np.testing.assert_array_equal(found.inputs[0], X)
    assert of(found) is found
    assert of(X.astype("float64")).inputs[0].dtype == np.float32
    assert of(X.astype("int8")).inputs[0].dtype == np.float32


def test_tuples_hold_inputs_and_labels():
    assert of((X,)).labels is None
    assert of((X, None)).labels is None
    np.testing.assert_array_equal(of((X, Y)).labels, Y)
    np.testing.assert_array_equal(of((X, Y, Y)).labels, Y)
    found = of((X, {"one": Y, "two": [Y, 2 * Y]})).labels
    np.testing.assert_array_equal(found["two"][1], 2 * Y)
    for wrong in ((), (X, Y, Y, Y)):
        with pytest.raises(CalibrationError, match=f"{len(wrong)} items"):
            of(wrong)


def test_several_inputs():
    for given in ([X, A], {"a": A, "b": X}, {"b": X, "more": Y, "a": A}, ([X, A], Y)):
        found = of(given, TWO)
        np.testing.assert_array_equal(found.inputs[0], X)
        np.testing.assert_array_equal(found.inputs[1], A)
        assert [one.dtype.name for one in found.inputs] == ["float32", "int32"]
    with pytest.raises(CalibrationError, match=r"lack the model's inputs \['a'\]"):
        of({"b": X}, TWO)
    with pytest.raises(CalibrationError, match="that is 2. Received: 1"):
        of([X], TWO)
    with pytest.raises(CalibrationError, match="the same number for every input"):
        of([X, A[:9]], TWO)


def parts(*arrays):
    for start in range(0, 10, 4):
        found = tuple(one[start : start + 4] for one in arrays)
        yield found if len(found) > 1 else found[0]


class Indexed:
    """A data set read by index, whose iteration does not end."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[5 * (index % 2) :][:5], Y[5 * (index % 2) :][:5]


def test_batches():
    np.testing.assert_array_equal(of(parts(X)).inputs[0], X)
    assert of(parts(X)).labels is None
    for data in (parts(X, Y), parts(X, Y, Y), Indexed()):
        found = of(data)
        np.testing.assert_array_equal(found.inputs[0], X)
        np.testing.assert_array_equal(found.labels, Y)
    named = ({"a": a, "b": x} for x, a in parts(X, A))
    np.testing.assert_array_equal(of(named, TWO).inputs[1], A)
    listed = (([x, a], {"out": y}) for x, a, y in parts(X, A, Y))
    found = of(listed, TWO)
    np.testing.assert_array_equal(found.inputs[1], A)
    np.testing.assert_array_equal(found.labels["out"], Y)


def test_batches_that_do_not_fit():
    with pytest.raises(CalibrationError, match="no batch"):
        of(iter(()))
    with pytest.raises(CalibrationError, match="do not go together"):
        of(iter([X, X[:, :2]]))
    with pytest.raises(CalibrationError, match="do not go together"):
        of(iter([X, {"x": X}]))
    endless = types.SimpleNamespace(cardinality=lambda: -1, __iter__=None)
    with pytest.raises(CalibrationError, match="never ends"):
        of(endless)


@pytest.mark.parametrize(
    ("labels", "count"), [(Y[:9], r"\[9\]"), ([Y, Y[:2]], r"\[2, 10\]")]
)
def test_one_label_an_input(labels, count):
    with pytest.raises(CalibrationError, match=f"that is 10. Received: {count} labels"):
        of((X, labels))


@pytest.mark.parametrize("wrong", [None, 3, "text", b"text", object()])
def test_no_data(wrong):
    with pytest.raises(CalibrationError, match=f"type {type(wrong).__name__}"):
        of(wrong)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (X[:0], r"at least one.*\(0, 3\)"),
        (X[0], r"Expected: shape \('n', 3\).* batch axis is missing.*: \(3,\)"),
        (X[:, :2], r"Received: \(10, 2\)"),
        (np.where(X == 4, np.nan, X), "1 of 30 values"),
        (np.where(X > 27, np.inf, X), "2 of 30 values"),
        (X.astype("complex64"), "complex64"),
        (X.astype("str"), "real numbers"),
        (np.float32(3), r"Received: \(\)"),
    ],
)
def test_arrays_that_do_not_fit(array, match):
    with pytest.raises(CalibrationError, match=match):
        of(array)


def test_text_for_inputs_of_text():
    words = np.array([["a"], ["b"]], object)
    found = of(words, [Input("words", (None, 1), "string")])
    assert found.inputs[0].tolist() == [["a"], ["b"]]


def test_read_in_batches():
    data = of((X, {"one": Y, "two": 2 * Y}))
    found = list(data.batches(4))
    assert [len(x) for (x,), _ in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x for (x,), _ in found]), X)
    np.testing.assert_array_equal(found[2][1]["two"], [16, 18])
    assert [labels for _, labels in of(X).batches(100)] == [None]


def test_which_are_drawn_hangs_on_the_seed():
    data = of((X, Y))
    draws = [data.drawn(4, seed) for seed in (0, 1, 1)]
    for (x,), labels in ((draw.inputs, draw.labels) for draw in draws):
        np.testing.assert_array_equal(x, X[labels])
        assert len(set(labels)) == len(labels) == 4
    first, second, again = (draw.labels.tolist() for draw in draws)
    assert first != second == again
    assert data.drawn(4, 1) is draws[1]
    everything = data.drawn(1000, 0).labels
    assert sorted(everything) == sorted(data.labels)
    assert (np.diff(everything) < 0).any()
