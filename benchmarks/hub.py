"""Shrinks a small model of every backbone class of KerasHub, and tests what comes out.

    python benchmarks/hub.py --json keras_hub.jsonl
    python benchmarks/hub.py --models BertBackbone LlamaBackbone

The models have two layers and random weights; where their inputs are of any length,
they are read at 16 positions. 70 % of the multiply-accumulates are to stay, or of the
parameters where they cannot be counted. "prunable" is the part of these that the groups
take part in, "class" what comes out: the same class, whose methods are those of the
original, or a plain model. Each has a process of its own, which is ended after
`--seconds`. A model *works* if the target is reached, and what comes out agrees with
the masked original, loads from its `.keras` file and trains. It is *refused* if
tf_spline_prune says why it does not, by one of its own errors. Anything else has
*failed*; why is listed below the table, and the exit code is then 1.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from applications import Record, relative, settle
from keras_hub_models import (
    VOCABULARY,
    arranged,
    build,
    class_names,
    input_shapes,
)

TARGET = 0.7
ONE_OF_A_KIND = re.compile(r"\S*/|[_ ]\d+|\d+(,\d+)*")


def first_line(error: BaseException) -> str:
    """Name an error by its type and first line, and the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{pathlib.Path(place.filename).stem}:{place.lineno}"
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__} ({where}): {text}"


def draw(model: Any, shapes: dict[str, Any], seed: int) -> dict[str, Any]:
    """Draw inputs by name: words, masks of ones, normal numbers."""
    rng = np.random.default_rng(seed)
    found = {}
    for entry, sizes in zip(model.inputs, shapes.values(), strict=True):
        shape = (2, *sizes)
        if "mask" in entry.name and "masks" not in entry.name:
            found[entry.name] = np.ones(shape, entry.dtype)
        elif "int" in entry.dtype:
            most = VOCABULARY if "token" in entry.name else 2
            found[entry.name] = rng.integers(0, most, shape).astype(entry.dtype)
        else:
            found[entry.name] = rng.normal(size=shape).astype(entry.dtype)
    return found


def run(model: Any, given: dict[str, Any]) -> list[np.ndarray]:
    """Return all outputs of a model, as arrays."""
    import keras

    outputs = keras.tree.flatten(model(arranged(model, given), training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def examine(name: str, folder: pathlib.Path) -> Record:
    """Shrink one model and run every check on the result."""
    import tf_spline_prune as tsp

    start = time.perf_counter()
    failed: dict[str, str] = {}
    refused: dict[str, str] = {}
    record: Record = {"failed": failed, "refused": refused}
    held: Record = {}

    def step(name: str, function: Callable[[], Record]) -> bool:
        """Run a step; tell whether the next ones can build on it."""
        try:
            record.update(function())
        except Exception as error:
            ours = type(error).__module__.startswith("tf_spline_prune")
            (refused if ours else failed)[name] = first_line(error)
            return False
        return True

    def make() -> Record:
        backbone = build(name)
        settle(backbone)
        held["model"], held["shapes"] = backbone, input_shapes(name, backbone)
        is_open = any(None in entry.shape[1:] for entry in backbone.inputs)
        held["read_at"] = {"input_shapes": held["shapes"]} if is_open else {}
        return {"params": backbone.count_params()}

    def count() -> Record:
        from tf_spline_prune.graph._cost import cost_after

        graph = tsp.ChannelGraph(held["model"], **held["read_at"])
        free = graph.nothing_removed()
        of = "macs" if cost_after(graph, free).macs else "params"
        whole = getattr(cost_after(graph, free), of)
        for group in graph.groups:
            free[group.roots] = True
        fixed = getattr(cost_after(graph, free), of)
        reasons = collections.Counter(
            ONE_OF_A_KIND.sub("", barrier.reason) for barrier in graph.barriers
        )
        return {
            "measure": of,
            "groups": len(graph.groups),
            "barriers": len(graph.barriers),
            "reasons": dict(reasons.most_common()),
            "uncounted": list(graph.uncounted),
            "prunable": 1 - fixed / whole,
        }

    def shrink() -> Record:
        of, model = record["measure"], held["model"]
        target = {f"target_{of}": TARGET}
        plan = tsp.plan(model, "magnitude", **target, **held["read_at"])
        held["plan"], held["small"] = plan, plan.apply(model)
        cost = tsp.cost(held["small"], **held["read_at"])
        kept = getattr(cost, of) / getattr(plan.before, of)
        if not kept <= TARGET:
            raise ValueError(f"{kept:.4f} of the {of} are kept, not {TARGET}")
        same = type(held["small"]) is type(model)
        return {
            "kept": kept,
            "of": "" if of == "macs" else " of the parameters",
            "class": "kept" if same else "plain",
            "plain": dict(plan.plain),
        }

    def verify() -> Record:
        error = tsp.verify(held["model"], held["small"], held["plan"])
        if not error <= 1e-4:
            raise ValueError(f"relative error {error:.2g}, at most 1e-4 expected")
        return {"error": error}

    def save() -> Record:
        given = draw(held["small"], held["shapes"], 1)
        np.savez(folder / "x.npz", **given)
        outputs = run(held["small"], given)
        np.savez(folder / "y.npz", **{str(i): y for i, y in enumerate(outputs)})
        held["small"].save(folder / "small.keras")
        return {"saved": True}

    def train() -> Record:
        import keras
        import tensorflow as tf

        small = held["small"]
        with tf.GradientTape() as tape:
            given = arranged(small, draw(small, held["shapes"], 2))
            outputs = keras.tree.flatten(small(given, training=True))
            floats = [
                y
                for y in outputs
                if "float" in keras.backend.standardize_dtype(y.dtype)
            ]
            loss = sum(tf.reduce_mean(tf.square(y)) for y in floats)
        weights = [w.value for w in small.trainable_weights]
        grads = [g for g in tape.gradient(loss, weights) if g is not None]
        moved = sum(bool(np.any(np.asarray(tf.convert_to_tensor(g)))) for g in grads)
        if not np.isfinite(float(loss)) or not moved:
            raise ValueError(f"the loss is {float(loss)}, {moved} weights move")
        return {"train": f"{moved} of {len(weights)}"}

    if step("build", make):
        if step("trace", count) and step("shrink", shrink):
            step("verify", verify)
            step("save", save)
            step("train", train)
    record["seconds"] = time.perf_counter() - start
    return record


def load_alone(name: str, folder: pathlib.Path) -> Record:
    """Load a model in a process that does not know tf_spline_prune, and compare."""
    import keras

    assert "tf_spline_prune" not in sys.modules
    # A function that KerasHub has not registered; its own classes name it by a word.
    from keras_hub.src.models.clip.clip_layers import quick_gelu

    given = dict(np.load(folder / "x.npz"))
    known = {"quick_gelu": quick_gelu}
    model = keras.models.load_model(folder / "small.keras", known)
    outputs = run(model, given)
    expected = list(np.load(folder / "y.npz").values())
    error = max(relative(*pair) for pair in zip(outputs, expected, strict=True))
    if not error <= 1e-5:
        raise ValueError(f"the outputs differ by {error:.2g}")
    return {"reload": error}


def in_own_process(function: Any, name: str, folder: Any, seconds: int) -> Record:
    """Fork, and give the child its time; one that crashes is a failure like any other.

    Keras and KerasHub are imported before, once for all; nothing has run in them.
    """
    import signal

    file = folder / "record.json"
    file.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        try:
            found = function(name, folder)
        except BaseException as error:
            found = {"failed": {function.__name__: first_line(error)}}
        file.write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not file.exists():
        ended = os.waitstatus_to_exitcode(status)
        reason = f"no end in {seconds} s" if ended == -14 else f"exit code {ended}"
        return {"failed": {"process": reason}}
    return json.loads(file.read_text())


def verdict(record: Record) -> str:
    """Return whether a model works, was refused or has failed."""
    if record["failed"]:
        return "failed"
    return "refused" if record.get("refused") else "works"


# Per column the step that fills it, and the form of its cells.
COLUMNS = {
    "class": ("", "{name}"),
    "": ("", "{verdict}"),
    "groups": ("trace", "{groups}"),
    "barriers": ("trace", "{barriers}"),
    "prunable": ("trace", "{prunable:.0%}"),
    "kept": ("shrink", "{kept:.1%}{of}"),
    "largest error": ("verify", "{error:.0e}"),
    "class ": ("shrink", "{class}"),
    "reload": ("reload", "{reload:.0e}"),
    "train": ("train", "{train}"),
}


def row(record: Record) -> str:
    """Write a record as a row of the table; a dash is for what was not done."""
    cells = []
    for step, form in COLUMNS.values():
        if step in record["failed"] or (step and "process" in record["failed"]):
            cells.append("FAILED")
        elif step in record.get("refused", {}):
            cells.append("refused")
        else:
            try:
                cells.append(form.format(**record).replace("Backbone", ""))
            except KeyError:
                cells.append("-")
    return f"| {' | '.join(cells)} |"


def summary(records: list[Record]) -> str:
    """Count the verdicts, and list all reasons with the classes that they stop."""
    lines = [""]
    for word in ("works", "refused", "failed"):
        lines.append(f"{word}: {sum(r['verdict'] == word for r in records)}")
    for kind in ("failed", "refused"):
        lines += ["", f"{kind.upper()}:"]
        for record in records:
            for step, why in record.get(kind, {}).items():
                lines.append(f"- {record['name']}, {step}: {why}")
    lines += ["", "BARRIERS, by the number of classes that have them:"]
    reasons = collections.Counter(r for one in records for r in one.get("reasons", ()))
    lines += [f"- {count}: {reason}" for reason, count in reasons.most_common(40)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--json", type=pathlib.Path, help="append the results here")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what --json says has been done"
    )
    parser.add_argument("--seconds", type=int, default=180, help="time for one model")
    options = parser.parse_args()
    if options.resume and not options.json:
        parser.error("--resume needs --json")
    import keras_hub  # noqa: F401  # before anything forks

    done = {}
    if options.resume and options.json.exists():
        lines = options.json.read_text().splitlines()
        done = {record["name"]: record for record in map(json.loads, lines)}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    records = []
    for name in options.models or class_names():
        if not (record := done.get(name)):
            with tempfile.TemporaryDirectory() as temporary:
                folder = pathlib.Path(temporary)
                given = folder, options.seconds
                record = {"name": name, **in_own_process(examine, name, *given)}
                if record.get("saved"):
                    loaded = in_own_process(load_alone, name, *given)
                    if "failed" in loaded:
                        record["failed"]["reload"] = [*loaded["failed"].values()][0]
                    else:
                        record.update(loaded)
            record["verdict"] = verdict(record)
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        records.append(record)
        print(row(record), flush=True)
    print(summary(records))
    return int(any(record["verdict"] == "failed" for record in records))


if __name__ == "__main__":
    sys.exit(main())
