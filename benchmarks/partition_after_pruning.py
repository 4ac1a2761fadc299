"""How pruning changes the partition: spline against magnitude against random.

    python benchmarks/partition_after_pruning.py

A small dense and a small convolutional network learn 10,000 images of Fashion-MNIST.
Each loses units, layer by layer alike, by each criterion, without any recovery, and is
then trained for some epochs more. On exact slices between three test images of
different classes: how many regions are left, how long the decision boundary is, and on
which fraction of the plane the answer is the same; around test images: how many knots
lie near. All are compared with the whole network, trained as long. A picture of each
network shows a slice whole, and with half of the units.
"""

import argparse
import itertools
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from machine import machine

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file

L = keras.layers
CRITERIA = ("spline", "magnitude", "random")
SHARES = (0.75, 0.5, 0.25)  # of the units that stay
EPOCHS, MORE = 6, 3
EXTENT = (-0.3, 1.3)
POINTS = 64  # a side, at which answers on a plane are compared


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
        """Return numbers, the first of three slices, and the answers on all three."""
        x, y = self.test
        rng = np.random.default_rng(seed)
        slices, planes = [], []
        for _ in range(3):
            classes = rng.choice(10, 3, replace=False)
            anchors = [x[rng.choice(np.flatnonzero(y == c))] for c in classes]
            slices.append(tsp.slice2d(model, np.array(anchors), EXTENT))
            planes.append(on_plane(*anchors))
        ends = [s.boundary[:, 1] - s.boundary[:, 0] for s in slices]
        lengths = [np.linalg.norm(one, axis=1).sum() for one in ends]
        near = tsp.local_complexity(model, x[:200], radius=1.0, seed=seed)
        right = answers(model, x) == y
        numbers = {
            "accuracy": 100 * float(right.mean()),
            "regions": float(np.mean([s.num_regions for s in slices])),
            "boundary": float(np.mean(lengths)),
            "knots": float(sum(near.values()).mean()),
        }
        return numbers, slices[0], answers(model, np.concatenate(planes))

    def runs(self, name, seed):
        """Measure the whole network, and each that pruning makes of it.

        Each is measured as it is, and once it has been trained on: the whole one too,
        for what is trained longer is another network.
        """
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((28, 28, 1)), *NETS[name](), L.Dense(10)]
        model = keras.Sequential(layers)
        self.fit(model, EPOCHS, seed)
        whole = {}
        for criterion, share in [("whole", 1.0), *itertools.product(CRITERIA, SHARES)]:
            if criterion == "whole":
                small = keras.models.clone_model(model)
                small.set_weights(model.get_weights())
            else:
                given = {"sparsity": 1 - share, "scope": "layer", "seed": seed}
                small = tsp.prune(model, criterion, recover=None, **given)
            for when, epochs in (("as it is", 0), ("trained on", MORE)):
                if epochs:
                    self.fit(small, epochs, seed)
                numbers, first, there = self.measured(small, seed)
                whole.setdefault(when, there)
                numbers["same"] = 100 * float((there == whole[when]).mean())
                yield criterion, share, when, numbers, first


def answers(model, x):
    """Return the classes that a network answers."""
    return model.predict(x, 1000, verbose=0).argmax(axis=-1)


def on_plane(a, b, c):
    """Return the inputs on a grid of the plane between three, as `slice2d` spans it."""
    side = np.linspace(*EXTENT, POINTS)
    u, v = (w.reshape(-1, *[1] * a.ndim) for w in np.meshgrid(side, side))
    return (a + u * (b - a) + v * (c - a)).astype(a.dtype)


def draw(slices, path):
    """Draw the whole network's slice, and those of what each criterion left."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(14, 7), layout="constrained")
    for row, when in zip(axes, ("as it is", "trained on"), strict=True):
        names = {f"{c}, {when}": slices[c, when] for c in ("whole", *CRITERIA)}
        tsp.visualize.plot_slices(names, axes=row, fill="class")
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
    count = len(options.nets) * options.seeds * 2 * (1 + len(CRITERIA) * len(SHARES))
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
                draw(slices, options.pictures / f"partition_{net}.png")
            keras.utils.clear_session()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.output) as temporary:
        temporary.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print(f"\nThe results are in {options.output}")


if __name__ == "__main__":
    main()
