"""What the house looks like from outside: files, names, and the way of a call.

    python benchmarks/structure.py

*Files*: modules, lines, modules that exactly one other module imports, and public
names that stand in a file of their name: `plan` in `_plan.py`, `SplineEarlyBird` in
`_spline_early_bird.py`.

*Calls*: for a `prune` with data, an early bird in `fit` and `MaskPruning` in `fit` on a
small network, how many files of the package are entered, how many calls go from one
file to another, and how often a model is traced, read as a channel graph and built.
"""

import ast
import collections
import importlib
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_spline_prune as tsp

PACKAGE = pathlib.Path(tsp.__file__).parent
MODULES = {
    ".".join((PACKAGE.name, *p.relative_to(PACKAGE).with_suffix("").parts)): p
    for p in sorted(PACKAGE.rglob("*.py"))
}
STUBS = sorted(PACKAGE.rglob("*.pyi"))  # which say what a room hands on
# What is counted of a call, by the name of the function that does it.
COUNTED = {
    "trace": "traces",
    "ChannelGraph.__init__": "channel graphs",
    "Functional.__init__": "models built",
}


def imports(path: pathlib.Path) -> Iterator[str]:
    """Yield the dotted names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def single_importers() -> int:
    """Count the modules that one other module imports, and no room hands on."""
    importers = collections.defaultdict(set)
    for path in (*MODULES.values(), *STUBS):
        for imported in imports(path):
            if imported in MODULES:
                importers[imported].add(path)
    return sum(
        len(found) == 1 and next(iter(found)).stem != "__init__"
        for found in importers.values()
    )


def public() -> dict[str, Any]:
    """Return the public functions and classes of the package by dotted name."""
    found: dict[str, Any] = {}
    for name in tsp.__all__:
        thing = getattr(tsp, name)
        if not isinstance(thing, types.ModuleType):
            found[name] = thing
            continue
        own = [
            key
            for key, value in vars(thing).items()
            if not key.startswith("_")
            and getattr(value, "__module__", "") == thing.__name__
        ]
        for inner in getattr(thing, "__all__", own):
            value = getattr(thing, inner)
            if getattr(value, "__module__", "").startswith(PACKAGE.name):
                found.setdefault(f"{name}.{inner}", value)
    return {n: t for n, t in found.items() if callable(t) and hasattr(t, "__name__")}


def is_guessable(name: str, thing: Any) -> bool:
    """Return whether something stands in a file of its name."""
    home, _, last = name.rpartition(".")
    if home and thing.__module__.endswith(f".{home}"):
        return True  # a public module, which one file is
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()
    file = thing.__module__.rpartition(".")[2].strip("_")
    return file.replace("_", "") == words.replace("_", "")


def watched(work: Callable[[], object]) -> dict[str, int]:
    """Run something; count what happens on the way."""
    counts: collections.Counter[str] = collections.Counter()
    files = set()
    here = str(PACKAGE)

    def watch(frame: types.FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        file, caller = frame.f_code.co_filename, frame.f_back
        if file.startswith(here):
            files.add(file)
            known = caller is not None and caller.f_code.co_filename.startswith(here)
            if known and caller.f_code.co_filename != file:
                counts["calls between files"] += 1
        name = COUNTED.get(frame.f_code.co_qualname)
        if name and (file.startswith(here) or "keras" in file):
            counts[name] += 1

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return {
        "files entered": len(files),
        "calls between files": counts["calls between files"],
        **{name: counts[name] for name in COUNTED.values()},
    }


def net() -> Any:
    """Make a small convolutional network."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, "softmax")(x))


def fitted(model: Any, x: np.ndarray, *callbacks: Any) -> None:
    """Train for three epochs."""
    model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.arange(len(x)) % 10
    model.fit(x, labels, batch_size=16, epochs=3, callbacks=list(callbacks), verbose=0)


def main() -> None:
    files = (*MODULES.values(), *STUBS)
    lines = sum(len(path.read_text().splitlines()) for path in files)
    names = public()
    guessed = sum(is_guessable(name, thing) for name, thing in names.items())
    print(f"{len(files)} files ({len(STUBS)} of them stubs), {lines:,} lines")
    print(f"{single_importers()} modules have exactly one importer")
    print(f"{guessed} of {len(names)} public names stand in a file of their name")
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    importlib.import_module(f"{PACKAGE.name}.callbacks")
    calls: dict[str, Callable[[], object]] = {
        "prune(target_macs, data)": lambda: tsp.prune(net(), target_macs=0.5, data=x),
        "prune(target_macs)": lambda: tsp.prune(net(), target_macs=0.5),
        "SplineEarlyBird in fit": lambda: fitted(net(), x, tsp.SplineEarlyBird(x[:32])),
        "MaskPruning in fit": lambda: fitted(
            tsp.wrap_with_masks(net()),
            x,
            tsp.MaskPruning(tsp.schedules.PolynomialDecay(0, 0.5, 0, 12, frequency=2)),
        ),
    }
    built = watched(net)["models built"]
    for name, work in calls.items():
        work()  # imports what is imported at first use
        counts = watched(work)
        counts["models built"] -= built  # the network itself
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
