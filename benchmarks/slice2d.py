"""What an exact slice costs: regions a second, and memory beyond the net.

    python benchmarks/slice2d.py
    python benchmarks/slice2d.py --only small large

Random ReLU networks on [-3, 3]^2, and a PreResNet-20 of few filters between three
random images; every measurement has a process of its own and one thread, and the
median of three is printed. A first slice warms the kernels up.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from peak_memory import PeakMemory, each_alone
from plan_apply import MIB, ONE_THREAD

MLPS = {"small": [50] * 3, "large": [100] * 3, "deep": [64] * 7}
WHAT = (*MLPS, "preresnet20")
# Regions a second that are asked for.
GOALS = {"small": 50_000, "large": 50_000}


def mlp(widths):
    import keras

    L = keras.layers
    hidden = [L.Dense(n, "relu", bias_initializer="random_normal") for n in widths]
    return keras.Sequential([keras.Input((2,)), *hidden, L.Dense(1)])


def preresnet(size=16, filters=4, blocks=3):
    import keras

    L = keras.layers
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(filters, 3, padding="same", use_bias=False)(inputs)
    for stage in range(3):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            y = L.ReLU()(L.BatchNormalization()(x))
            if strides > 1 or (not stage and not block):
                x = L.Conv2D(filters << stage, 1, strides, use_bias=False)(y)
            y = L.Conv2D(filters << stage, 3, strides, padding="same", use_bias=False)(
                y
            )
            y = L.ReLU()(L.BatchNormalization()(y))
            y = L.Conv2D(filters << stage, 3, padding="same", use_bias=False)(y)
            x = L.Add()([x, y])
    x = L.ReLU()(L.BatchNormalization()(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def measure(what):
    """Measure one slice in this process."""
    import keras
    import numpy as np

    import tf_spline_prune as tsp

    keras.utils.disable_interactive_logging()
    keras.utils.set_random_seed(0)
    if what in MLPS:
        model, extent = mlp(MLPS[what]), (-3.0, 3.0)
        anchors = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    else:
        model, extent = preresnet(), (0.0, 0.01)
        anchors = np.random.default_rng(0).standard_normal((3, 16, 16, 3))
    tsp.slice2d(model, anchors, (0.0, extent[1] / 30))
    seconds = []
    with PeakMemory() as memory:
        for _ in range(3):
            start = time.perf_counter()
            found = tsp.slice2d(model, anchors, extent)
            seconds.append(time.perf_counter() - start)
    return {
        "regions": found.num_regions,
        "seconds": statistics.median(seconds),
        "mib": memory.extra / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--one", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    print("| net | regions | seconds | regions/s | MiB | goal |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for what, found in each_alone(__file__, options.only, ONE_THREAD):
        goal = f"{GOALS[what]:,}" if what in GOALS else "-"
        print(
            f"| {what} | {found['regions']:,} | {found['seconds']:.2f} | "
            f"{found['regions'] / found['seconds']:,.0f} | {found['mib']:,.0f} | "
            f"{goal} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
