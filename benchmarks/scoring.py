"""What scoring and recovery of a big net cost: seconds, and memory beyond the net.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --only fpgm spline wide

VGG16 with BatchNormalization at 224x224, half of its MACs to go, 256 random images
where data are read; every measurement has a process of its own and one thread.
`wide` is the spline criterion on one Dense layer of 50,000 units. Memory is what
the process holds beyond the built model and the images.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from peak_memory import PeakMemory, each_alone
from plan_apply import MIB, ONE_THREAD, VGG16, vgg_keras

SCORING = ("magnitude", "fpgm", "spline", "activation", "reconstruction")
WHAT = (*SCORING, "wide", "least_squares", "batchnorm")
# Seconds and MiB that are asked for.
GOALS = {"fpgm": (10, 2000), "spline": (10, 2000), "wide": (None, 2048)}
IMAGES = 256


def measure(what: str) -> dict[str, float]:
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
        model = vgg_keras(VGG16, 224, 4096)
        budget = {"target_macs": 0.5}
        if what not in ("magnitude", "fpgm", "spline"):
            rng = np.random.default_rng(0)
            data = rng.standard_normal((IMAGES, 224, 224, 3), "float32")
    criterion = what if what in SCORING else "spline" if what == "wide" else "magnitude"
    if what in ("least_squares", "batchnorm"):
        plan = tsp.plan(model, criterion, **budget)
        small = plan.apply(model)
    with PeakMemory() as memory:
        start = time.perf_counter()
        if what == "least_squares":
            tsp.least_squares(model, small, plan, data)
        elif what == "batchnorm":
            tsp.recalibrate_batchnorm(small, data)
        else:
            tsp.plan(model, criterion, data=data, **budget)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": memory.extra / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--one", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    print("| what | seconds | MiB | goal |\n|---|---|---|---|", flush=True)
    for what, found in each_alone(__file__, options.only, ONE_THREAD):
        seconds, mib = GOALS.get(what, (None, None))
        goal = f"{seconds or '-'} s, {mib} MiB" if mib else ""
        print(
            f"| {what} | {found['seconds']:.1f} | {found['mib']:,.0f} | {goal} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
