"""How pruning changes the partition: spline against magnitude against random.

    python benchmarks/partition_after_pruning.py

A small dense and a small convolutional network learn 10,000 images of Fashion-MNIST.
Each loses units, layer by layer alike, by each criterion, without any recovery, and is
then trained for some epochs more. On exact slices between three test images of
different classes: how many regions are left, and how long the decision boundary is;
around test images: how many knots lie near. All are shares of the whole network's.
A picture of each network shows a slice whole, and with half of the units.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from machine import machine

import tf_spline_prune as tsp
from tf_spline_prune.files import atomic_file

L = keras.layers
CRITERIA = ("spline", "magnitude", "random")
SHARES = (0.75, 0.5, 0.25)  # of the units that stay
EPOCHS, MORE = 6, 3
EXTENT = (-0.3, 1.3)


def dense():
    return [
        L.Flatten(),
        L.Dense(64, activation="relu"),
        L.Dense(32, activation="relu"),
    ]


def conv():
    return [
        L.Conv2D(8, 5, 4, padding="same", activation="relu"),
        L.Conv2D(16, 3, 2, padding="same", activation="relu"),
        L.Flatten(),
        L.Dense(32, activation="relu"),
    ]


NETS = {"dense": dense, "conv": conv}


def images(split):
    batches = tsp.datasets.load("fashion_mnist", split, 10_000, shuffle=False)
    return tuple(np.asarray(part) for part in next(iter(batches)))


class Study:
    """Data, training, and what is measured."""

    def __init__(self):
        self.train, self.test = images("train[:10000]"), images("test")

    def fit(self, model, epochs, seed):
        keras.utils.set_random_seed(seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.002), loss)
        model.fit(*self.train, batch_size=64, epochs=epochs, verbose=0)

    def measured(self, model, seed):
        """Give accuracy, regions and boundary of three slices, knots near images."""
        x, y = self.test
        rng = np.random.default_rng(seed)
        slices = []
        for _ in range(3):
            classes = rng.choice(10, 3, replace=False)
            anchors = [x[rng.choice(np.flatnonzero(y == c))] for c in classes]
            slices.append(tsp.slice2d(model, np.array(anchors), EXTENT))
        ends = [s.boundary[:, 1] - s.boundary[:, 0] for s in slices]
        lengths = [np.linalg.norm(one, axis=1).sum() for one in ends]
        near = tsp.local_complexity(model, x[:200], radius=1.0, seed=seed)
        answers = model.predict(x, 1000, verbose=0).argmax(axis=-1)
        numbers = {
            "accuracy": 100 * float((answers == y).mean()),
            "regions": float(np.mean([s.num_regions for s in slices])),
            "boundary": float(np.mean(lengths)),
            "knots": float(sum(near.values()).mean()),
        }
        return numbers, slices[0]

    def runs(self, name, seed):
        """Measure the whole network, and each that pruning makes of it."""
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((28, 28, 1)), *NETS[name](), L.Dense(10)]
        model = keras.Sequential(layers)
        self.fit(model, EPOCHS, seed)
        yield "whole", 1.0, "", *self.measured(model, seed)
        for criterion in CRITERIA:
            for share in SHARES:
                given = {"sparsity": 1 - share, "scope": "layer", "seed": seed}
                small = tsp.prune(model, criterion, recover=None, **given)
                yield criterion, share, "as it is", *self.measured(small, seed)
                self.fit(small, MORE, seed)
                yield criterion, share, "trained on", *self.measured(small, seed)


def draw(net, slices, path):
    """Draw the whole network's slice, and those of what each criterion left."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(14, 7), layout="constrained")
    whole = slices.pop(("whole", ""))
    for row, when in zip(axes, ("as it is", "trained on"), strict=True):
        names = {f"{c}, {when}": slices[c, when] for c in CRITERIA}
        tsp.visualize.plot_slices({net: whole, **names}, axes=row, fill="class")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--output",
        default="benchmarks/results/partition_after_pruning.json",
        type=pathlib.Path,
    )
    parser.add_argument("--pictures", default="docs/images", type=pathlib.Path)
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    study, rows = Study(), []
    count = len(options.nets) * options.seeds * (1 + 2 * len(CRITERIA) * len(SHARES))
    progress = keras.utils.Progbar(count, unit_name="network", verbose=1)
    for net in options.nets:
        for seed in range(options.seeds):
            slices = {}
            for criterion, share, when, found, s in study.runs(net, seed):
                key = {"net": net, "seed": seed, "criterion": criterion}
                rows.append({**key, "kept": share, "when": when, **found})
                if share in (1.0, 0.5):
                    slices[criterion, when] = s
                progress.add(1)
            if not seed:
                draw(net, slices, options.pictures / f"partition_{net}.png")
            keras.utils.clear_session()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.output) as temporary:
        temporary.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print(f"\nThe results are in {options.output}")


if __name__ == "__main__":
    main()
