"""What pruning does to a partition: the toy of the spline papers, in exact slices.

    python examples/toy_partition.py
    python examples/toy_partition.py --criterion reconstruction --output pictures

A 2-20-2 ReLU net learns four quadrants of the plane, the shape of an X. Then 20, 40,
60 and 80 % of its hidden units go, and each smaller net is trained on for a while.
Next to it: the same fraction of single weights, the smallest, masked in the same net.
A unit that goes takes its line away; a weight that goes turns the line parallel to
an axis.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune._files import check_destination

SHARES = (0.2, 0.4, 0.6, 0.8)
# The plane itself: u is x, v is y.
PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


class Toy:
    """The data, and how a net learns them."""

    def __init__(self, quick):
        self.epochs, self.more = (15, 5) if quick else (60, 20)
        self.train, self.test = (
            [part.numpy() for part in next(iter(batches))]
            for batches in (
                tsp.datasets.load("x_quadrants", split, 2000, shuffle=False)
                for split in ("train", "test")
            )
        )

    def fit(self, model, epochs):
        model.compile(
            keras.optimizers.SGD(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(*self.train, epochs=epochs, batch_size=64, verbose=0)
        return model

    def accuracy(self, model):
        points, labels = self.test
        scores = model.predict(points, verbose=0)
        return float(np.mean(scores.argmax(axis=1) == labels))


def build(units):
    return keras.Sequential(
        [
            keras.Input((2,), name="point"),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="scores"),
        ],
        name="toy",
    )


def parallel_lines(model):
    """Count hidden units whose line runs along an axis: one weight of two is zero."""
    kernel = np.asarray(model.get_layer("hidden").kernel)
    return int(np.sum((kernel == 0).sum(axis=0) == 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--criterion", default="spline", help="how units are chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/toy_partition", help="a folder")
    parser.add_argument("--quick", action="store_true", help="train briefly")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    check_destination(folder / "file")

    toy = Toy(options.quick)
    keras.utils.set_random_seed(options.seed)
    print("Training the whole net")
    model = toy.fit(build(20), toy.epochs)
    nets = {"units": {"whole": model}, "weights": {"whole": model}}
    for share in SHARES:
        print(f"Training on without {share:.0%} of the units, and of the weights")
        name = f"without {share:.0%}"
        small = tsp.prune(model, options.criterion, sparsity=share, data=toy.train[0])
        nets["units"][name] = toy.fit(small, toy.more)
        masked = tsp.prune_once(model, share, layers="hidden")
        nets["weights"][name] = tsp.strip_masks(toy.fit(masked, toy.more))

    for kind, kept in nets.items():
        print(f"\n{f'of the {kind}':>14}  units  parallel  regions  test acc.")
        slices = {}
        for name, net in kept.items():
            s = tsp.slice2d(net, PLANE, (-5, 5))
            accuracy = toy.accuracy(net)
            slices[f"{name}, {accuracy:.1%}"] = s
            print(
                f"{name:>14}  {net.get_layer('hidden').units:>5}  "
                f"{parallel_lines(net):>8}  {s.num_regions:>7}  {accuracy:>9.1%}"
            )
        tsp.visualize.plot_slices(slices, folder / f"{kind}.png")
    print(f"\nThe pictures are in {folder}")


if __name__ == "__main__":
    main()
