"""`_checks`: what fits, what does not, and what is said then."""

import fractions
import inspect
import subprocess
import sys

import numpy as np
import pytest

from tf_spline_prune import _checks as c
from tf_spline_prune.errors import ArgumentError

HUGE = [2**70, 10**30, 10**400, 10**5000]


class Rude:
    """Raises whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("no")

    __eq__ = __iter__ = __len__ = __bool__ = __float__ = __index__ = __repr__
    __hash__ = None


def refused(wanted, value, error=None):
    with pytest.raises(error or ValueError) as caught:
        c.check("thing", value, wanted)
    assert "`thing` must be" in str(caught.value)
    assert "Received: " in str(caught.value)
    assert len(str(caught.value)) < 600
    assert error is not None or type(caught.value) is ValueError
    return str(caught.value)


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", None, np.array([1]), [1], Rude(), int]
)
def test_what_is_no_integer_is_a_type_error(value):
    refused(c.Integer(), value, ArgumentError)
    refused(c.Integer(), value, TypeError)


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), np.uint64(3)])
def test_integers_are_handed_on_as_pythons_own(value):
    taken = c.check("thing", value, c.Integer(1))
    assert taken == 3 and type(taken) is int


def test_integers_out_of_bounds_are_value_errors():
    assert refused(c.Integer(1), 0) == (
        "`thing` must be an integer of at least 1. Received: thing=0"
    )
    for value in HUGE:
        refused(c.Integer(0, 2**32 - 1), value)
        refused(c.Integer(high=5), value)


def test_numbers():
    share = c.Real(0, 1, closed="left")
    assert c.check("thing", fractions.Fraction(1, 2), share) == 0.5
    assert type(c.check("thing", np.float32(0.5), share)) is float
    assert type(c.check("thing", 0, share)) is int
    for value in [1, -0.1, float("nan"), float("inf"), np.float64("nan"), *HUGE]:
        refused(share, value)
    for value in [float("nan"), float("inf"), 10**400]:
        refused(c.Real(), value)
    for value in [True, "0.5", None, np.array([0.5]), 1j, Rude(), np.bool_(True)]:
        refused(share, value, ArgumentError)
    assert c.check("thing", float("inf"), c.Real(0, infinite=True)) == float("inf")
    assert "above 0" in refused(c.Real(0, closed="neither"), 0)


def test_flags_are_nothing_but_true_and_false():
    assert c.check("thing", np.bool_(True), c.Flag()) is True
    for value in [1, 0, "no", None, np.array([True])]:
        refused(c.Flag(), value, ArgumentError)


def test_one_of_names_the_nearest():
    scope = c.OneOf("global", "layer")
    assert c.check("thing", "layer", scope) == "layer"
    assert "Perhaps 'global'?" in refused(scope, "globl")
    for value in [None, 1, ["layer"], np.array(["layer", "x"]), Rude()]:
        refused(scope, value, ArgumentError)
    assert c.check("p", 2, c.OneOf(1, 2)) == 2
    refused(c.OneOf(1, 2), True, ArgumentError)


def test_lists_of_indices():
    units = c.ListOf(c.Integer(0), "units")
    assert c.check("thing", np.array([1, 2]), units) == [1, 2]
    assert c.check("thing", (i for i in range(3)), units) == [0, 1, 2]
    assert c.check("thing", (1, 2), units) == (1, 2)
    assert "0" in refused(units, [True, False], ArgumentError)
    for value in [[1.9], "12", b"12", np.array([1.0]), np.array([[1]]), 3, None]:
        refused(units, value, ArgumentError)
    refused(units, [Rude()], ArgumentError)
    refused(units, Rude(), ArgumentError)
    assert "It is empty" in refused(units, [])
    assert "at [1] is -1" in refused(units, [0, -1])


def test_a_list_that_never_ends_is_refused():
    import itertools

    refused(c.ListOf(c.Integer(0), "units", most=100), itertools.count())


def test_names_and_dictionaries():
    assert c.check("thing", {"a"}, c.NAMES) == ["a"]
    refused(c.NAMES, "abc", ArgumentError)
    refused(c.NAMES, [1], ArgumentError)
    by_layer = c.MapOf(c.Text("a name"), c.FRACTION, "a dictionary of fractions")
    assert c.check("thing", {"a": np.float64(0.5)}, by_layer) == {"a": 0.5}
    assert "at ['a'] is 2" in refused(by_layer, {"a": 2})
    assert "keys is 1, not a name" in refused(by_layer, {1: 0.5}, ArgumentError)
    of_lists = c.MapOf(c.Text("a name"), c.ListOf(c.Integer(0), "units"))
    for value in (1.9, True):
        assert f"at ['a'][1] is {value}, not an integer" in refused(
            of_lists, {"a": [0, value]}, ArgumentError
        )
    refused(by_layer, {})


def test_of_alternatives_the_one_that_got_inside_speaks():
    by_name = c.MapOf(c.Text("a name"), c.FRACTION, "a dictionary")
    options = [c.FRACTION, c.Text(), by_name, None]
    assert "at ['a'] is True, not" in refused(options, {"a": True}, ArgumentError)
    assert "stands at" not in refused(options, True, ArgumentError)


def test_alternatives_speak_together():
    wanted = [c.Integer(1), c.OneOf("epoch"), None]
    assert c.check("thing", None, wanted) is None
    assert refused(wanted, 0) == (
        "`thing` must be an integer of at least 1, 'epoch' or None. Received: thing=0"
    )
    assert refused(wanted, 1.5, ArgumentError).endswith(
        "Received: thing=1.5 of type float"
    )


def test_functions_and_paths():
    def function(x):
        return x

    assert c.check("thing", function, c.Function()) is function
    for value in [None, 3, "f", int]:
        refused(c.Function(), value, ArgumentError)
    for value in [None, 3, b"f", ["f"]]:
        refused(c.Path(), value, ArgumentError)
    for value in ["", "  ", "a\0b"]:
        refused(c.Path(), value)


def test_the_decorator_keeps_the_signature_and_checks_first():
    calls = []

    class Thing:
        @c.checked(size=c.Integer(1), names=c.Text())
        def __init__(self, size: int = 1, *names: str, flag: bool = True) -> None:
            """Say what it does."""
            calls.append((size, names, flag))

    Thing()
    Thing(np.int64(2), "a", "b", flag=False)
    assert calls == [(1, (), True), (2, ("a", "b"), False)]
    assert type(calls[1][0]) is int
    for arguments in [(0,), (1, "a", "")]:
        with pytest.raises(ValueError, match="Received"):
            Thing(*arguments)
    with pytest.raises(TypeError):
        Thing(sizes=3)
    assert len(calls) == 2
    assert list(inspect.signature(Thing).parameters) == ["size", "names", "flag"]
    assert inspect.getfullargspec(Thing.__init__).args == ["self", "size"]
    assert Thing.__init__.__doc__ == "Say what it does."
    with pytest.raises(TypeError, match="does not take"):
        c.checked(none=c.Integer())(lambda a: a)


def test_the_checks_and_the_package_import_neither_numpy_nor_a_framework():
    code = (
        "import sys, tf_spline_prune, tf_spline_prune._checks\n"
        "print(sorted({'numpy', 'keras', 'tensorflow', 'tf_keras'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_intervals_arrays_and_either():
    assert c.check("thing", [0, np.int64(2)], c.Interval()) == (0, 2)
    for value in [(1, 0), (0, 0), (0,), (0, np.inf)]:
        refused(c.Interval(), value)
    refused(c.Interval(), "12", ArgumentError)
    square = c.Array("a square", ndim=2)
    assert c.check("thing", [[1, 2], [3, 4]], square).shape == (2, 2)
    for value in [np.zeros((0, 2)), [1.0], [[np.nan]]]:
        refused(square, value)
    for value in [[[1], [2, 3]], [["a"]], 3, np.array(3.0), [[None]], Rude()]:
        refused(square, value, ArgumentError)
    either = c.ListOf(c.Either(c.Integer(1), c.Text()), "sizes or names")
    assert c.check("thing", [1, "a"], either) == [1, "a"]
    refused(either, [0], None)
    refused(either, [0.5], ArgumentError)


def test_data_are_looked_at_later_but_are_no_number_and_no_name():
    for value in [np.zeros((2, 3)), [np.zeros(2)], {"a": np.zeros(2)}, iter([1])]:
        assert c.check("thing", value, c.Data()) is value
    for value in [3, "x.npy", None, True, np.float32(1), int, lambda: 3]:
        refused(c.Data(), value, ArgumentError)
    for value in [[], (), {}]:
        refused(c.Data(), value)
