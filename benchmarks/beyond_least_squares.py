"""What least squares leaves: the same images, used to train all weights at once.

    python benchmarks/beyond_least_squares.py --json beyond.jsonl

The nets of `criteria.py`, pruned by `"reconstruction"` and refitted on a few images;
then all kernels learn together what the dense net answers on these images, without
labels: by themselves, and shifted by a pixel and mirrored. Cells are percent of the
dense net's accuracy on the test images, the mean over the seeds: refitted -> trained on
-> trained on with images changed. What training on the very same images does not
give, no recovery from them can be expected to.
"""

import argparse
import pathlib

import criteria
import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp

REMOVED = (0.5, 0.75)
IMAGES = (256, 2048)
COPIES, STEPS, BATCH = 16, 600, 64
WAYS = ("refitted", "trained", "changed")


def changed(x, rng):
    """Mirror half of the images, and shift each by up to a pixel."""
    x = np.where(rng.random((len(x), 1, 1, 1)) < 0.5, x[:, :, ::-1], x)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    size = x.shape[1]
    places = rng.integers(0, 3, (len(x), 2))
    return np.stack(
        [
            one[i : i + size, j : j + size]
            for one, (i, j) in zip(wide, places, strict=True)
        ]
    )


def trained(model, small, x):
    """Return a copy that learnt what the model answers."""
    student = keras.models.clone_model(small)
    student.set_weights(small.get_weights())
    for layer in student.layers:  # whose statistics, of so few images, would be worse
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    epochs = max(1, STEPS * BATCH // len(x))
    steps = epochs * -(-len(x) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    tsp.distill(
        model,
        student,
        x,
        optimizer=keras.optimizers.Adam(rate),
        student_loss_weight=0,
        epochs=epochs,
        batch_size=BATCH,
        verbose=0,
    )
    return student


def measure(model, key, count, train, test):
    """Return the accuracies of one cell."""
    keras.utils.set_random_seed(key["seed"])
    rng = np.random.default_rng(key["seed"])
    x, _ = criteria.calibration(*train, key["seed"], count)
    _, small = criteria.prune(
        model, "reconstruction", key["removed"], (x, None), key["seed"]
    )
    many = np.concatenate([x, *(changed(x, rng) for _ in range(COPIES - 1))])
    models = (small, trained(model, small, x), trained(model, small, many))
    found = zip(WAYS, models, strict=True)
    return {way: criteria_nets.accuracy(one, *test) for way, one in found}


def cell(records):
    """Write the records of one cell."""
    means = [np.mean([100 * r[way] / r["dense"] for r in records]) for way in WAYS]
    return " -> ".join(f"{mean:.1f}" for mean in means)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["resnet"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="keep, and go on from, here")
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = criteria_nets.images("train"), criteria_nets.images("test")
    nets = {kind: criteria_nets.trained(kind, 0) for kind in options.nets}
    dense = {k: criteria_nets.accuracy(model, *test) for k, model in nets.items()}
    keys = [
        {"net": kind, "removed": removed, "seed": seed}
        for seed in range(options.seeds)
        for kind in options.nets
        for removed in REMOVED
    ]
    heads = " | ".join(f"{100 * removed:.0f} %" for removed in REMOVED)
    print(f"\n| net, images | {heads} |\n|{'---|' * (len(REMOVED) + 1)}")
    for count in IMAGES:
        records = criteria_nets.recorded(
            keys,
            count,
            lambda key, count=count: measure(nets[key["net"]], key, count, train, test),
            dense,
            options.json,
        )
        for kind in options.nets:
            mine = [r for r in records if r["net"] == kind]
            cells = [cell([r for r in mine if r["removed"] == one]) for one in REMOVED]
            print(f"| {kind}, {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
