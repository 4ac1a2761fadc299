"""What pruning before training costs in accuracy, method by method.

    python benchmarks/at_init.py --nets mlp
    python benchmarks/at_init.py --output results.json      # goes on where it stopped

10,000 images of Fashion-MNIST, and all of its test images. Each network is pruned
before training, by each method, at each sparsity, with and without the repairs of its
initial weights, and trained in the same way; beside it the dense network, the dense
network pruned by magnitude after training and trained once more, and random masks of
the same densities. Reported are means and spreads of the test accuracy over seeds.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SPARSITIES = (0.9, 0.95, 0.98)
ROUNDS = {"snip": 1, "snip in 20 rounds": 20, "force in 20 rounds": 20, "synflow": 100}
METHODS = (*ROUNDS, "grasp", "magnitude", "erk", "smart_ratio", "random")
REPAIRS = {"mlp": ("", "isometry", "rescale"), "conv": ("", "isometry")}
REPAIRS["residual"] = REPAIRS["conv"]


def mlp(keras):
    """Seven layers of 100 units with tanh, orthogonal: MLP-7 of the papers."""
    import tf_spline_prune as tsp

    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    for _ in range(6):
        model.add(keras.layers.Dense(100, activation="tanh"))
    model.add(keras.layers.Dense(10))
    start = tsp.initialization.EdgeOfChaos(
        "tanh", 0.0, distribution="orthogonal", seed=0, weight_std=1.0
    )
    return start.apply_to(model)


def conv(keras):
    """Four convolutions with BatchNormalization."""
    L = keras.layers
    x = inputs = keras.Input((28, 28, 1))
    for width, stride in ((32, 1), (32, 2), (64, 1), (64, 2)):
        x = L.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def residual(keras):
    """Six pre-activation blocks of two convolutions."""
    L = keras.layers

    def half(x, width, stride=1):
        x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
        return L.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)

    inputs = keras.Input((28, 28, 1))
    x = L.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    for width, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        y = half(half(x, width, stride), width)
        if stride == 2:
            x = L.Conv2D(width, 1, 2, use_bias=False)(x)
        x = L.Add()([x, y])
    x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


NETS = {"mlp": mlp, "conv": conv, "residual": residual}


class Study:
    """The data, and how every network is made and trained."""

    def __init__(self, epochs):
        import keras
        import numpy as np

        import tf_spline_prune as tsp

        self.keras, self.epochs = keras, epochs

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
        return self.compiled(NETS[net](self.keras), net)

    def compiled(self, model, net):
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = 0.02 if net == "mlp" else 0.1
        steps = self.epochs * -(-len(self.train[0]) // 100)
        rates = self.keras.optimizers.schedules.CosineDecay(rate, steps)
        optimizer = self.keras.optimizers.SGD(rates, momentum=0.9)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def accuracy(self, model, net, seed):
        """Train, and give the share of test images that are told right."""
        self.keras.utils.set_random_seed(100 + seed)
        self.compiled(model, net)
        model.fit(*self.train, batch_size=100, epochs=self.epochs, verbose=0)
        return float(model.evaluate(*self.test, batch_size=1000, verbose=0)[1])

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


def table(runs):
    """Print means and spreads, a row a method and repair."""
    for net in dict.fromkeys(run["net"] for run in runs):
        found = {}
        for run in runs:
            if run["net"] == net:
                key = run["method"], run["repair"]
                found.setdefault(key, {}).setdefault(run["sparsity"], []).append(
                    run["accuracy"]
                )
        shares = sorted({run["sparsity"] for run in runs if run["sparsity"]})
        print(
            f"\n{net}\n\n| method | repair |" + "".join(f" {s:.0%} |" for s in shares)
        )
        print("|---|---|" + "---|" * len(shares))
        for (method, repair), by_share in found.items():
            cells = [
                cell(by_share.get(share) or by_share.get(0.0, [])) for share in shares
            ]
            print(f"| {method} | {repair} | {' | '.join(cells)} |")


def cell(values):
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if values[1:] else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", default="runs/at_init.json")
    options = parser.parse_args()
    import keras

    from tf_spline_prune.files import atomic_file

    study, runs = Study(options.epochs), stored(options.output)
    jobs = [
        (net, seed, method, sparsity)
        for net, seed in itertools.product(options.nets, range(options.seeds))
        for method, sparsity in [
            (None, None),
            *itertools.product(options.methods, options.sparsities),
        ]
    ]
    bar = keras.utils.Progbar(len(jobs), unit_name="job")
    done = {tuple(run["job"]) for run in runs}
    for job in jobs:
        if job not in done:
            net, seed, method, sparsity = job
            found = (
                study.dense(net, seed, options.sparsities)
                if method is None
                else study.sparse(net, seed, method, sparsity)
            )
            for name, repair, share, accuracy in list(found):
                run = {"net": net, "seed": seed, "method": name, "repair": repair}
                runs.append(
                    {**run, "sparsity": share, "accuracy": accuracy, "job": job}
                )
            with atomic_file(options.output) as temporary:
                temporary.write_text(json.dumps(runs, indent=1))
            keras.utils.clear_session()
        bar.add(1)
    table(runs)


if __name__ == "__main__":
    main()
