"""Call everything public with wrong arguments, one at a time, and judge the answers.

    python benchmarks/wrong_calls.py [--flavour tf_keras] [--only NAME] [--one-in N]
                                     [--part K/N]

An answer is *taken* (the call went through), *clear* (a `ValueError`, a `TypeError` or
one of our own classes, raised by our code and ending in what was received; or the
operating system's word on a path), or *unclear*: a raw error from deep inside, more
than a few seconds, or an object that nobody can want taken without a word. After every
refused call the weights and states of all models must be what they were. Exits with 1
if anything is unclear or changed.
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import io
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune import errors

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import valid_calls  # noqa: E402

SECONDS = 20  # on a busy machine; what is refused takes none
_PACKAGE = str(pathlib.Path(tsp.__file__).parent)


class Rude:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("rude")

    def __iter__(self) -> Iterator:
        raise _Ours("a user's data set may raise what it wants")

    __eq__ = __len__ = __float__ = __bool__ = __repr__  # type: ignore
    __hash__ = None  # type: ignore


class Slow(BaseException):
    """A call took too long."""


@dataclass
class Tally:
    """What came of the calls."""

    counts: collections.Counter = field(default_factory=collections.Counter)
    unclear: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def wrong_values(bench: valid_calls.Bench) -> dict[str, Callable[[], object]]:
    """List the values, each made anew for each call."""
    other = "tf_keras" if bench.flavour == "keras" else "keras"

    def foreign() -> object:
        k = __import__(other)
        return k.Sequential([k.Input((4,)), k.layers.Dense(3, name="d1")])

    k = bench.keras
    return {
        "None": lambda: None,
        "True": lambda: True,
        "0": lambda: 0,
        "-1": lambda: -1,
        "1.9": lambda: 1.9,
        "-0.5": lambda: -0.5,
        "2**70": lambda: 2**70,
        "10**30": lambda: 10**30,
        "10**400": lambda: 10**400,
        "NaN": lambda: float("nan"),
        "inf": lambda: float("inf"),
        "1j": lambda: 1j,
        "''": lambda: "",
        "'nonsense'": lambda: "nonsense",
        "'12'": lambda: "12",
        "b'x'": lambda: b"x",
        "'a\\0b'": lambda: "a\0b",
        "[]": lambda: [],
        "()": lambda: (),
        "{}": lambda: {},
        "[True, False]": lambda: [True, False],
        "[1.9]": lambda: [1.9],
        "['nonsense']": lambda: ["nonsense"],
        "[None]": lambda: [None],
        "{'nonsense': 1}": lambda: {"nonsense": 1},
        "{1: [2]}": lambda: {1: [2]},
        "a generator": lambda: (i for i in range(3)),
        "a set": lambda: {"a"},
        "array of ints": lambda: np.arange(3),
        "array of NaN": lambda: np.full((2, 4), np.nan, "float32"),
        "array of objects": lambda: np.array([[object()] * 4], object),
        "array of strings": lambda: np.array([["a"] * 4]),
        "empty array": lambda: np.zeros((0, 4), "float32"),
        "0-d array": lambda: np.array(0.5),
        "misshapen array": lambda: np.zeros((2, 5, 5), "float32"),
        "object()": lambda: object(),
        "rude": Rude,
        "a class": lambda: int,
        "a function": lambda: _function,
        "a layer": lambda: k.layers.Dense(3),
        "a model's class": lambda: k.Sequential,
        "an unbuilt model": lambda: k.Sequential([k.layers.Dense(3)]),
        "a foreign model": foreign,
        "a plan": lambda: bench.plan,
    }


def _function(*arguments: object) -> object:
    raise _Ours("a user's function may raise what it wants")


class _Ours(Exception):
    """Raised by the function that stands for a user's."""


# Nobody can want these taken without a word; what can be iterated may be data.
NEVER = ("rude", "object()")
DATA = ("data", "x", "y", "dataset", "probe", "representative_data")
# What is handed on to Keras, which takes it or has its own word on it.
HANDED_ON = {"distill": {"optimizer", "metrics", "loss", "losses", "data"}}


def models_of(bench: valid_calls.Bench) -> Iterator[object]:
    """Return the models that were made so far."""
    for value in list(vars(bench).values()):
        if hasattr(value, "layers") and hasattr(value, "weights"):
            yield value


def fingerprints(bench: valid_calls.Bench) -> list[tuple[str, str]]:
    """Hash the weights and states of all models that were made so far."""
    found = []
    for model in models_of(bench):
        digest = hashlib.sha256()
        for variable in model.variables:
            digest.update(np.asarray(variable.numpy()).tobytes())
        digest.update(repr([layer.trainable for layer in model.layers]).encode())
        found.append((str(id(model)), digest.hexdigest()))
    return found


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `Slow` where the work takes longer."""

    def late(*_: object) -> None:
        raise Slow

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def call(function: Callable[..., object], arguments: dict[str, object]) -> object:
    """Call by name; what has a star goes in by position, after all that come before."""
    starred = next((name for name in arguments if name.startswith("*")), None)
    if starred is None:
        return function(**arguments)
    names = list(arguments)
    before = [arguments[name] for name in names[: names.index(starred)]]
    rest = {name: arguments[name] for name in names[names.index(starred) + 1 :]}
    return function(*before, arguments[starred], **rest)


def judge(error: BaseException | None, where: str, label: str) -> str | None:
    """Return what is unclear about the end of a call, if anything is."""
    function, _, name = where.rpartition(":")
    free = name in HANDED_ON.get(function, ())
    if error is None:
        as_data = label == "rude" and name in DATA
        fine = free or as_data or label not in NEVER
        return None if fine else "taken without a word"
    if free and not isinstance(error, Slow):
        return None
    if isinstance(error, Slow):
        return f"took more than {SECONDS} s"
    if isinstance(error, _Ours):
        return None
    text, kind = str(error), type(error)
    if isinstance(error, OSError):
        return None  # a path that cannot be read or written
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    known = (
        kind in (ValueError, TypeError, KeyError) or kind.__module__ == errors.__name__
    )
    if known and last.startswith(_PACKAGE) and "Received" in text:
        return None
    place = pathlib.Path(last).name
    return f"{kind.__name__} from {place}: {' '.join(text.split())[:110]}"


def sweep(
    flavour: str = "keras",
    only: str = "",
    one_in: int = 1,
    seed: int = 0,
    show: Callable[[str], object] = lambda line: None,
    done: Callable[[str, int, float], object] = lambda name, calls, seconds: None,
    part: tuple[int, int] = (1, 1),
) -> Tally:
    """Make the calls.

    Args:
        flavour: The Keras of the models.
        only: Part of the names to call; empty for all.
        one_in: Make one in so many calls, drawn at random.
        seed: Seed of the draw.
        show: Called with each finding.
        done: Called after each function, with its name, its calls and its seconds.
        part: `(k, n)` makes the k-th of n shares of the functions, for n processes.

    Returns:
        The tally.
    """
    drawn, tally, start = random.Random(seed), Tally(), pathlib.Path.cwd()
    with tempfile.TemporaryDirectory(prefix="wrong_calls") as folder:
        bench = valid_calls.Bench(flavour, folder)
        values = wrong_values(bench)
        calls = {name: make for name, make in bench.calls().items() if only in name}
        try:
            for name in list(calls)[part[0] - 1 :: part[1]]:
                place = bench.path("")  # where files of wrong names may lie
                place.mkdir()
                os.chdir(place)
                make = calls[name]
                since, before = time.monotonic(), sum(tally.counts.values())
                for argument in make()[1]:
                    for label, value in values.items():
                        if drawn.random() * one_in < 1:
                            _one(bench, tally, name, make, argument, label, value, show)
                made = sum(tally.counts.values()) - before
                done(name, made, time.monotonic() - since)
        finally:
            os.chdir(start)
    return tally


def _one(bench, tally, name, make, argument, label, value, show) -> None:  # noqa: ANN001
    function, arguments = make()
    arguments[argument] = value()
    where = f"{name}:{argument}"
    before = fingerprints(bench)
    error: BaseException | None = None
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(quiet):
            try:
                with limited(SECONDS):
                    call(function, arguments)
            except (Exception, Slow) as found:
                error = found
    kept = dict(fingerprints(bench))
    if error is not None and any(kept.get(i, h) != h for i, h in before):
        tally.changed.append(f"{where} = {label}")
        show(f"CHANGED  {where} = {label}")
    if error is None and any(kept.get(i, h) != h for i, h in before):
        for key, held in list(vars(bench).items()):  # work in place: make them anew
            if hasattr(held, "layers"):
                del vars(bench)[key]
    why = judge(error, where, label)
    if why:
        tally.unclear.append(f"{where} = {label}: {why}")
        show(f"unclear  {where} = {label}: {why}")
    tally.counts["unclear" if why else "clear" if error else "taken"] += 1
    _close_figures()


def _close_figures() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def main() -> int:
    """Sweep, print the counts, and fail if anything is not clear."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flavour", default="keras", choices=("keras", "tf_keras"))
    parser.add_argument("--only", default="", help="part of the names to call")
    parser.add_argument("--one-in", type=int, default=1, help="draw one in N calls")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N shares")
    asked = parser.parse_args()
    part = tuple(int(n) for n in asked.part.split("/"))

    def done(name: str, calls: int, seconds: float) -> None:
        print(f"{calls:6,} calls in {seconds:5.0f} s  {name}", flush=True)

    missing = valid_calls.public() - set(valid_calls.Bench().calls())
    for name in sorted(missing):
        print(f"no valid call of {name}")
    show = functools.partial(print, flush=True)
    tally = sweep(asked.flavour, asked.only, asked.one_in, 0, show, done, part)
    counts = tally.counts
    print(
        f"{sum(counts.values()):,} wrong calls ({asked.flavour}): "
        f"{counts['clear']:,} refused clearly, {counts['taken']:,} taken, "
        f"{counts['unclear']:,} unclear, {len(tally.changed)} changed weights"
    )
    return int(bool(missing or tally.unclear or tally.changed))


if __name__ == "__main__":
    sys.exit(main())
