"""What the spline early bird costs, beside the published detector.

    python benchmarks/early_bird.py

PreResNet-20 on 32x32 images, batch 128, an epoch of 50,000 images. In turns, in
one process: training steps; a call of `SplineEarlyBird` at its default settings;
a call that codes every unit; and the published detector as its released code
has it, re-implemented naively here: the outputs of all BatchNormalizations kept
as float32, compared by sign. All on 1,024 points; what 10,000 points would hold
is computed, not measured, and says so. Medians are reported.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from nets import preresnet

import tf_spline_prune as tsp

LOOKBACK = 3
STEPS_PER_EPOCH = -(-50_000 // 128)
MIB = 2**20


def preresnet20():
    """The pre-activation ResNet of depth 20 for 32x32 images."""
    model = preresnet(20)((32, 32, 3))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class PublishedDetector:
    """The detector of the released code: float32 activations, compared by sign."""

    def __init__(self, model, probe):
        outputs = [
            layer.output
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        network = keras.Model(model.input, outputs)
        self.forward = tf.function(lambda x: network(x, training=False))
        self.probe = probe
        self.stored = []

    def __call__(self):
        batches = [
            [t.numpy() for t in self.forward(self.probe[i : i + 128])]
            for i in range(0, len(self.probe), 128)
        ]
        newest = [np.concatenate(layer) for layer in zip(*batches, strict=True)]
        worst = 0.0
        for old in self.stored:
            layers = [
                np.abs((a > 0).astype("float32") - (b > 0).astype("float32")).mean()
                for a, b in zip(newest, old, strict=True)
            ]
            worst = max(worst, float(np.mean(layers)))
        # The newest and the stored ones are held at the same time, as there.
        self.held = sum(a.nbytes for s in [newest, *self.stored] for a in s)
        self.stored = [*self.stored, newest][-LOOKBACK:]
        return worst


class Ours:
    """A `SplineEarlyBird`, called as `fit` calls it after an epoch."""

    def __init__(self, model, probe, **settings):
        self.bird = tsp.SplineEarlyBird(
            probe, lookback=LOOKBACK, stop=False, **settings
        )
        self.bird.set_model(model)
        self.bird.on_train_begin()
        self.epoch = 0

    def __call__(self):
        logs = {}
        if not self.epoch:
            self.bird.on_epoch_begin(0)
        self.bird.on_epoch_end(self.epoch, logs)
        self.epoch += 1
        codes = self.bird.coder(self.bird.probe[:1])
        per_point = sum(-(-k // 8) for k in codes.num_knots.values())
        self.held = per_point * len(self.bird.probe) * (LOOKBACK + 1)
        return logs["spline_distance"]


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="training steps a round")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = preresnet20()
    images = rng.normal(size=(128, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, 128)
    probe = rng.normal(size=(1024, 32, 32, 3)).astype("float32")
    calls = {
        "default": Ours(model, probe),
        "every unit": Ours(model, probe, max_units_per_layer=None, max_bytes=2**40),
        "published": PublishedDetector(model, probe),
    }
    step = lambda: model.train_on_batch(images, labels)  # noqa: E731
    times = {name: [] for name in ("step", *calls)}
    for _ in range(LOOKBACK + 1):  # warm up, and fill the windows
        step()
        for call in calls.values():
            call()
    bar = keras.utils.Progbar(options.rounds, unit_name="round")
    for done in range(options.rounds):
        for name, call in calls.items():
            times["step"] += [timed(step) for _ in range(options.steps)]
            times[name].append(timed(call))
        bar.update(done + 1)
    for _ in range(LOOKBACK + 1):  # all at the same moments: the same distances
        step()
        values = {name: call() for name, call in calls.items()}
    median = {name: float(np.median(t)) for name, t in times.items()}
    epoch = median["step"] * STEPS_PER_EPOCH
    held = {name: call.held for name, call in calls.items()}
    print(f"\nstep {median['step'] * 1e3:.0f} ms, so an epoch takes {epoch:.0f} s")
    print(f"{'detector':<12}{'ms a call':>11}{'of an epoch':>13}{'MiB held':>11}")
    for name in calls:
        print(
            f"{name:<12}{median[name] * 1e3:>11.0f}{median[name] / epoch:>13.2%}"
            f"{held[name] / MIB:>11.1f}"
        )
    print("10,000 points, computed from the above, not measured:")
    for name in calls:
        print(f"{name:<36}{held[name] * 10_000 / 1024 / MIB:>11.1f}")
    print(
        f"distance at the end: default {values['default']:.5f}, every unit "
        f"{values['every unit']:.5f}, published {values['published']:.5f}"
    )
    like = held["published"] / held["every unit"]
    speed = median["every unit"] / median["published"]
    for goal, met in {
        f"default: {median['default'] / epoch:.2%} of an epoch, under 1 %": (
            median["default"] < 0.01 * epoch
        ),
        f"default: {held['default'] / MIB:.1f} MiB held, at most 64": (
            held["default"] <= 64 * MIB
        ),
        f"every unit: {like:.1f} times less memory, at least 25": like >= 25,
        f"every unit: {speed:.2f} of the published time, at most 1": speed <= 1,
    }.items():
        print(f"{'met   ' if met else 'MISSED'}  {goal}")


if __name__ == "__main__":
    main()
