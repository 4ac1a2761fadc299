"""What pruning before training costs in accuracy, method by method.

    python benchmarks/at_init.py                  # goes on where it stopped
    python benchmarks/at_init.py --nets mlp --seeds 1

10,000 images of Fashion-MNIST, and all of its test images. Each network is pruned
before training, by each method, at each sparsity, with and without the repairs of its
initial weights, and trained in the same way; beside it the dense network, the dense
network pruned by magnitude after training and trained once more, and random masks of
the same densities. Reported are means and spreads of the test accuracy over seeds.

A second table is of small dense networks: the early-bird ticket, and the same small
network with random weights and with knots placed where the data are.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tables

SPARSITIES = (0.9, 0.95, 0.98)
ROUNDS = {"snip": 1, "snip in 20 rounds": 20, "force in 20 rounds": 20, "synflow": 100}
METHODS = (*ROUNDS, "grasp", "magnitude", "erk", "smart_ratio", "random")
REPAIRS = {"mlp": ("", "isometry", "rescale"), "conv": ("", "isometry")}
REPAIRS["residual"] = REPAIRS["conv"]
EPOCHS = {"mlp": 6, "conv": 4, "residual": 3}
# The shares of the MACs that small networks have.
SMALL = (0.25, 0.1)


def mlp(keras, seed):
    """Seven layers of 100 units with tanh, orthogonal: MLP-7 of the papers."""
    import tf_spline_prune as tsp

    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    for _ in range(6):
        model.add(keras.layers.Dense(100, activation="tanh"))
    model.add(keras.layers.Dense(10))
    start = tsp.initialization.EdgeOfChaos(
        "tanh", 0.0, distribution="orthogonal", seed=seed, weight_std=1.0
    )
    return start.apply_to(model)


def conv(keras, _):
    """Four convolutions with BatchNormalization."""
    L = keras.layers
    x = inputs = keras.Input((28, 28, 1))
    for width, stride in ((16, 2), (16, 1), (32, 2), (32, 1)):
        x = L.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def residual(keras, _):
    """Three pre-activation blocks of two convolutions."""
    L = keras.layers

    def half(x, width, stride=1):
        x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
        return L.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)

    inputs = keras.Input((28, 28, 1))
    x = L.Conv2D(16, 3, 2, padding="same", use_bias=False)(inputs)
    for width, stride in ((16, 1), (32, 2), (32, 1)):
        y = half(half(x, width, stride), width)
        if stride == 2:
            x = L.Conv2D(width, 1, 2, use_bias=False)(x)
        x = L.Add()([x, y])
    x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


NETS = {"mlp": mlp, "conv": conv, "residual": residual}


class Study:
    """The data, and how every network is made and trained."""

    def __init__(self):
        import keras
        import numpy as np

        import tf_spline_prune as tsp

        self.keras = keras

        def whole(split):
            batches = tsp.datasets.load("fashion_mnist", split, 10_000, shuffle=False)
            return tuple(part.numpy() for part in next(iter(batches)))

        self.train, self.test = whole("train[:10000]"), whole("test")
        mean, deviation = self.train[0].mean(), self.train[0].std()
        self.train, self.test = (
            ((x - mean) / deviation, y) for x, y in (self.train, self.test)
        )
        # Ten of each class, as the papers take them.
        labels = self.train[1]
        some = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(10)])
        self.some = self.train[0][some], labels[some]

    def build(self, net, seed):
        self.keras.utils.set_random_seed(seed)
        return self.compiled(NETS[net](self.keras, seed), net)

    def compiled(self, model, net):
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = 0.02 if net == "mlp" else 0.1
        steps = EPOCHS[net] * -(-len(self.train[0]) // 100)
        rates = self.keras.optimizers.schedules.CosineDecay(rate, steps)
        optimizer = self.keras.optimizers.SGD(rates, momentum=0.9)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def told(self, model):
        """Return the accuracy on the test images."""
        return float(model.evaluate(*self.test, batch_size=1000, verbose=0)[1])

    def accuracy(self, model, net, seed, **options):
        """Train, and return the accuracy on the test images."""
        self.keras.utils.set_random_seed(100 + seed)
        self.compiled(model, net)
        options = {"batch_size": 100, "epochs": EPOCHS[net], "verbose": 0, **options}
        model.fit(*self.train, **options)
        return self.told(model)

    def dense(self, net, seed, sparsities):
        """Train whole; then take weights by magnitude, and train once more."""
        import tf_spline_prune as tsp

        model = self.build(net, seed)
        yield "dense", "", 0.0, self.accuracy(model, net, seed)
        for sparsity in sparsities:
            masked = tsp.prune_once(model, sparsity, scope="global")
            found = self.accuracy(masked, net, seed)
            yield "magnitude after training", "", sparsity, found

    def sparse(self, net, seed, method, sparsity):
        """Prune before training; train with each repair, and as a random mask."""
        import tf_spline_prune as tsp

        model = self.build(net, seed)
        masked = tsp.prune_at_init(
            model,
            method.split()[0],
            sparsity,
            data=self.some,
            rounds=ROUNDS.get(method),
            empty_layers="allow",
            seed=seed,
        )
        nets = {method: masked}
        if method == "snip":
            nets["random, densities of snip"] = tsp.initialization.controls(
                masked, model, seed
            )["shuffled"]
        for (name, kept), repair in itertools.product(nets.items(), REPAIRS[net]):
            started = repaired(kept, repair)
            yield name, repair, sparsity, self.accuracy(started, net, seed)

    def small(self, net, seed, share):
        """Train a small network from its early-bird ticket, by chance and by the data.

        Yields:
            What it started from, its accuracy before training and after.
        """
        import tf_spline_prune as tsp

        model = self.build(net, seed)
        bird = tsp.SplineEarlyBird(probe=self.train[0][:1024], verbose=0)
        self.accuracy(model, net, seed, callbacks=[bird])
        ticket = tsp.prune(model, target_macs=share, data=self.train[0][:512])
        self.keras.utils.set_random_seed(seed)
        chance = self.keras.models.clone_model(ticket)
        data = tuple(part[:1000] for part in self.train)
        placed = tsp.initialization.DataAware(data, seed=seed).apply_to(chance)
        nets = {"ticket": ticket, "random": chance, "data-aware": placed}
        for name, start in nets.items():
            before = self.told(self.compiled(start, net))
            yield name, before, self.accuracy(start, net, seed)


def repaired(masked, repair):
    """Repair the initial weights that a mask has left."""
    from tf_spline_prune import initialization

    if repair == "isometry":
        return initialization.approximate_isometry(masked)
    if repair == "rescale":
        return initialization.rescale(masked, weight_std=1.0)
    import tf_spline_prune as tsp

    # Each training starts from the same weights, so from a copy.
    return tsp.wrap_with_masks(masked)


def stored(path):
    with contextlib.suppress(FileNotFoundError):
        return json.loads(pathlib.Path(path).read_text())
    return []


def measured(study, sparsities, net, seed, method, share):
    """Do one job; give its runs, as they are stored."""
    job = {"net": net, "seed": seed}
    if method == "small":
        for name, before, after in study.small(net, seed, share):
            found = {"kind": "small", "share": share, "method": name}
            yield {**job, **found, "before": before, "accuracy": after}
        return
    found = (
        study.dense(net, seed, sparsities)
        if method == "dense"
        else study.sparse(net, seed, method, share)
    )
    for name, repair, sparsity, accuracy in found:
        run = {"kind": "sparse", "method": name, "repair": repair}
        yield {**job, **run, "sparsity": sparsity, "accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="benchmarks/results/at_init.json")
    options = parser.parse_args()
    import keras

    from tf_spline_prune._files import atomic_file

    study, runs = Study(), stored(options.output)
    kinds = [
        ("dense", None),
        *(("small", share) for share in SMALL),
        *itertools.product(options.methods, options.sparsities),
    ]
    jobs = [
        (net, seed, *kind)
        for seed in range(options.seeds)
        for net, kind in itertools.product(options.nets, kinds)
    ]
    bar = keras.utils.Progbar(len(jobs), unit_name="job")
    done = {tuple(run["job"]) for run in runs}
    for job in jobs:
        if job not in done:
            found = list(measured(study, options.sparsities, *job))
            runs += [{**run, "job": job} for run in found]
            with atomic_file(options.output) as temporary:
                lines = ",\n".join(map(json.dumps, runs))
                temporary.write_text(f"[\n{lines}\n]\n")
            keras.utils.clear_session()
        bar.add(1)
    print("\n".join(tables.at_init(runs)))


if __name__ == "__main__":
    main()
