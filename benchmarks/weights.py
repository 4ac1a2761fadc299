"""Single weights masked after training, as they are and solved: accuracy in a table.

    python benchmarks/weights.py --json weights.jsonl
    python benchmarks/weights.py --nets mlp --sparsities 0.8

The three nets of `criteria_nets.py`, trained once on Fashion-MNIST and kept in
`runs/criteria`. Every kernel is masked, the first and the last too, by `prune_once` on
256 training images without their labels; nothing is trained. Cells are percent of the
test images that are answered rightly: the mask as it is -> with what it keeps solved,
and in brackets how long the latter took, in forward passes of the dense net over the
256 images, timed in the same process right before and after.
"""

import argparse
import pathlib
import time

import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp

SETTINGS = {
    "magnitude": ("magnitude", "layer"),
    "magnitude, global": ("magnitude", "global"),
    "lamp, global": ("lamp", "global"),
    "wanda, by output": ("wanda", "output"),
    "wanda": ("wanda", "global"),
    "sparsegpt, by layer": ("sparsegpt", "layer"),
    "sparsegpt": ("sparsegpt", "global"),
    "obs, by layer": ("obs", "layer"),
    "obs": ("obs", "global"),
}
# For a pattern every layer loses the same, whatever the scope.
OF_PATTERNS = ("magnitude", "wanda, by output", "sparsegpt, by layer", "obs, by layer")
SPARSITIES = ("0.5", "0.7", "0.8", "0.9", "2:4")


def forward(model, x):
    """Return the seconds of one pass over the images, 32 at a time."""
    start = time.perf_counter()
    for first in range(0, len(x), 32):
        np.asarray(model(x[first : first + 32], training=False))
    return time.perf_counter() - start


def measure(model, name, sparsity, x, test):
    """Return the accuracies of one cell, and the time in forward passes."""
    criterion, scope = SETTINGS[name]
    how = {"scope": scope, "data": x}
    if ":" in sparsity:
        how["granularity"] = sparsity
    amount = 0.5 if ":" in sparsity else float(sparsity)
    plain = tsp.prune_once(model, amount, criterion, recover=None, **how)
    passes = [forward(model, x) for _ in range(3)]
    start = time.perf_counter()
    solved = tsp.prune_once(model, amount, criterion, recover="least_squares", **how)
    seconds = time.perf_counter() - start
    passes += [forward(model, x) for _ in range(3)]
    return {
        "plain": criteria_nets.accuracy(plain, *test),
        "solved": criteria_nets.accuracy(solved, *test),
        "zeros": tsp.weight_sparsity(solved)["total"],
        "seconds": seconds,
        "passes": seconds / float(np.median(passes)),
    }


def cell(records):
    """Write the records of one cell."""
    if not records:
        return "-"
    plain, solved, passes = (
        np.mean([record[which] for record in records])
        for which in ("plain", "solved", "passes")
    )
    return f"{plain:.1f} -> {solved:.1f} ({passes:.0f})"


def table(kind, dense, records, sparsities):
    """Write the table of one net."""
    heads = [s if ":" in s else f"{100 * float(s):.0f} %" for s in sparsities]
    print(f"\n{kind}, {dense:.2f} % dense; zeros:\n")
    print(f"| criterion | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name in SETTINGS:
        mine = [r for r in records if r["net"] == kind and r["setting"] == name]
        cells = [cell([r for r in mine if r["sparsity"] == one]) for one in sparsities]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(criteria_nets.NETS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--sparsities", nargs="+", default=list(SPARSITIES))
    parser.add_argument("--seeds", type=int, default=1, help="of the images drawn")
    parser.add_argument("--images", type=int, default=256, help="for calibration")
    parser.add_argument("--json", type=pathlib.Path, help="keep, and go on from, here")
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = criteria_nets.images("train"), criteria_nets.images("test")
    nets = {kind: criteria_nets.trained(kind, 0) for kind in options.nets}
    dense = {k: criteria_nets.accuracy(model, *test) for k, model in nets.items()}
    keys = [
        {"net": kind, "setting": name, "sparsity": sparsity, "seed": seed}
        for seed in range(options.seeds)
        for sparsity in options.sparsities
        for kind in options.nets
        for name in options.settings
        if ":" not in sparsity or name in OF_PATTERNS
    ]

    def found(key):
        drawn = np.random.default_rng(key["seed"])
        chosen = drawn.choice(len(train[0]), options.images, replace=False)
        asked = key["setting"], key["sparsity"], train[0][chosen], test
        return measure(nets[key["net"]], *asked)

    mine = criteria_nets.recorded(keys, options.images, found, dense, options.json)
    for kind in options.nets:
        table(kind, dense[kind], mine, options.sparsities)


if __name__ == "__main__":
    main()
