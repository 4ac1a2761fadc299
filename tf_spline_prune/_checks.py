"""Constraints on arguments, as data, and the decorator that holds a function to them.

```python
@checked(round_to=Integer(1), max_sparsity=[Real(0, 1, closed="left"), None])
def plan(model, *, round_to=1, max_sparsity=None): ...
```

The arguments are checked before anything else happens. A wrong type is an
`ArgumentError`, which is a `TypeError`; a wrong value is a `ValueError`. What goes
together with what (a target and its unit, a mode and its data) is the function's own
affair. Numbers of NumPy are handed on as Python's, and what can be iterated only once
as a list, so a function sees the types that its signature names.
"""

import difflib
import functools
import inspect
import itertools
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from tf_spline_prune.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])
_LONGEST = 120  # characters of what was received
_FAR = 2**31 - 1
MOST = 1_000_000  # items of a list; a generator may never end


class Misfit(Exception):
    """Raised by a constraint: the value does not fit.

    Args:
        of_type: Whether the type is wrong already, or only the value.
        reason: What is wrong in particular, a whole sentence, or nothing.
        *place: Indices and keys that lead there; `reason` follows the place then.
    """

    def __init__(self, of_type: bool, reason: str = "", *place: Any) -> None:
        super().__init__(reason)
        self.of_type, self.reason, self.place = of_type, reason, place

    @property
    def note(self) -> str:
        """Describe what is wrong in particular, and where."""
        where = "".join(f"[{received(step)}]" for step in self.place)
        return f"What stands at {where} {self.reason}" if where else self.reason


class Constraint:
    """What an argument must be.

    Attributes:
        hint: How to mend a value that does not fit, a whole sentence, or nothing.
        what: What fits, to follow "must be", unless `wanted` makes it up.
    """

    hint: str = ""
    what: str = ""

    @property
    def wanted(self) -> str:
        """Describe what fits, to follow "must be"."""
        return self.what

    def take(self, value: Any) -> Any:
        """Return the value as it is to be handed on, or raise `Misfit`."""
        raise NotImplementedError


Options = Sequence[Constraint | None]
# What a decorator is given: a constraint, `None`, or a list of alternatives.
Wanted = Constraint | None | Options


@dataclass(frozen=True)
class Integer(Constraint):
    """A whole number, both bounds included; `True` is none."""

    low: int | None = None
    high: int | None = None
    hint: str = ""

    @property
    def wanted(self) -> str:
        if self.low is None and self.high is None:
            return "an integer"
        if self.low is None:
            return f"an integer of at most {self.high}"
        if self.high is None or self.high >= _FAR:  # then it is hardly worth a word
            return f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"

    def take(self, value: Any) -> int:
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise Misfit(of_type=True)
        value = operator.index(value)
        if self.low is not None and value < self.low:
            raise Misfit(of_type=False)
        if self.high is not None and value > self.high:
            raise Misfit(of_type=False, reason=f"It may be {self.high} at most.")
        return value


@dataclass(frozen=True)
class Real(Constraint):
    """A number that is neither NaN nor, unless a bound is, infinite."""

    low: float = -math.inf
    high: float = math.inf
    closed: Literal["both", "left", "right", "neither"] = "both"
    infinite: bool = False
    hint: str = ""

    @property
    def wanted(self) -> str:
        parts = []
        if self.low > -math.inf:
            least = self.closed in ("both", "left")
            parts.append(f"of at least {self.low}" if least else f"above {self.low}")
        if self.high < math.inf:
            most = self.closed in ("both", "right")
            parts.append(f"at most {self.high}" if most else f"less than {self.high}")
        open_ended = math.inf in (-self.low, self.high) and not self.infinite
        what = "a finite number" if open_ended else "a number"
        return " ".join([what, " and ".join(parts)]).strip()

    def take(self, value: Any) -> float:
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise Misfit(of_type=True)
        try:
            number = float(value)
        except (OverflowError, ValueError) as error:
            raise Misfit(of_type=False) from error
        low = operator.ge if self.closed in ("both", "left") else operator.gt
        high = operator.le if self.closed in ("both", "right") else operator.lt
        finite = math.isfinite(number) or (self.infinite and not math.isnan(number))
        if not (finite and low(number, self.low) and high(number, self.high)):
            raise Misfit(of_type=False)
        if isinstance(value, int) and abs(value) < 2**63:
            return value
        return number


@dataclass(frozen=True)
class Flag(Constraint):
    """`True` or `False`, and nothing that merely counts as one of them."""

    hint: str = ""
    wanted: ClassVar[str] = "True or False"

    def take(self, value: Any) -> bool:
        value = plain(value)
        if not isinstance(value, bool):
            raise Misfit(of_type=True)
        return value


class OneOf(Constraint):
    """One of a few strings or integers.

    Args:
        *options: These.
        hint: How to mend a value that is none of them.
        instead: What to give in the place of words that are something else.
    """

    def __init__(
        self,
        *options: str | int,
        hint: str = "",
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self.options, self.hint, self.instead = options, hint, instead or {}

    @property
    def wanted(self) -> str:
        if len(self.options) == 1:
            return repr(self.options[0])
        return f"one of {', '.join(map(repr, self.options))}"

    def take(self, value: Any) -> Any:
        value = plain(value)
        kinds = {type(option) for option in self.options}
        kind = next((k for k in kinds if isinstance(value, k)), None)
        if kind is None or isinstance(value, bool):
            raise Misfit(of_type=True)
        if value in self.options:
            return value
        near = difflib.get_close_matches(str(value).lower(), map(str, self.options), 1)
        meant = self.instead.get(value) or (repr(near[0]) if near else "")
        raise Misfit(of_type=False, reason=f"Perhaps {meant}?" if meant else "")


@dataclass(frozen=True)
class Text(Constraint):
    """A string that is not empty."""

    what: str = "a string that is not empty"
    hint: str = ""

    def take(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Misfit(of_type=True)
        if not value.strip():
            raise Misfit(of_type=False)
        return str(value)


@dataclass(frozen=True)
class Path(Constraint):
    """A path of a file or folder."""

    hint: str = ""
    wanted: ClassVar[str] = "a path: a text that is not empty, or a `pathlib.Path`"

    def take(self, value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)):
            raise Misfit(of_type=True)
        try:
            text = os.fspath(value)
        except Exception as error:
            raise Misfit(of_type=True) from error
        if not isinstance(text, str):
            raise Misfit(of_type=True)
        if not text.strip() or "\0" in text:
            raise Misfit(of_type=False)
        return value


@dataclass(frozen=True)
class Function(Constraint):
    """Something to be called; neither a class nor, unless allowed, a Keras object."""

    what: str = "a function"
    layers: bool = False
    hint: str = ""

    def take(self, value: Any) -> Any:
        wrong = hasattr(type(value), "trainable_weights") and not self.layers
        if wrong or not callable(value) or isinstance(value, type):
            raise Misfit(of_type=True)
        return value


class Instance(Constraint):
    """An instance of a class."""

    def __init__(self, *classes: type, what: str = "", hint: str = "") -> None:
        self.classes, self.hint = classes, hint
        self._what = what

    @property
    def wanted(self) -> str:
        return self._what or " or ".join(f"a `{c.__name__}`" for c in self.classes)

    def take(self, value: Any) -> Any:
        if not isinstance(value, self.classes):
            raise Misfit(of_type=True)
        return value


class Having(Constraint):
    """An object of whatever class that has some attributes."""

    def __init__(self, *attributes: str, what: str, hint: str = "") -> None:
        self.attributes, self.what, self.hint = attributes, what, hint

    def take(self, value: Any) -> Any:
        # The class first: a property may raise, as `weights` of an unbuilt model does.
        held = (hasattr(type(value), n) or hasattr(value, n) for n in self.attributes)
        if isinstance(value, type) or not all(held):
            raise Misfit(of_type=True)
        return value


class Either(Constraint):
    """One of several constraints, for the items of a list or dictionary."""

    def __init__(self, *options: Constraint | None, hint: str = "") -> None:
        self.options, self.hint = options, hint

    @property
    def wanted(self) -> str:
        return _either(self.options)

    def take(self, value: Any) -> Any:
        of_type = True
        for option in self.options:
            if option is None and value is None:
                return None
            try:
                if option is not None:
                    return option.take(value)
            except Misfit as misfit:
                of_type = of_type and misfit.of_type
        raise Misfit(of_type)


@dataclass(frozen=True)
class ListOf(Constraint):
    """Items in a row: a list, a tuple, a vector, or what gives them once.

    Args:
        item: What each item must be.
        what: The items' name in the plural, for messages: `"layer names"`.
        least: How many there must be.
        most: How many there may be.
    """

    item: Constraint
    what: str
    least: int = 1
    most: int = MOST
    hint: str = ""

    @property
    def wanted(self) -> str:
        number = f"{self.least} " if self.least == self.most else ""
        return f"a list of {number}{self.what}"

    def take(self, value: Any) -> Any:
        no_list = (str, bytes, bytearray, memoryview, Mapping)
        if isinstance(value, no_list) or not isinstance(value, Iterable):
            raise Misfit(of_type=True)
        if hasattr(value, "ndim") and value.ndim != 1:
            raise Misfit(of_type=True)
        try:
            items = value.tolist() if hasattr(value, "tolist") else None
            if items is None:
                items = list(itertools.islice(value, self.most + 1))
        except Exception as error:
            raise Misfit(of_type=True) from error
        if not self.least <= len(items) <= self.most:
            raise Misfit(of_type=False, reason="" if items else "It is empty.")
        taken = [_item(self.item, entry, i) for i, entry in enumerate(items)]
        return tuple(taken) if isinstance(value, tuple) else taken


@dataclass(frozen=True)
class Interval(Constraint):
    """Two numbers, the least and the greatest."""

    what: str = "two finite numbers, the smaller first"
    hint: str = ""

    def take(self, value: Any) -> tuple[float, float]:
        low, high = ListOf(Real(), "numbers", 2, 2).take(value)
        if not low < high:
            raise Misfit(of_type=False)
        return low, high


@dataclass(frozen=True)
class MapOf(Constraint):
    """A dictionary."""

    key: Constraint
    item: Constraint
    what: str = "a dictionary"
    least: int = 1
    hint: str = ""

    def take(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(of_type=True)
        if len(value) < self.least:
            raise Misfit(of_type=False, reason="It is empty.")
        return {_item(self.key, k): _item(self.item, v, k) for k, v in value.items()}


def _item(constraint: Constraint, value: Any, *step: Any) -> Any:
    """Take a key of a dictionary, or what stands at a step; say which does not fit."""
    try:
        return constraint.take(value)
    except Misfit as misfit:
        reason = misfit.reason
        if not misfit.place:
            what = "is" if step else "One of its keys is"
            reason = f"{what} {received(value)}, not {constraint.wanted}. {reason}"
        raise Misfit(misfit.of_type, reason.strip(), *step, *misfit.place) from None


@dataclass(frozen=True)
class Array(Constraint):
    """Numbers in an array, or in lists that make one; handed on as an array."""

    what: str = "an array of finite numbers"
    ndim: int | None = None
    finite: bool = True
    empty: bool = False
    hint: str = ""

    def take(self, value: Any) -> Any:
        import numpy as np

        if not (hasattr(value, "__array__") or isinstance(value, (list, tuple))):
            raise Misfit(of_type=True)
        try:
            array = np.asarray(value)
        except Exception as error:
            raise Misfit(of_type=True) from error
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise Misfit(of_type=True)
        if not array.size and not self.empty:
            raise Misfit(of_type=False, reason="It is empty.")
        if self.ndim is not None and array.ndim != self.ndim:
            raise Misfit(of_type=False)
        if self.finite and not np.isfinite(array).all():
            raise Misfit(of_type=False, reason="It holds NaN or infinite values.")
        return array


@dataclass(frozen=True)
class Data(Constraint):
    """Inputs of a model, which are looked at once there is a model.

    Arrays, lists and dictionaries of arrays, a tuple of inputs and labels, and
    batches of these.
    """

    what: str = "inputs: an array, several in a list or dictionary, or a data set"
    hint: str = ""

    def take(self, value: Any) -> Any:
        value = plain(value)
        if isinstance(value, (str, bytes, type, numbers.Number)):
            raise Misfit(of_type=True)
        if hasattr(type(value), "trainable_weights"):
            raise Misfit(of_type=True)
        if isinstance(value, (list, tuple, Mapping)) and not len(value):
            raise Misfit(of_type=False, reason="It is empty.")
        if not (
            hasattr(value, "__array__")
            or hasattr(value, "__getitem__")
            or hasattr(value, "__iter__")
        ):
            raise Misfit(of_type=True)
        return value


SEED = Integer(0, 2**32 - 1)
COUNT = Integer(1, 2**31 - 1)
FRACTION = Real(0, 1, closed="left")
POSITIVE = Real(0, closed="neither")
BETWEEN = Real(0, 1, closed="neither")
FOLDER = Path(hint="The current folder is '.'.")
NAMES = ListOf(Text("a name"), "names")
LAYERS: Options = [
    Text("the name of a layer"),
    ListOf(Text("the name of a layer"), "such names"),
    None,
]
SELECTOR: Options = [
    Text("the name of a layer or a regular expression"),
    ListOf(Text("the name of a layer or a regular expression"), "such names"),
    Function("a function of a layer"),
    None,
]


def hold(instance: Any, **constraints: Wanted) -> None:
    """Check the fields of a dataclass, in its `__post_init__`.

    Args:
        instance: The instance; its fields are set to what is to be handed on.
        **constraints: As in `checked`.
    """
    for name, wanted in constraints.items():
        setattr(instance, name, check(name, getattr(instance, name), wanted))


def plain(value: Any) -> Any:
    """Turn a number of NumPy, or an array without axes, into Python's own."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def received(value: Any) -> str:
    """Write what was received, shortly, whatever it is."""
    kind = type(value)
    try:
        if hasattr(value, "shape") and hasattr(value, "dtype") and value.ndim:
            return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
        if isinstance(value, type):
            return f"the class {value.__module__}.{value.__qualname__}"
        if hasattr(value, "trainable_weights"):
            return f"{kind.__module__}.{kind.__qualname__} named {value.name!r}"
        text = " ".join(repr(value).split())
    except Exception:
        return f"an object of type {kind.__module__}.{kind.__qualname__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def check(name: str, value: Any, wanted: Wanted) -> Any:
    """Check one argument.

    Args:
        name: Its name.
        value: What was given.
        wanted: A constraint, `None`, or alternatives.

    Returns:
        The value as it is to be handed on.

    Raises:
        ArgumentError: If the type is wrong.
        ValueError: If the value is.
    """
    options = wanted if isinstance(wanted, Sequence) else (wanted,)
    misfits = []
    for option in options:
        if option is None:
            if value is None:
                return None
            continue
        try:
            return option.take(value)
        except Misfit as misfit:
            misfits.append((option, misfit))
    near = [pair for pair in misfits if not pair[1].of_type]  # only the value is wrong
    # Of several alternatives one is meant, if only that one got so far.
    inside = [pair for pair in misfits if pair[1].note]
    said = next((group for group in (near, inside, misfits) if len(group) == 1), [])
    notes = [n for option, misfit in said for n in (misfit.note, option.hint) if n]
    kind = type(value)
    shown = received(value)
    if not near and shown.isprintable() and not shown.startswith(("an ", "the ")):
        shown = f"{shown} of type {kind.__name__}"
    sentence = f"`{name}` must be {_either(options)}."
    message = " ".join([sentence, *notes, f"Received: {name}={shown}"])
    raise (ValueError if near else ArgumentError)(message) from None


def _either(options: Options) -> str:
    says = ["None" if option is None else option.wanted for option in options]
    return says[0] if len(says) == 1 else f"{', '.join(says[:-1])} or {says[-1]}"


def checked(**constraints: Wanted) -> Callable[[F], F]:
    """Hold a function, a method or a class' constructor to constraints.

    Args:
        **constraints: For each argument a constraint, or a list of alternatives, of
            which `None` may be one. Of `*args` each item is checked.

    Returns:
        A decorator, which keeps the signature.

    Raises:
        TypeError: If the function takes no argument of such a name.
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            init = function.__init__  # type: ignore[misc]
            function.__init__ = checked(**constraints)(init)  # type: ignore[misc]
            return function
        signature = inspect.signature(function)
        parameters = signature.parameters
        if unknown := set(constraints) - set(parameters):
            raise TypeError(f"{function.__qualname__} does not take {sorted(unknown)}.")
        places: list[str] = []
        rest = ""
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                rest = name
            elif parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                places.append(name)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            named = itertools.zip_longest(args, places[: len(args)], fillvalue=rest)
            taken = [
                check(name, value, constraints[name]) if name in constraints else value
                for value, name in named
            ]
            for name in kwargs:
                if name in constraints:
                    kwargs[name] = check(name, kwargs[name], constraints[name])
            return function(*taken, **kwargs)

        # Keras reads a constructor's arguments without looking behind a wrapper.
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.constraints = constraints  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate
