"""What planning and applying cost, beside a plain copy and beside Torch-Pruning.

    python benchmarks/plan_apply.py --torch-python path/to/python-with-torch

Everything on one thread, in turns; medians are reported.

copy: `plan` to half of the MACs, which reads the graph, and `apply`; and the whole
`prune`, which verifies too; against `clone_model` and `set_weights` of the same model,
in one process. They take turns, every second round the other way about; the first round
is not counted, so that none pays for what is made at first use; garbage is collected
before each. Counted is processor time, which other work on the machine changes least,
and a ratio is the median of those of the rounds. A copy takes as long in a process that
never prunes; only ratios compare between machines. `--models` names networks of
`keras.applications`, with a size: `ResNet50:64`, and a width: `MobileNetV2:96:0.35`.

vgg: VGG16 with BatchNormalization at 224x224, 30 % of the units to go by their
magnitude, all layers ranked together, against Torch-Pruning. A process for every
measurement; peak memory is what it holds beyond the built model.

large: `plan` and `apply` of large models, a process each.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from operator import truediv
from typing import Any

# A child that runs Torch-Pruning has neither TensorFlow nor this package.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from peak_memory import PeakMemory

THREADS = ("OMP", "MKL", "OPENBLAS")
TF_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
ONE_THREAD = {
    **{f"{n}_NUM_THREADS": "1" for n in THREADS},
    **{n: "1" for n in TF_THREADS},
}
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
COPIED = ("MobileNetV2:96:0.35", "ResNet50:64", "ResNet50")
LARGE = ("NASNetLarge", "EfficientNetV2L")
SPARSITY = 0.3
MIB = 2**20

Result = dict[str, Any]


def vgg_keras(widths: tuple[int, ...], side: int, dense: int) -> Any:
    """VGG with BatchNormalization; a width of 0 is a pooling."""
    import keras

    keras.utils.set_random_seed(0)
    L = keras.layers
    x = inputs = keras.Input((side, side, 3))
    for width in widths:
        if width:
            x = L.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = L.ReLU()(L.BatchNormalization()(x))
        else:
            x = L.MaxPooling2D()(x)
    x = L.Flatten()(x)
    for _ in range(2):
        x = L.Dropout(0.5)(L.Dense(dense, activation="relu")(x))
    return keras.Model(inputs, L.Dense(1000)(x))


def vgg_torch(widths: tuple[int, ...], side: int, dense: int) -> Any:
    """The same in PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[Any] = []
    channels = 3
    for width in widths:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        else:
            layers += [nn.MaxPool2d(2)]
            side //= 2
    features = channels * side * side
    layers += [nn.Flatten(), nn.Linear(features, dense), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(dense, dense), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(dense, 1000)).eval()


def prune_keras(model: Any) -> Any:
    import tf_spline_prune as tsp

    plan = tsp.plan(model, "magnitude", scope="global", sparsity=SPARSITY)
    return plan.apply(model)


def prune_torch(model: Any, side: int) -> Any:
    import torch
    import torch_pruning

    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        torch.zeros(1, 3, side, side),
        importance=torch_pruning.importance.MagnitudeImportance(),
        global_pruning=True,
        pruning_ratio=SPARSITY,
        ignored_layers=[model[-1]],
    )
    pruner.step()
    return model


def measured(function: Callable[[], Any]) -> tuple[Result, Any]:
    """Run once; give seconds and peak memory, and what the function gave."""
    with PeakMemory() as memory:
        start = time.perf_counter()
        found = function()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": memory.extra}, found


def one_vgg_keras() -> Result:
    prune_keras(vgg_keras((8, 0), 8, 8))  # imports what is imported at first use
    model = vgg_keras(VGG16, 224, 4096)
    before = model.count_params()
    result, small = measured(lambda: prune_keras(model))
    return {**result, "params": [before, small.count_params()]}


def one_vgg_torch() -> Result:
    import torch

    torch.set_num_threads(1)

    def count(model: Any) -> int:
        return sum(p.numel() for p in [*model.parameters(), *model.buffers()])

    prune_torch(vgg_torch((8, 0), 8, 8), 8)
    model = vgg_torch(VGG16, 224, 4096)
    before = count(model)
    result, small = measured(lambda: prune_torch(model, 224))
    return {**result, "params": [before, count(small)]}


def one_large(name: str) -> Result:
    import keras

    import tf_spline_prune as tsp

    prune_keras(vgg_keras((8, 0), 8, 8))
    model = getattr(keras.applications, name)(weights=None)
    start = time.perf_counter()
    plan = tsp.plan(model, "magnitude", target_macs=0.5)
    planned = time.perf_counter()
    plan.apply(model)
    end = time.perf_counter()
    return {"plan": planned - start, "apply": end - planned, "seconds": end - start}


def one_copy(name: str, repeats: int) -> Result:
    import keras

    import tf_spline_prune as tsp

    name, *numbers = name.split(":")
    settings: dict[str, Any] = {"weights": None}
    if numbers:
        settings["input_shape"] = (int(numbers[0]), int(numbers[0]), 3)
    if len(numbers) > 1:
        settings["alpha"] = float(numbers[1])
    model = getattr(keras.applications, name)(**settings)
    result: dict[str, list[float]] = {}

    def timed(part: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = function()
        result.setdefault(part, []).append(time.process_time() - start)
        return found

    def shrink() -> Any:
        plan = timed("plan", lambda: tsp.plan(model, "magnitude", target_macs=0.5))
        return timed("apply", lambda: plan.apply(model))

    def prune() -> Any:
        return tsp.prune(model, target_macs=0.5)

    def copy() -> Any:
        keras.models.clone_model(model).set_weights(model.get_weights())

    turns = {"shrink": shrink, "prune": prune, "copy": copy}
    for number in range(repeats + 1):
        for part in list(turns)[:: -1 if number % 2 else 1]:
            gc.collect()
            timed(part, turns[part])
    return {part: times[1:] for part, times in result.items()}  # the first warms up


def child(python: str, *arguments: object) -> Result:
    """Run one measurement in a process of its own, on one thread."""
    done = subprocess.run(
        [python, __file__, "--one", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def has_torch_pruning(python: str) -> bool:
    code = "import torch, torch_pruning"
    command = [python, "-W", "ignore", "-c", code]
    return not subprocess.run(command, capture_output=True).returncode


def in_turns(rounds: int, children: dict[str, tuple[str, ...]]) -> dict[str, Result]:
    """Run every child once a round; give the medians of its numbers."""
    found: dict[str, list[Result]] = {name: [] for name in children}
    for _ in range(rounds):
        for name, arguments in children.items():
            found[name].append(child(*arguments))
    return {
        name: {
            key: value
            if isinstance(value, list)
            else statistics.median(result[key] for result in results)
            for key, value in results[0].items()
        }
        for name, results in found.items()
    }


def goal(text: str, met: bool) -> None:
    print(f"{'met   ' if met else 'MISSED'}  {text}", flush=True)


def copies(options: argparse.Namespace) -> None:
    parts = ("plan", "apply", "shrink", "prune", "copy")
    titles = ("model", "plan", "apply", "both", "prune", "copy", "both", "prune")
    print(
        "\nSeconds of processor time; the last two columns are how many times those of "
        "the copy."
    )
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    ratios = {}
    for name in options.models:
        times = child(sys.executable, "copy", name, options.repeats)
        median = {part: statistics.median(values) for part, values in times.items()}
        ratios[name] = [
            statistics.median(map(truediv, times[part], times["copy"]))
            for part in ("shrink", "prune")
        ]
        cells = [median[part] for part in parts] + ratios[name]
        print(f"| {' | '.join([name, *(f'{c:.2f}' for c in cells)])} |", flush=True)
    for name, (both, whole) in ratios.items():
        goal(f"{name}: plan and apply {both:.2f} of a copy, at most 1.5", both <= 1.5)
        goal(f"{name}: prune {whole:.2f} of a copy, at most 2.5", whole <= 2.5)


def vgg(options: argparse.Namespace) -> None:
    children = {"tf_spline_prune": (sys.executable, "vgg_keras")}
    if has_torch_pruning(options.torch_python):
        children["Torch-Pruning"] = (options.torch_python, "vgg_torch")
    else:
        print(
            f"\nTorch-Pruning is not measured: {options.torch_python} cannot import "
            "torch and torch_pruning. Name one that can with --torch-python."
        )
    found = in_turns(options.rounds, children)
    print("\n| VGG16-BN | seconds | peak memory (MiB) | params before | after |")
    print("|---|---|---|---|---|")
    for name, result in found.items():
        before, after = result["params"]
        print(
            f"| {name} | {result['seconds']:.2f} | {result['bytes'] / MIB:,.0f} | "
            f"{before:,} | {after:,} |"
        )
    if len(found) > 1:
        ours, theirs = found.values()
        print(
            "Torch-Pruning cuts the model in place; Keras has to build a new one, "
            "and keeps the old.\n"
            f"ours / theirs: {ours['seconds'] / theirs['seconds']:.2f} of the time, "
            f"{ours['bytes'] / theirs['bytes']:.2f} of the memory"
        )


def large(options: argparse.Namespace) -> None:
    children = {name: (sys.executable, "large", name) for name in LARGE}
    found = in_turns(options.rounds, children)
    print("\n| model | plan (s) | apply (s) | together (s) |\n|---|---|---|---|")
    for name, result in found.items():
        seconds = [f"{result[key]:.1f}" for key in ("plan", "apply", "seconds")]
        print(f"| {' | '.join([name, *seconds])} |")
    for name, result in found.items():
        seconds = result["seconds"]
        goal(f"{name}: {seconds:.1f} s, less than 30", seconds < 30)


PARTS = {"copy": copies, "vgg": vgg, "large": large}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", default=list(COPIED), help="of copy")
    parser.add_argument("--repeats", type=int, default=5, help="of copy")
    parser.add_argument("--rounds", type=int, default=3, help="of vgg and large")
    parser.add_argument(
        "--torch-python",
        default=sys.executable,
        metavar="PATH",
        help="a Python with torch and torch-pruning; default: the running one",
    )
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        part, *rest = options.one
        found = {
            "copy": lambda: one_copy(rest[0], int(rest[1])),
            "vgg_keras": one_vgg_keras,
            "vgg_torch": one_vgg_torch,
            "large": lambda: one_large(rest[0]),
        }[part]()
        print(json.dumps(found))
        return
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
