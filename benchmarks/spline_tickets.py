"""The experiment of the paper: early-bird tickets by the spline, beside the others.

    python benchmarks/spline_tickets.py --preset cpu
    python benchmarks/tables.py              # writes the tables of docs/results.md

Each network is trained once to the end, watched by the detectors, which keep the
network as it is when they fire. From there it is pruned to shares of its MACs, by each
method alike: consumers refitted on 512 images without labels, then trained for the
epochs that are left, on the same schedule of learning rates. Beside these: the network
pruned when it is fully trained, and trained as long once more; the small network
itself, from random weights and from weights that know the data, trained as long.

Total training FLOPs are three forward passes an image and epoch, the search included.
The passes of the detector's probe and of the calibration, some percent of the search,
are not counted.

Every row is stored when it is done, and what is stored is not run again; so two
processes may share the work: `--seeds 0` in one, `--seeds 1` in the other. Results are
written when all rows of the preset are there.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from machine import machine
from nets import NETS

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune._files import atomic_file

# Name: criterion and scope. Network slimming prunes a net that was trained for it.
METHODS = {
    "spline, by layer": ("spline", "layer"),
    "spline, global": ("spline", "global"),
    "spline as in the paper, by layer": (criteria.Spline(mode="paper"), "layer"),
    "spline as in the paper, global": (criteria.Spline(mode="paper"), "global"),
    "reconstruction": ("reconstruction", "auto"),
    "magnitude": ("magnitude", "global"),
    "network slimming": ("batchnorm_scale", "global"),
    "fpgm": ("fpgm", "global"),
    "snip": ("snip", "global"),
    "synflow": ("synflow", "global"),
    "random, same profile": ("random", "layer"),
}
PROFILE = "spline, global"  # whose number of units a layer the controls have
SHARES = (0.7, 0.5, 0.3, 0.2, 0.1)
SLIM = 1e-4
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is run: epochs by network, data, and which methods from where."""

    epochs: dict[str, int]
    methods: tuple[str, ...]
    starts: tuple[str, ...]
    seeds: int
    images: int | None = None
    images_an_epoch: int | None = None
    shares: tuple[float, ...] = SHARES
    scratch: tuple[str, ...] = ("random", "data-aware")
    data: str = "fashion_mnist"


CPU = Preset(
    {"mlp": 40, "vgg11_quarter": 24},
    (
        "spline, by layer",
        "spline, global",
        "spline as in the paper, by layer",
        "spline as in the paper, global",
        "reconstruction",
        "magnitude",
        "network slimming",
        "random, same profile",
    ),
    ("early",),
    seeds=2,
    images=20_000,
    # Half of the images, so that detectors have their looks in so short a training.
    images_an_epoch=10_000,
    scratch=("random",),
)
PRESETS = {
    "cpu": CPU,
    "full": Preset(
        {"vgg11": 160, "vgg16": 160, "preresnet20": 160, "preresnet56": 160}
        | {"mobilenet": 160, "mlp": 160},
        tuple(METHODS),
        ("early", "reinitialized", "full"),
        seeds=3,
    ),
    # What more looks save: the same training, in epochs of half as many images.
    "often": dataclasses.replace(
        CPU,
        epochs={"vgg11_quarter": 48},
        methods=("spline, global", "reconstruction", "random, same profile"),
        seeds=4,
        images_an_epoch=5_000,
        shares=(0.3,),
        scratch=(),
    ),
    "quick": dataclasses.replace(
        CPU,
        epochs={"mlp": 6, "vgg11_quarter": 6},
        seeds=1,
        images=400,
        images_an_epoch=None,
        shares=(0.5,),
        data="optical_digits",
    ),
}


class Turns(keras.utils.PyDataset):
    """Batches of images in random order; an epoch may be a part of all images."""

    def __init__(self, x, y, images_an_epoch, seed):
        super().__init__()
        self.x, self.y = x, y
        self.rng = np.random.default_rng(seed)
        self.batches = -(-(images_an_epoch or len(x)) // BATCH)
        self.left = np.empty(0, int)
        self.on_epoch_end()

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        chosen = self.now[index * BATCH : (index + 1) * BATCH]
        return self.x[chosen], self.y[chosen]

    def on_epoch_end(self):
        size = min(self.batches * BATCH, len(self.x))
        while len(self.left) < size:
            self.left = np.concatenate([self.left, self.rng.permutation(len(self.x))])
        self.now, self.left = np.split(self.left, [size])


def without_penalty(model):
    """Copy a network without the L1 penalty on its scales: its work is done."""

    def rebuilt(layer):
        config = layer.get_config()
        if "gamma_regularizer" in config:
            config["gamma_regularizer"] = None
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuilt)
    copy.set_weights(model.get_weights())
    return copy


class Study:
    """The data, and how every network is made and trained."""

    def __init__(self, name, folder):
        self.preset = PRESETS[name]
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def seeds(self):
        """List the seeds of the preset."""
        return range(self.preset.seeds)

    @functools.cached_property
    def data(self):
        """Return images and labels of training and test; inputs have deviation 1."""
        train, test = (self._whole(split) for split in ("train", "test"))
        train = tuple(part[: self.preset.images] for part in train)
        mean, deviation = train[0].mean(), train[0].std()
        return [((x - mean) / deviation, y) for x, y in (train, test)]

    @property
    def images_an_epoch(self):
        """Count the images of an epoch."""
        return self.preset.images_an_epoch or len(self.data[0][0])

    def _whole(self, split):
        batches = tsp.datasets.load(self.preset.data, split, 10_000, shuffle=False)
        parts = zip(*[(np.asarray(x), np.asarray(y)) for x, y in batches], strict=True)
        x, y = (np.concatenate(part) for part in parts)
        if x.shape[1] == 8:  # the digits, as large as the networks want them
            x = x.repeat(4, axis=1).repeat(4, axis=2)
        return x, y

    def rate(self, net, epoch):
        """A tenth of it from half of the epochs on, a hundredth from 3/4."""
        epochs = self.preset.epochs[net]
        drops = (epoch >= epochs // 2) + (epoch >= epochs * 3 // 4)
        return (0.03 if net == "mlp" else 0.1) * 0.1**drops

    def train(self, model, net, seed, first=0, callbacks=()):
        """Train from epoch `first` to the last; give the seconds that it took."""
        keras.utils.set_random_seed(1000 + seed)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        start = time.perf_counter()
        model.fit(
            Turns(*self.data[0], self.preset.images_an_epoch, 2000 + seed),
            epochs=self.preset.epochs[net],
            initial_epoch=first,
            verbose=0,
            callbacks=[
                keras.callbacks.LearningRateScheduler(
                    lambda epoch, rate: self.rate(net, epoch)
                ),
                *callbacks,
            ],
        )
        return time.perf_counter() - start

    def accuracy(self, model):
        """Return the accuracy on the test images, in percent."""
        x, y = self.data[1]
        return 100 * float((model.predict(x, 512, verbose=0).argmax(-1) == y).mean())

    def searched(self, net, seed, slim):
        """Train to the end, watched; give what the detectors found.

        The networks are kept in files: as it began, as each detector took it, and as
        it ended.
        """
        folder = self.folder / f"{net}-{seed}{'-slim' if slim else ''}"
        record = folder / "record.json"
        if record.exists():
            return folder, json.loads(record.read_text())
        keras.utils.set_random_seed(seed)
        model = NETS[net](self.data[0][0].shape[1:], SLIM if slim else 0.0)
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / "begin.keras")
        birds = self.birds(slim, folder)
        seconds = self.train(model, net, seed, callbacks=list(birds.values()))
        model.save(folder / "end.keras")
        found = {
            "accuracy": self.accuracy(model),
            "seconds": seconds,
            "tickets": {name: bird.ticket_epoch for name, bird in birds.items()},
            "distances": {
                name: bird.distance_matrix().tolist() for name, bird in birds.items()
            },
        }
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps(found))
        return folder, found

    def birds(self, slim, folder):
        """Make the detectors: the spline's, or a mask's for each fraction."""
        if not slim:
            bird = tsp.SplineEarlyBird(
                self.data[0][0][:1024],
                stop=False,
                filepath=folder / "spline.keras",
                keep_history=True,
            )
            return {"spline": bird}
        # MACs go with the square of the units that are left.
        return {
            str(share): tsp.MaskEarlyBird(
                1 - share**0.5,
                stop=False,
                filepath=folder / f"{share}.keras",
                keep_history=True,
            )
            for share in self.preset.shares
        }

    def begun(self, net, seed, method, start, share):
        """Return the network that is pruned, and for how many epochs it was trained."""
        slim = method == "network slimming"
        folder, found = self.searched(net, seed, slim)
        bird = str(share) if slim else "spline"
        epoch = found["tickets"][bird]
        name, epochs = {
            "early": (bird, epoch),
            "reinitialized": (bird, epoch),
            "full": ("end", None),
            "begin": ("begin", -1),
        }[start]
        if epochs is None:  # nor did a detector that never fired stop anything
            name, epochs = "end", self.preset.epochs[net] - 1
        return keras.models.load_model(folder / f"{name}.keras"), epochs + 1

    def drawn(self, model, method, start, share, seed):
        """Prune a network to a fraction of its MACs, and refit the consumers."""
        images, labels = (part[:512] for part in self.data[0])
        criterion, scope = METHODS[method]
        if start == "begin":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("sgd", loss)
            given = {"data": (images, labels), "granularity": "unit", "seed": seed}
            return tsp.prune_at_init(model, criterion, target_macs=share, **given)
        if method == "random, same profile":
            profile = tsp.plan(model, METHODS[PROFILE][0], target_macs=share)
            budget = {
                "sparsity": {
                    path: len(gone) / profile.units[path][0]
                    for path, gone in profile.removed.items()
                }
            }
        else:
            budget = {"target_macs": share, "scope": scope}
        weights = "reinitialize" if start == "reinitialized" else "inherit"
        given = {"data": images, "seed": seed, "weights": weights}
        small = tsp.prune(model, criterion, **budget, **given)
        if method == "network slimming":
            small = without_penalty(small)
        return small

    def ticket(self, net, seed, method, start, share):
        """Prune, train, and give a row of the table."""
        model, searched = self.begun(net, seed, method, start, share)
        small = self.drawn(model, method, start, share, seed)
        first = searched if start in ("early", "reinitialized") else 0
        return self.row(net, seed, model, small, searched, first)

    def scratch(self, net, seed, start, share):
        """Train the small network itself, from weights of its own."""
        model, _ = self.begun(net, seed, PROFILE, "early", share)
        small = self.drawn(model, PROFILE, "early", share, seed)
        keras.utils.set_random_seed(seed)
        small = keras.models.clone_model(small)
        if start == "data-aware":
            data = tuple(part[:1000] for part in self.data[0])
            small = tsp.initialization.DataAware(data, seed=seed).apply_to(small)
        return self.row(net, seed, model, small, 0, 0)

    def row(self, net, seed, model, small, searched, first):
        """Train a small network from epoch `first`, and say what came of it."""
        epochs, images = self.preset.epochs[net], self.images_an_epoch
        whole, part = (tsp.cost(one) for one in (model, small))
        flops = tsp.training_flops(2 * whole.macs, images, searched)
        flops += tsp.training_flops(2 * part.macs, images, epochs - first)
        dense = tsp.training_flops(2 * whole.macs, images, epochs)
        retrained = dense + tsp.training_flops(2 * part.macs, images, epochs)
        before = self.accuracy(small)
        seconds = self.train(small, net, seed, first) if first < epochs else 0.0
        return {
            "accuracy": self.accuracy(small),
            "before": before,
            "macs": part.macs,
            "params": part.params,
            "kept": part.macs / whole.macs,
            "searched": searched,
            "flops": flops,
            "saving": dense / flops,
            "saving_retrained": retrained / flops,
            "seconds": seconds,
        }

    def dense(self, net, seed):
        """Return the row of the network itself."""
        folder, found = self.searched(net, seed, slim=False)
        cost = tsp.cost(keras.models.load_model(folder / "end.keras"))
        epochs, images = self.preset.epochs[net], self.images_an_epoch
        return {
            "accuracy": found["accuracy"],
            "macs": cost.macs,
            "params": cost.params,
            "ticket_epoch": found["tickets"]["spline"],
            "flops": tsp.training_flops(2 * cost.macs, images, epochs),
            "seconds": found["seconds"],
            "distances": found["distances"]["spline"],
            "rates": [self.rate(net, epoch) for epoch in range(epochs)],
        }

    def step_times(self, net, seed, rounds=40):
        """Time single training steps of dense and pruned networks in turns."""
        model, _ = self.begun(net, seed, PROFILE, "early", self.preset.shares[0])
        nets = {1.0: model} | {
            share: self.drawn(model, PROFILE, "early", share, seed)
            for share in self.preset.shares
        }
        x, y = (part[:BATCH] for part in self.data[0])
        times = {share: [] for share in nets}
        for one in nets.values():
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            one.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
            one.train_on_batch(x, y)
        for _ in range(rounds):
            for share, one in nets.items():
                start = time.perf_counter()
                one.train_on_batch(x, y)
                times[share].append(time.perf_counter() - start)
        medians = {share: statistics.median(found) for share, found in times.items()}
        return {"step": {str(s): t / medians[1.0] for s, t in medians.items()}}

    def jobs(self, nets, seeds):
        """List what there is to do: network, seed, method, start, share."""
        for net in nets:
            for seed in seeds:
                yield net, seed, "dense", "", 1.0
                for share in self.preset.shares:
                    for method in self.preset.methods:
                        if method == "network slimming" and net == "mlp":
                            continue  # nothing scales its units
                        starts = self.preset.starts
                        if method in ("snip", "synflow"):
                            starts = ("begin",)
                        elif method == PROFILE:
                            starts = dict.fromkeys((*starts, "full"))
                        yield from ((net, seed, method, s, share) for s in starts)
                    for start in self.preset.scratch:
                        yield net, seed, "scratch", start, share
                yield net, seed, "step time", "", 1.0

    def done(self, job):
        """Do one job."""
        net, seed, method, start, share = job
        if method == "dense":
            return self.dense(net, seed)
        if method == "step time":
            return self.step_times(net, seed)
        if method == "scratch":
            return self.scratch(net, seed, start, share)
        try:
            return self.ticket(net, seed, method, start, share)
        except tsp.errors.BudgetError as error:
            return {"error": str(error).partition("\n")[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--nets", nargs="+", choices=NETS)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--folder", default="runs/spline_tickets", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="the results, as JSON")
    options = parser.parse_args()
    output = options.output
    if output is None:
        output = pathlib.Path(
            f"benchmarks/results/spline_tickets_{options.preset}.json"
        )
    study = Study(options.preset, options.folder)
    keras.utils.disable_interactive_logging()
    nets = options.nets or list(study.preset.epochs)
    seeds = options.seeds or study.seeds
    rows = study.folder / "rows.jsonl"

    def stored():
        lines = rows.read_text().splitlines() if rows.exists() else []
        return {tuple(row["job"]): row for row in map(json.loads, lines)}

    jobs = list(study.jobs(nets, seeds))
    progress = keras.utils.Progbar(len(jobs), unit_name="row", verbose=1)
    for job in jobs:
        if job not in stored():
            row = {"job": job, **study.done(job)}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            keras.utils.clear_session()
        progress.add(1)
    done, jobs = stored(), list(study.jobs(study.preset.epochs, study.seeds))
    missing = sum(job not in done for job in jobs)
    if missing:
        print(f"\nThe preset has {missing} rows more; nothing is written yet.")
        return
    found = {
        "preset": dataclasses.asdict(study.preset),
        "machine": machine(),
        "rows": [done[job] for job in jobs],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as temporary:
        temporary.write_text(json.dumps(found, indent=1))
    print(f"\nThe results are in {output}")


if __name__ == "__main__":
    main()
