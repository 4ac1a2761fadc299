"""How fast shrunk models are: LiteRT, one image at a time, in turns.

    python benchmarks/latency.py
    python benchmarks/latency.py --models ResNet50 --threads 1 --quantize int8

Each model at all, at a half and at a quarter of its multiply-accumulates. All sizes
of a model run in turns in one process, in random order, so that a slow second hits
all alike; reported are medians, and the median of the ratios of single turns to the
whole model. The weights are random: what is measured hangs on shapes alone.
"""

import argparse
import json
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHARES = (1.0, 0.5, 0.25)
GOAL = 1.15  # of the ratio of MACs, for ResNet50
INPUTS = {"ResNet50": 224, "MobileNetV2": 224}
NAMES = (*INPUTS, "quickstart")


def built(name):
    """Build a model with random weights."""
    import keras

    keras.utils.set_random_seed(0)
    if name in INPUTS:
        size = (INPUTS[name], INPUTS[name], 3)
        return getattr(keras.applications, name)(weights=None, input_shape=size)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (32, 64, 128):
        model.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    return model


def files(name, options):
    """Convert a model at each size: MACs and bytes by fraction kept."""
    import numpy as np

    import tf_spline_prune as tsp

    model = built(name)
    found = {}
    for share in SHARES:
        small = model
        if share < 1:
            small = tsp.prune(
                model,
                "magnitude",
                target_macs=share,
                scope=options.scope,
                round_to=options.round_to,
                recover=None,
            )
        settings = {}
        if options.quantize:
            settings["quantize"] = options.quantize
        if options.quantize == "int8":
            shape = (100, *model.input_shape[1:])
            x = np.random.default_rng(0).standard_normal(shape).astype("float32")
            settings["representative_data"] = x
        content = tsp.litert.convert(small, **settings)
        found[share] = (tsp.cost(small).macs, content)
    return found


def measure(contents, threads, seconds):
    """Run models in turns; give the microseconds of each turn."""
    import numpy as np

    from tf_spline_prune.litert import Runner

    rng = np.random.default_rng(0)
    runners = {key: Runner(c, num_threads=threads) for key, c in contents.items()}
    times = {key: [] for key in runners}
    start = time.monotonic()
    while len(times[1.0]) < 15 or time.monotonic() - start < seconds:
        for key in rng.permutation(list(runners)):
            runs = 20 if len(contents[key]) < 1e6 else 1
            times[key].append(runners[key].measure_latency(runs=runs, warmup=1))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--quantize", choices=("float16", "dynamic", "int8"))
    parser.add_argument("--scope", default="layer")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30, help="a row of sizes")
    parser.add_argument("--json", metavar="PATH", help="write all single turns")
    options = parser.parse_args()
    stored, missed = [], 0
    print("| model | threads | MACs kept | .tflite bytes | ms | of whole | to MACs |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        made = files(name, options)
        contents = {share: content for share, (_, content) in made.items()}
        whole = made[1.0][0]
        for threads in options.threads:
            times = measure(contents, threads, options.seconds)
            for share, (macs, content) in made.items():
                pairs = zip(times[share], times[1.0], strict=True)
                ratio = statistics.median(a / b for a, b in pairs)
                kept = macs / whole
                missed += name == "ResNet50" and ratio > GOAL * kept and share < 1
                print(
                    f"| {name} | {threads} | {kept:.1%} | {len(content):,} "
                    f"| {statistics.median(times[share]) / 1e3:.3f} | {ratio:.3f} "
                    f"| {ratio / kept:.2f} |",
                    flush=True,
                )
            row = {"model": name, "threads": threads, "microseconds": times}
            stored.append(row)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(stored, file)
    if "ResNet50" in options.models:
        print(f"\nResNet50: {missed} ratios above {GOAL} times that of the MACs.")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
