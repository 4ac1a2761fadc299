"""Which criterion, which scope, and what recovery gives back: accuracy in a table.

    python benchmarks/criteria.py --json criteria.jsonl
    python benchmarks/criteria.py --nets mlp --seeds 1

Three nets, trained once on Fashion-MNIST and kept in `runs/criteria`: an MLP, a
VGG-like net and a residual net, both with BatchNormalization. Each is pruned by each
criterion to a fraction of its MACs and never trained again: "as it is", and with
`recover="auto"`. 256 training images serve criteria and recovery; their labels are
read by `taylor` and `fisher` alone. A seed draws other images (and other units for
`random`); the nets are the same. Cells are percent of the test images that are
answered rightly: the mean over the seeds, as it is -> recovered, and the standard
deviation of the latter. The last column is what the calls cost, in seconds of the
processor and in forward passes over the images: the median over the row.
"""

import argparse
import pathlib
import time

import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune import criteria

REMOVED = (0.3, 0.5, 0.7, 0.75, 0.8)
SETTINGS = {
    "reconstruction": ("reconstruction", "global"),
    "reconstruction, 4 rounds": ("reconstruction", "global"),
    "reconstruction, by layer": ("reconstruction", "layer"),
    "reconstruction, by layer, 4 rounds": ("reconstruction", "layer"),
    "spline": ("spline", "global"),
    "spline, by layer": ("spline", "layer"),
    "spline, code": (criteria.Spline(mode="code"), "global"),
    "magnitude": ("magnitude", "global"),
    "magnitude, by layer": ("magnitude", "layer"),
    "magnitude, by region bound": ("magnitude", "regions"),
    "taylor": ("taylor", "global"),
    "fisher": ("fisher", "global"),
    "activation": ("activation", "global"),
    "activation, apoz": (criteria.Activation("apoz"), "global"),
    "fpgm": ("fpgm", "global"),
    "lamp": ("lamp", "global"),
    "batchnorm_scale": ("batchnorm_scale", "global"),
    "random": ("random", "global"),
}


def calibration(x, y, seed, count):
    """Draw training images, and their labels."""
    chosen = np.random.default_rng(seed).choice(len(x), count, replace=False)
    return x[chosen], y[chosen]


def prune(model, name, removed, data, seed):
    """Prune one way; gives the model as it is, and the recovered one."""
    criterion, scope = SETTINGS[name]
    given = {"target_macs": 1 - removed, "scope": scope, "data": data, "seed": seed}
    if name.endswith("rounds"):
        small, plan = tsp.prune_in_rounds(model, criterion, rounds=4, **given)
        return plan.apply(model), small
    plan = tsp.plan(model, criterion, **given)
    base = tsp.merge(model, plan) if plan.merges else model
    small = plan.apply(base)
    return small, tsp.least_squares(model, small, plan, data)


def measure(model, name, removed, train, test, seed, count):
    """Return the accuracies of one cell, or why there are none."""
    keras.utils.set_random_seed(seed)
    data = calibration(*train, seed, count)
    model.predict(data[0], verbose=0)  # which compiles it
    start = time.process_time()
    model.predict(data[0], verbose=0)
    one_pass = time.process_time() - start
    start = time.process_time()
    try:
        plain, recovered = prune(model, name, removed, data, seed)
    except (tsp.errors.BudgetError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}
    seconds = time.process_time() - start
    return {
        "plain": criteria_nets.accuracy(plain, *test),
        "recovered": criteria_nets.accuracy(recovered, *test),
        "seconds": seconds,
        "passes": seconds / one_pass,
    }


def cell(records):
    """Write the records of one cell."""
    found = [record for record in records if "plain" in record]
    if not found:
        return "-"
    plain, recovered = (
        [record[which] for record in found] for which in ("plain", "recovered")
    )
    spread = f" ({np.std(recovered):.1f})" if len(found) > 1 else ""
    return f"{np.mean(plain):.1f} -> {np.mean(recovered):.1f}{spread}"


def cost(records):
    """Write what the cells of a row cost."""
    found = [record for record in records if "plain" in record]
    if not found:
        return "-"
    seconds, passes = (
        np.median([record[which] for record in found])
        for which in ("seconds", "passes")
    )
    return f"{seconds:.1f} s ({passes:.0f})"


def table(kind, dense, records):
    """Write the table of one net."""
    heads = " | ".join(f"{100 * removed:.0f} %" for removed in REMOVED)
    print(f"\n{kind}, {dense:.2f} % before pruning; MACs removed:\n")
    print(f"| criterion | {heads} | cost |\n|{'---|' * (len(REMOVED) + 2)}")
    for name in SETTINGS:
        mine = [r for r in records if r["net"] == kind and r["setting"] == name]
        cells = [cell([r for r in mine if r["removed"] == one]) for one in REMOVED]
        print(f"| {name} | {' | '.join([*cells, cost(mine)])} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(criteria_nets.NETS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=256, help="for calibration")
    parser.add_argument("--json", type=pathlib.Path, help="keep, and go on from, here")
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = criteria_nets.images("train"), criteria_nets.images("test")
    nets = {kind: criteria_nets.trained(kind, 0) for kind in options.nets}
    dense = {k: criteria_nets.accuracy(model, *test) for k, model in nets.items()}
    keys = [
        {"net": kind, "setting": name, "removed": removed, "seed": seed}
        for seed in range(options.seeds)
        for kind in options.nets
        for name in options.settings
        for removed in REMOVED
    ]

    def found(key):
        asked = (key["setting"], key["removed"], train, test, key["seed"])
        return measure(nets[key["net"]], *asked, options.images)

    records = criteria_nets.recorded(keys, options.images, found, dense, options.json)
    for kind in options.nets:
        table(kind, dense[kind], records)


if __name__ == "__main__":
    main()
