"""What masks cost a training step, beside TFMOT's.

    python benchmarks/mask_overhead.py
    python benchmarks/mask_overhead.py --jit

Random 28x28x1 images, batch 128, Adam. One training step of each variant in turn, in
random order, all in one process on one thread. First plain models and ours in Keras 3;
then in tf_keras plain models, TFMOT's wrappers driven by TFMOT, and the same wrappers
driven by `MaskPruning`. Each block of steps has new models: where they lie in memory
makes a difference too. A step is what `fit` does for one: the compiled training
function on an iterator, and the batch hooks of the callback. Reported are ratios of
medians to the plain model of the same Keras: the median over blocks of steps, and the
smallest and largest block. A second plain model shows the noise. On a busy machine
take `--cpu-time`, the processor time of the process: it leaves out the waiting.

held: masks at 80 %, nothing fires any more. every step: the schedule fires at every
step, and asks for more each time, from 60 to 80 %.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SPARSITY = 0.8
BATCH = 128
WARM_UP = 3
HELD, EACH = 0.03, 0.10  # what ours may cost, beyond the second plain model
SIZES = {"small": (16, 32, 64), "large": (32, 64, 256)}


def one_thread() -> None:
    """Keep TensorFlow and NumPy on one thread; only before they are imported."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    for name in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{name}_THREADS"] = "1"


def cnn(keras: Any, size: str) -> Any:
    """Two convolutions and two Dense layers, of either Keras."""
    first, second, dense = SIZES[size]
    L = keras.layers
    x = inputs = keras.Input((28, 28, 1))
    x = L.MaxPooling2D()(L.Conv2D(first, 3, padding="same", activation="relu")(x))
    x = L.MaxPooling2D()(L.Conv2D(second, 3, padding="same", activation="relu")(x))
    x = L.Dense(dense, activation="relu")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(10)(x))


class Variant:
    """One model in training, a step at a time."""

    def __init__(self, keras: Any, model: Any, callback: Any, batch: Any, jit: bool):
        import tensorflow as tf

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss, jit_compile=jit)
        self.model = model
        self.iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
        self.callback = callback
        if callback is not None:
            callback.set_params({"steps": 1, "epochs": 1, "verbose": 0})
            callback.set_model(model)
            model.make_train_function()
            callback.on_train_begin()
            callback.on_epoch_begin(0)
        else:
            model.make_train_function()

    def step(self) -> None:
        """Train one step, as `fit` does."""
        if self.callback is not None:
            self.callback.on_train_batch_begin(0)
        self.model.train_function(self.iterator)
        if self.callback is not None:
            self.callback.on_train_batch_end(0)

    def sparsity(self) -> float | None:
        """Return the fraction of zeros in the masked weights; `None` without masks."""
        import tf_spline_prune as tsp

        if self.callback is None:
            return None
        return tsp.weight_sparsity(self.model)["total"]


def variants(size: str, jit: bool, steps: int) -> dict[str, dict[str, Variant]]:
    """Make all variants, by Keras and by name.

    Args:
        size: Which model.
        jit: Whether training steps are compiled by XLA.
        steps: Number of steps that each will train.
    """
    import keras
    import numpy as np
    import tf_keras

    import tf_spline_prune as tsp
    from tf_spline_prune.compat import import_tfmot

    tfmot = import_tfmot().sparsity.keras
    rng = np.random.default_rng(0)
    batch = (
        rng.normal(size=(BATCH, 28, 28, 1)).astype("float32"),
        rng.integers(0, 10, BATCH),
    )

    def ramp(frequency: int) -> Any:
        return tsp.schedules.PolynomialDecay(
            SPARSITY - 0.2, SPARSITY, 0, steps, power=1, frequency=frequency
        )

    def ours(flavour: Any, schedule: Any) -> Variant:
        masked = tsp.wrap_with_masks(cnn(flavour, size))
        pruning = tsp.MaskPruning(schedule, below_target="ignore")
        return Variant(flavour, masked, pruning, batch, jit)

    def theirs(frequency: int) -> Variant:
        wrapped = tfmot.prune_low_magnitude(cnn(tf_keras, size), ramp(frequency))
        return Variant(tf_keras, wrapped, tfmot.UpdatePruningStep(), batch, jit)

    def plain(flavour: Any) -> Variant:
        return Variant(flavour, cnn(flavour, size), None, batch, jit)

    held = tsp.schedules.OneShot(SPARSITY, 0)
    return {
        "Keras 3": {
            "plain": plain(keras),
            "plain again": plain(keras),
            "MaskPruning, held": ours(keras, held),
            "MaskPruning, every step": ours(keras, ramp(1)),
        },
        "tf_keras": {
            "plain": plain(tf_keras),
            "plain again": plain(tf_keras),
            "MaskPruning, held": ours(tf_keras, held),
            "MaskPruning, every step": ours(tf_keras, ramp(1)),
            "TFMOT, frequency=100": theirs(100),
            "TFMOT, frequency=1": theirs(1),
        },
    }


def measure(
    made: dict[str, Variant],
    steps: int,
    tick: Callable[[], Any],
    clock: Callable[[], float],
) -> dict[str, float]:
    """Time single steps in random order; give the median seconds."""
    import numpy as np

    rng = np.random.default_rng(0)
    names = list(made)
    times: dict[str, list[float]] = {name: [] for name in names}
    for step in range(WARM_UP + steps):
        for name in rng.permutation(names):
            start = clock()
            made[name].step()
            if step >= WARM_UP:
                times[name].append(clock() - start)
        tick()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def ratios(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Divide the medians of each block by those of the plain model."""
    return [a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)]


def rows(
    found: dict[str, dict[str, list[float]]], made: dict[str, dict[str, Variant]]
) -> Iterator[str]:
    yield "| | variant | ms a step | of plain | blocks | zeros at the end |"
    yield "|---|---|---|---|---|---|"
    for flavour, seconds in found.items():
        for name in seconds:
            shares = ratios(seconds, name)
            zeros = made[flavour][name].sparsity()
            cells = [
                flavour,
                name,
                f"{statistics.median(seconds[name]) * 1e3:.2f}",
                f"{statistics.median(shares):.2f}",
                f"{min(shares):.2f} to {max(shares):.2f}",
                "" if zeros is None else f"{zeros:.1%}",
            ]
            yield f"| {' | '.join(cells)} |"


def goals(found: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    for flavour, seconds in found.items():
        floor = statistics.median(ratios(seconds, "plain again"))
        for name, extra in ("held", HELD), ("every step", EACH):
            cost = statistics.median(ratios(seconds, f"MaskPruning, {name}"))
            met = "met   " if cost <= floor + extra else "MISSED"
            yield (
                f"{met}  {flavour}, {name}: {cost:.3f} of plain, at most "
                f"{floor:.3f} + {extra:.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--jit", action="store_true", help="compile steps by XLA")
    parser.add_argument("--steps", type=int, default=40, help="steps a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--threads", action="store_true", help="not only one thread")
    parser.add_argument("--cpu-time", action="store_true", help="not the wall's")
    parser.add_argument("--json", metavar="PATH", help="write the medians of blocks")
    options = parser.parse_args()
    if not options.threads:
        one_thread()
    clock = time.process_time if options.cpu_time else time.perf_counter
    import keras

    stored = {}
    for size in options.models:
        keras.utils.set_random_seed(0)
        rounds = WARM_UP + options.steps
        verbose = sys.stdout.isatty()
        total = 2 * rounds * options.blocks
        bar = keras.utils.Progbar(total, unit_name="step", verbose=verbose)
        found: dict[str, dict[str, list[float]]] = {}
        for _ in range(options.blocks):
            made = variants(size, options.jit, rounds)
            for flavour, each in made.items():
                medians = measure(
                    each, options.steps, lambda bar=bar: bar.add(1), clock
                )
                for name, seconds in medians.items():
                    blocks = found.setdefault(flavour, {}).setdefault(name, [])
                    blocks.append(seconds)
        params = made["Keras 3"]["plain"].model.count_params()
        jit = ", jit_compile" if options.jit else ""
        kind = "processor time" if options.cpu_time else "time"
        length = f"{options.blocks} blocks of {options.steps} steps"
        print(f"\n{size}, {params:,} parameters{jit}, {length}, {kind}\n")
        print("\n".join(rows(found, made)) + "\n")
        print("\n".join(goals(found)), flush=True)
        stored[size] = found
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"jit": options.jit, "seconds": stored}, file, indent=1)


if __name__ == "__main__":
    main()
