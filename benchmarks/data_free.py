"""What refitting without data gives back, beside 256 real images.

    python benchmarks/data_free.py --json data_free.jsonl

The nets of `criteria.py` that have BatchNormalization, pruned to a fraction of their
MACs by criteria that read no data, and never trained again. Cells are the accuracy in
percent on the test images: as it is -> refitted without data -> refitted on 256
training images, the mean over the seeds; in brackets the standard deviation of the
second. A seed draws the inputs, the images, and the units of `random`.
"""

import argparse
import pathlib

import criteria
import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp

REMOVED = (0.3, 0.5, 0.7)
SETTINGS = ("magnitude", "magnitude, by layer", "spline", "spline, by layer", "random")
WAYS = ("plain", "data_free", "real")


def measure(model, key, train, test, count):
    """Return the accuracies of one cell."""
    keras.utils.set_random_seed(key["seed"])
    x, _ = criteria.calibration(*train, key["seed"], count)
    criterion, scope = criteria.SETTINGS[key["setting"]]
    target = {"target_macs": 1 - key["removed"], "scope": scope, "seed": key["seed"]}
    plan = tsp.plan(model, criterion, **target)
    small = plan.apply(tsp.merge(model, plan) if plan.merges else model)
    free = tsp.refit_data_free(model, small, plan, seed=key["seed"])
    real = tsp.least_squares(model, small, plan, x)
    found = zip(WAYS, (small, free, real), strict=True)
    return {way: criteria_nets.accuracy(one, *test) for way, one in found}


def cell(records):
    """Write the records of one cell."""
    found = {way: [record[way] for record in records] for way in WAYS}
    plain, free, real = (np.mean(found[way]) for way in WAYS)
    return f"{plain:.1f} -> {free:.1f} ({np.std(found['data_free']):.1f}) -> {real:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["vgg", "resnet"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=256, help="real ones")
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
        for name in SETTINGS
        for removed in REMOVED
    ]
    records = criteria_nets.recorded(
        keys,
        options.images,
        lambda key: measure(nets[key["net"]], key, train, test, options.images),
        dense,
        options.json,
    )
    heads = " | ".join(f"{100 * removed:.0f} %" for removed in REMOVED)
    for kind in options.nets:
        print(f"\n{kind}, {dense[kind]:.2f} % before pruning; MACs removed:\n")
        print(f"| criterion | {heads} |\n|{'---|' * (len(REMOVED) + 1)}")
        for name in SETTINGS:
            mine = [r for r in records if r["net"] == kind and r["setting"] == name]
            cells = [cell([r for r in mine if r["removed"] == one]) for one in REMOVED]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
