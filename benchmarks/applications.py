"""Shrinks every model of `keras.applications` and tests what comes out.

    python benchmarks/applications.py --json applications.jsonl
    python benchmarks/applications.py --flavour tf_keras --models ResNet50 VGG16

Each model has a process of its own: built at its native size, without the softmax,
which would hide differences; random weights and statistics; half of the MACs to go.
The table is Markdown. Seconds are wall clock. Peak memory is what the process holds
while planning and applying, beyond what it held before, also as a multiple of the
model's weights. The largest error is that of `tsp.verify`, those of the exports are
their own; all are relative. "reload" loads the `.keras` file in a process that has
no tf_spline_prune and compares the outputs; "train" is one step of SGD. What failed
is listed below the table, and the exit code is then 1.
"""

import argparse
import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from peak_memory import PeakMemory

TARGET = 0.5
MIB = 2**20
Record = dict[str, Any]


def build(flavour: str, name: str, size: int | None) -> Any:
    """Build a model of fixed input size, without trained weights."""
    make = getattr(importlib.import_module(flavour).applications, name)
    settings: Record = {"weights": None, "classifier_activation": None}
    if size:
        return make(input_shape=(size, size, 3), **settings)
    model = make(**settings)
    if None in model.input_shape[1:]:
        model = make(input_shape=(224, 224, 3), **settings)
    return model


def leaves(layer: Any) -> Iterator[Any]:
    """Yield the layers of a model, those of nested models included."""
    if inner := getattr(layer, "layers", None):
        for one in inner:
            yield from leaves(one)
    else:
        yield layer


def settle(model: Any, seed: int = 0) -> None:
    """Return all weights random values through which an input reaches the output.

    With most initialisers it does not: depthwise kernels start so small that a
    MobileNet answers every input alike, and any two models would agree.
    """
    rng = np.random.default_rng(seed)
    # With the full gain these grow so much from block to block that rounding shows.
    deep = model.name.startswith(("efficientnetv2", "resnet-rs"))
    gain = 0.85 if deep else 1.0
    for layer in leaves(model):
        kind = type(layer).__name__
        if kind == "Normalization":  # of the input, with values that are given
            continue
        for weight in layer.weights:
            name, shape = weight.name, tuple(weight.shape)
            if kind == "LayerScale" or "gamma" in name:
                weight.assign(rng.uniform(0.5, 1.5, shape))
            elif "variance" in name:
                weight.assign(rng.uniform(0.5, 2.0, shape))
            elif "kernel" in name:
                depthwise = kind == "DepthwiseConv2D" or "depthwise_kernel" in name
                fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
                value = rng.standard_normal(shape, "float32")
                weight.assign(value * np.float32(gain * np.sqrt(2 / fan_in)))
            elif any(part in name for part in ("mean", "beta", "bias")):
                weight.assign(rng.normal(0.0, 0.1, shape))


def prunable_fraction(graph: Any) -> float:
    """Return the fraction of the MACs in which a prunable unit takes part."""
    free = graph.nothing_removed()
    for group in graph.groups:
        free[group.roots] = True
    total = fixed = 0
    for fact in graph.weights.values():
        pairs = [*zip(fact.shape, fact.axes, strict=True)]
        pairs += [(len(labels), labels) for labels in fact.rows]
        sizes = [size for size, _ in pairs]
        stay = [
            size if labels is None else int((~free[graph.units_of(labels)]).sum())
            for size, labels in pairs
        ]
        total += fact.uses * int(np.prod(sizes, dtype=object))
        fixed += fact.uses * int(np.prod(stay, dtype=object))
    return 1 - fixed / total


def relative(found: Any, expected: Any) -> float:
    """Return `max|a - b| / max|b|`."""
    a, b = np.asarray(found, "float64"), np.asarray(expected, "float64")
    return float(np.abs(a - b).max() / np.abs(b).max())


def examine(options: argparse.Namespace) -> Record:
    """Shrink one model and run every check on the result."""
    import tf_spline_prune as tsp
    from tf_spline_prune.compat import with_dtype

    start = time.perf_counter()
    failed: dict[str, str] = {}
    record: Record = {"failed": failed, "double": ""}
    model = build(options.flavour, options.one, options.size)
    settle(model)
    held: Record = {}

    def step(name: str, function: Callable[[], Record]) -> bool:
        """Run a step; tell whether the next ones can build on it."""
        try:
            record.update(function())
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return name not in failed

    def count() -> Record:
        graph = tsp.ChannelGraph(model, approximate=options.approximate)
        return {
            "layers": len(graph.graph.layers),
            "groups": len(graph.groups),
            "barriers": len(graph.barriers),
            "prunable": prunable_fraction(graph),
        }

    def shrink() -> Record:
        with PeakMemory() as memory:
            begin = time.perf_counter()
            held["plan"] = tsp.plan(
                model,
                options.criterion,
                target_macs=TARGET,
                approximate=options.approximate,
            )
            planned = time.perf_counter()
            held["small"] = held["plan"].apply(model)
            applied = time.perf_counter()
        return {
            "plan_s": planned - begin,
            "apply_s": applied - planned,
            "peak_mib": memory.extra / MIB,
            "peak_times": memory.extra / held["plan"].before.bytes,
        }

    def account() -> Record:
        before, after = held["plan"].before, tsp.cost(held["small"])
        macs = after.macs / before.macs
        if not 0.98 * TARGET <= macs <= TARGET:
            raise ValueError(f"{macs:.4f} of the MACs are kept, not {TARGET}")
        return {"macs": macs, "params": after.params / before.params}

    def verify() -> Record:
        error = tsp.verify(model, held["small"], held["plan"])
        if not error <= 1e-4:
            # Random weights can make a network that amplifies rounding: ask again
            # where there is less of it.
            double = [with_dtype(net, "float64") for net in (model, held["small"])]
            found = tsp.verify(*double, held["plan"], num_inputs=2)
            record["double"] = f"float32 gave {error:.1e}, float64 "
            error = found
        if not error <= 1e-4:
            raise ValueError(f"relative error {error:.2g}, at most 1e-4 expected")
        return {"error": error}

    def reload() -> Record:
        file, arrays = folder / "small.keras", folder / "small.npz"
        x = np.random.default_rng(1).normal(size=(2, *small.input_shape[1:]))
        x = x.astype("float32")
        np.savez(arrays, x=x, y=np.asarray(small(x, training=False)))
        small.save(file)
        command = [sys.executable, __file__, "--flavour", options.flavour]
        command += ["--one", options.one, "--reload", str(file), str(arrays)]
        done = subprocess.run(command, capture_output=True, text=True)
        file.unlink()
        if done.returncode:
            raise RuntimeError(last_line(done.stderr))
        return json.loads(last_line(done.stdout))

    def train() -> Record:
        losses = importlib.import_module(options.flavour).losses
        loss = losses.CategoricalCrossentropy(from_logits=True)
        small.compile("sgd", loss, jit_compile=False)
        old = [np.array(weight) for weight in small.trainable_weights]
        rng = np.random.default_rng(2)
        x = rng.normal(size=(2, *small.input_shape[1:])).astype("float32")
        y = np.eye(small.output_shape[-1], dtype="float32")[[0, 1]]
        found = float(small.train_on_batch(x, y))
        if not np.isfinite(found):
            raise ValueError(f"the loss is {found}")
        new = [np.array(weight) for weight in small.trainable_weights]
        moved = sum(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))
        if not moved:
            raise ValueError("no weight has changed")
        return {"train": f"{moved} of {len(old)}"}

    def saved_model() -> Record:
        report = tsp.export_saved_model(small, folder / "served")
        return {"saved_model": report.max_difference}

    def litert() -> Record:
        report = tsp.export_litert(small, folder / "small.tflite")
        return {"litert": report.max_difference}

    step("count", count)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        if step("shrink", shrink):
            step("cost", account)
            step("verify", verify)
            small = held.pop("small")
            del model, held["plan"]
            step("reload", reload)
            if not options.skip_export:
                step("saved_model", saved_model)
                step("litert", litert)
            step("train", train)
    record["seconds"] = time.perf_counter() - start
    return record


def load_alone(options: argparse.Namespace) -> Record:
    """Load a model, in a process that knows only Keras, and compare its outputs."""
    keras = importlib.import_module(options.flavour)
    # tf_keras reads a graph recursively: the unpruned ResNetRS270 ends in a
    # RecursionError as well, at Python's own limit of 1,000.
    sys.setrecursionlimit(10_000)
    custom = {}
    if options.flavour == "tf_keras" and options.one.startswith("ConvNeXt"):
        # Keras' own class, which it does not find by itself in a file.
        home = importlib.import_module("tf_keras.src.applications.convnext")
        custom["LayerScale"] = home.LayerScale
    file, arrays = options.reload
    given = np.load(arrays)
    model = keras.models.load_model(file, custom_objects=custom)
    error = relative(model(given["x"], training=False), given["y"])
    assert "tf_spline_prune" not in sys.modules
    assert error <= 1e-5, f"the outputs differ by {error:.2g}"
    return {"reload_error": error, "reload_with": ", ".join(custom)}


def last_line(text: str) -> str:
    """Return the last line that says anything."""
    return (text.strip().splitlines() or [""])[-1]


def in_own_process(options: argparse.Namespace, name: str) -> Record:
    """Run `--one` for a model; a crash is a failure like any other."""
    command = [sys.executable, __file__, "--one", name, "--flavour", options.flavour]
    command += ["--criterion", options.criterion]
    command += ["--size", str(options.size)] if options.size else []
    command += ["--skip-export"] if options.skip_export else []
    command += ["--approximate"] if options.approximate else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = f"exit code {done.returncode}: {last_line(done.stderr)}"
        found: Record = {"failed": {"process": reason}}
    else:
        found = json.loads(last_line(done.stdout))
    return {**key(options, name), **found}


def key(options: argparse.Namespace, name: str) -> Record:
    """Return what a record is of."""
    return {
        "model": name,
        "flavour": options.flavour,
        "criterion": options.criterion,
        "size": options.size,
        "exported": not options.skip_export,
        "approximate": options.approximate,
    }


# Per column the step that fills it, and the form of its cells.
COLUMNS = {
    "model": ("", "{model}"),
    "layers": ("count", "{layers}"),
    "groups": ("count", "{groups}"),
    "barriers": ("count", "{barriers}"),
    "MACs prunable": ("count", "{prunable:.1%}"),
    "MACs kept": ("cost", "{macs:.2%}"),
    "params kept": ("cost", "{params:.1%}"),
    "plan (s)": ("shrink", "{plan_s:.1f}"),
    "apply (s)": ("shrink", "{apply_s:.1f}"),
    "peak memory": ("shrink", "{peak_mib:,.0f} MiB, {peak_times:.2f}x"),
    "largest error": ("verify", "{double}{error:.1e}"),
    "reload": ("reload", "{reload_error:.1e} {reload_with}"),
    "train": ("train", "{train}"),
    "SavedModel": ("saved_model", "{saved_model:.1e}"),
    "LiteRT": ("litert", "{litert:.1e}"),
    "all (s)": ("", "{seconds:.0f}"),
}


def row(record: Record) -> str:
    """Write a record as a row of the table; a dash is for what was not done."""
    cells = []
    for step, form in COLUMNS.values():
        if step in record["failed"] or (step and "process" in record["failed"]):
            cells.append("FAILED")
        else:
            try:
                cells.append(form.format(**record).strip())
            except KeyError:
                cells.append("-")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flavour", choices=("keras", "tf_keras"), default="keras")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--size", type=int, help="side of the input; default: native")
    parser.add_argument("--criterion", default="magnitude")
    parser.add_argument(
        "--approximate", action="store_true", help="prune through LayerNormalization"
    )
    parser.add_argument("--skip-export", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="append the results here")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what --json says has passed"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reload", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps((load_alone if options.reload else examine)(options)))
        return 0

    if options.resume and not options.json:
        parser.error("--resume needs --json")
    passed = {}
    if options.resume and options.json.exists():
        for line in options.json.read_text().splitlines():
            old = json.loads(line)
            if not old["failed"] and key(options, old["model"]).items() <= old.items():
                passed[old["model"]] = old
    if not (names := options.models):
        things = vars(importlib.import_module(options.flavour).applications)
        names = sorted(n for n, t in things.items() if inspect.isfunction(t))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    failures = []
    for name in names:
        record = passed.get(name) or in_own_process(options, name)
        if options.json and name not in passed:
            with options.json.open("a") as file:
                file.write(json.dumps(record) + "\n")
        print(row(record), flush=True)
        failures += [f"{name}, {step}: {why}" for step, why in record["failed"].items()]
    if failures:
        print("\nFAILED:")
        for failure in failures:
            print(f"- {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
