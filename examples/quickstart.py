"""The main job: train, see the partition settle, draw the spline ticket, ship it.

    python examples/quickstart.py
    python examples/quickstart.py --dataset fashion_mnist --flavour tf_keras

A small ConvNet is trained until the spline early bird says that the partition of
its input space has settled. The units whose spline is redundant are removed until
half the multiply-accumulates remain, and this ticket is trained for the epochs
that are left. Next to it: the dense net trained in full, and a ticket of the same
size whose units were chosen at random.
"""

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file, check_destination

HERE = pathlib.Path(__file__).parent


def build(K, input_shape, num_classes, widths=(32, 64, 128)):
    """A ConvNet in which every convolution feeds a BatchNormalization and a ReLU."""
    L = K.layers
    x = inputs = K.Input(input_shape, name="image")
    for i, width in enumerate(widths):
        x = L.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        # Statistics that keep pace with epochs of a few dozen steps.
        x = L.BatchNormalization(momentum=0.9, name=f"bn{i}")(x)
        x = L.ReLU(name=f"relu{i}")(x)
        if i:
            x = L.MaxPooling2D(2, name=f"pool{i}")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    return K.Model(inputs, L.Dense(num_classes, name="scores")(x), name="convnet")


class Training:
    """What all three trainings have in common: data, optimiser, schedule."""

    def __init__(self, K, data, epochs, batch_size, train_split, seed):
        self.K, self.epochs, self.seed = K, epochs, seed
        self.load = lambda: tsp.datasets.load(data, train_split, batch_size, seed=seed)
        self.test = tsp.datasets.load(data, "test", 256)
        self.num_images = sum(len(labels) for _, labels in self.load())

    def compile(self, model):
        K = self.K
        model.compile(
            K.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4),
            K.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def rate(self, epoch, _rate=None):
        """0.1, a tenth of it from half of the epochs on, a hundredth from 3/4."""
        return 0.1 * 0.1 ** (
            (epoch >= self.epochs // 2) + (epoch >= self.epochs * 3 // 4)
        )

    def fit(self, name, model, first=0, callbacks=()):
        """Train from epoch `first` to the last one, behind one progress bar."""
        K = self.K
        print(f"\n{name}: epochs {first + 1} to {self.epochs}")
        bar = keras.utils.Progbar(self.epochs - first, unit_name="epoch")
        shown = K.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: bar.update(
                epoch + 1 - first, [(k, logs[k]) for k in ("loss", "accuracy")]
            )
        )
        model.fit(
            self.load(),  # anew: the dense net repeats the search, batch for batch
            epochs=self.epochs,
            initial_epoch=first,
            shuffle=False,  # the data set shuffles itself
            verbose=0,
            callbacks=[K.callbacks.LearningRateScheduler(self.rate), *callbacks, shown],
        )
        return model

    def accuracy(self, model):
        return float(model.evaluate(self.test, verbose=0)[1])


def fresh_folder(asked, stem):
    """The folder for this run's results, which holds nothing yet."""
    if asked:
        folder = pathlib.Path(asked)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            sys.exit(
                f"{folder} already holds something, and two runs do not mix: name a "
                "new folder or leave --output out."
            )
    else:
        taken = [p for p in pathlib.Path("runs").glob(f"{stem}-*")]
        numbers = [int(p.name.rpartition("-")[2]) for p in taken]
        folder = pathlib.Path("runs") / f"{stem}-{max(numbers, default=0) + 1}"
    check_destination(folder / "file")
    return folder


def table(rows):
    """Lay out rows of (name, accuracy, params, MACs, FLOPs, bytes, latency)."""
    head = (
        "",
        "test acc.",
        "params",
        "MACs",
        "train FLOPs",
        ".tflite bytes",
        "latency",
    )
    lines = [head] + [
        (
            name,
            f"{accuracy:.1%}",
            f"{params:,}",
            f"{macs:,}",
            f"{flops:.2e}",
            f"{size:,}",
            f"{latency:.1f} us",
        )
        for name, accuracy, params, macs, flops, size, latency in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="optical_digits", help="a TFDS name")
    parser.add_argument("--train-split", default="train", help="such as train[:20%%]")
    parser.add_argument("--flavour", default="keras", choices=["keras", "tf_keras"])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="a new folder; default: runs/<name>-<number>")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # in order, also into a file
    folder = fresh_folder(options.output, f"{options.dataset}-{options.flavour}")

    K = importlib.import_module(options.flavour)
    info = tsp.datasets.describe(options.dataset)
    work = Training(
        K,
        options.dataset,
        options.epochs,
        options.batch_size,
        options.train_split,
        options.seed,
    )
    probe = tsp.probes.minibatch(
        tsp.datasets.load(options.dataset, options.train_split, 1024, shuffle=False)
    )

    # 1. Train until the partition has settled, at the published settings.
    keras.utils.set_random_seed(options.seed)
    model = work.compile(build(K, info.input_shape, info.num_classes))
    start = model.get_weights()
    bird = tsp.SplineEarlyBird(
        probe, threshold=0.16, lookback=3, filepath=folder / "early_bird.keras"
    )
    work.fit("Searching the ticket", model, callbacks=[bird])
    if bird.ticket_epoch is None:
        searched = options.epochs
        print(
            f"\nThe early bird did not fire in {searched} epochs: pruning at the end."
        )
    else:
        searched = bird.ticket_epoch + 1
        distance = max(bird.records[bird.ticket_epoch])
        print(
            f"\nThe partition has settled: stopped after {searched} epochs, "
            f"{bird.log_name} {distance:.3f} < {bird.threshold}"
        )

    # 2. Draw the ticket: half the multiply-accumulates, twins merged, verified.
    plan = tsp.plan(model, "spline", target_macs=0.5)
    plan.save(folder / "plan.json")
    plan.summary()
    merged = tsp.merge(model, plan)
    shrunk = plan.apply(merged)
    print(
        f"shrunk against masked, relative error: {tsp.verify(merged, shrunk, plan):.1e}"
    )

    # Its consumers are refitted without the pruned units: no labels, no training.
    ticket = tsp.least_squares(model, shrunk, plan, probe[:512])

    # 3. A random ticket: the same number of units a layer, from the same weights.
    rng = np.random.default_rng(options.seed)
    chance = tsp.remove_units(
        model,
        {
            path: rng.choice(plan.units[path][0], len(gone), replace=False)
            for path, gone in plan.removed.items()
        },
    )
    for name, one in (
        ("before pruning", model),
        ("right after pruning", shrunk),
        ("after refitting the consumers, without labels", ticket),
        ("right after removing as many at random", chance),
    ):
        print(f"accuracy {name}: {work.accuracy(work.compile(one)):.1%}")

    # 4. Train both for the epochs that are left, and the dense net in full.
    if searched < options.epochs:
        work.fit("Ticket", ticket, searched)
        work.fit("Random ticket", chance, searched)
    dense = work.compile(build(K, info.input_shape, info.num_classes))
    dense.set_weights(start)
    watcher = tsp.SplineEarlyBird(probe, stop=False, keep_history=True)
    work.fit("Dense net", dense, callbacks=[watcher])

    # 5. Ship the ticket, and compare the three.
    tsp.visualize.plot_distance_matrix(
        watcher.distance_matrix(), bird.ticket_epoch, folder / "distance_map.png"
    )
    tsp.visualize.plot_distance_curve(
        watcher.records,
        bird.threshold,
        bird.ticket_epoch,
        folder / "distance_curve.png",
    )
    print(f"\n{tsp.export_saved_model(ticket, folder / 'served')}")
    print(tsp.export_litert(ticket, folder / "ticket.tflite"))
    report = tsp.report(dense, ticket, plan=plan, data=work.test, bird=watcher)
    report.to_html(folder / "report.html")
    models = {"dense": dense, "spline ticket": ticket, "random ticket": chance}
    contents = {name: tsp.litert.convert(m) for name, m in models.items()}
    runners = [tsp.litert.Runner(content) for content in contents.values()]
    latencies = tsp.litert.interleaved_latencies(*runners)
    full = 2 * tsp.cost(dense).macs
    rows = []
    for (name, one), latency in zip(models.items(), latencies, strict=True):
        cost = tsp.cost(one)
        flops = tsp.training_flops(2 * cost.macs, work.num_images, options.epochs)
        if one is not dense:
            flops = tsp.training_flops(full, work.num_images, searched)
            rest = options.epochs - searched
            flops += tsp.training_flops(2 * cost.macs, work.num_images, rest)
        accuracy = work.accuracy(one)
        size = len(contents[name])
        rows.append((name, accuracy, cost.params, cost.macs, flops, size, latency))
    print(f"\n{table(rows)}")
    keys = ("name", "accuracy", "params", "macs", "flops", "tflite_bytes", "latency_us")
    with atomic_file(folder / "table.json") as file:
        file.write_text(
            json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1)
        )

    # 6. Load both files in a fresh process that does not know this package.
    images, _ = next(iter(work.test))
    images = np.asarray(images)
    with atomic_file(folder / "predictions.npz") as file:
        np.savez(file, images=images, scores=np.asarray(ticket(images, training=False)))
    print()
    subprocess.run(
        [sys.executable, str(HERE / "check_exports.py"), str(folder)], check=True
    )
    print(f"\nEverything is in {folder}")


if __name__ == "__main__":
    main()
