"""What scoring and recovery of a big net cost: seconds, and memory beyond the net.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --only fpgm spline wide
    python benchmarks/scoring.py --only prune --net ResNet50

VGG16 with BatchNormalization at 224x224, half of its MACs to go, 256 random images
where data are read; every measurement has a process of its own and one thread.
Seconds are those of the processor, so that other work on the machine counts little.
`wide` is the spline criterion on one Dense layer of 50,000 units. Memory is what
the process holds beyond the built model and the images. Where data are read, the
time is also given in forward passes of the dense net over the same images, measured
in the same process, before and after.

`prune` is the whole with data: scoring, cutting, verification, recovery.
"""

import argparse
import json
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from peak_memory import PeakMemory, each_alone
from plan_apply import MIB, ONE_THREAD, VGG16, vgg_keras

SCORING = ("magnitude", "fpgm", "spline", "activation", "reconstruction")
WHAT = (*SCORING, "wide", "least_squares", "batchnorm", "prune")
# Seconds, or forward passes, and MiB that are asked for.
GOALS = {
    "fpgm": ("10 s", 2000),
    "spline": ("10 s", 2000),
    "wide": ("-", 2048),
    "prune": ("2.5 passes", 1500),
}
NETS = ("VGG16", "ResNet50", "MobileNetV2")
IMAGES = 256


def build(net: str) -> Any:
    """Build a net for images of 224 pixels, with random weights."""
    import keras

    if net == "VGG16":
        return vgg_keras(VGG16, 224, 4096)
    return getattr(keras.applications, net)(weights=None)


def forward(model: Any, data: Any) -> float:
    """Return the seconds of a forward pass."""
    model.predict(data[:32], batch_size=32, verbose=0)
    start = time.process_time()
    model.predict(data, batch_size=32, verbose=0)
    return time.process_time() - start


def measure(what: str, net: str, images: int) -> dict[str, float]:
    """Measure one thing in this process."""
    import keras
    import numpy as np

    import tf_spline_prune as tsp

    keras.utils.disable_interactive_logging()
    data = None
    if what == "wide":
        L = keras.layers
        model = keras.Sequential(
            [keras.Input((64,)), L.Dense(50_000, "relu"), L.Dense(10)]
        )
        budget = {"sparsity": 0.5}
    else:
        model = build(net)
        budget = {"target_macs": 0.5}
        if what not in ("magnitude", "fpgm", "spline"):
            rng = np.random.default_rng(0)
            data = rng.standard_normal((images, 224, 224, 3), "float32")
    criterion = what if what in SCORING else "spline" if what == "wide" else "magnitude"
    if what in ("least_squares", "batchnorm"):
        plan = tsp.plan(model, criterion, **budget)
        small = plan.apply(model)
    passes = [] if data is None else [forward(model, data)]
    with PeakMemory() as memory:
        start = time.process_time()
        if what == "least_squares":
            tsp.least_squares(model, small, plan, data)
        elif what == "prune":
            tsp.prune(model, data=data, **budget)
        elif what == "batchnorm":
            tsp.recalibrate_batchnorm(small, data)
        else:
            tsp.plan(model, criterion, data=data, **budget)
        seconds = time.process_time() - start
    found = {"seconds": seconds, "mib": memory.extra / MIB}
    if data is not None:
        passes.append(forward(model, data))
        found["passes"] = seconds / (sum(passes) / 2)
        found["pass"] = sum(passes) / 2
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--net", choices=NETS, default=NETS[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--one", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.net, options.images)))
        return
    print(f"{options.net}, {options.images} images\n")
    print("| what | seconds | forward passes | MiB | goal |\n|---|---|---|---|---|")
    more = ["--net", options.net, "--images", str(options.images)]
    for what, found in each_alone(__file__, options.only, ONE_THREAD, more):
        time_goal, memory = GOALS.get(what, ("", None))
        goal = f"{time_goal}, {memory} MiB" if memory else ""
        passes = f"{found['passes']:.2f}" if "passes" in found else ""
        print(
            f"| {what} | {found['seconds']:.1f} | {passes} | {found['mib']:,.0f} "
            f"| {goal} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
