"""Prune while training and ship, as in TFMOT's guide, in the names of Keras 3.

    python examples/tfmot_migration.py
    python examples/tfmot_migration.py --flavour tf_keras

A small ConvNet learns the 8x8 digits. It is trained on while the fraction of zeros
among its weights grows from 50 % to 80 %, and converted to LiteRT, in floats and with
weights of eight bits. Files are compressed before they are compared, for that is when
zeros pay. `--flavour tf_keras` makes TFMOT's own calls, and only the callback is ours:
`sparse` below has both columns of names.
"""

import argparse
import importlib
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune._files import check_destination

BATCH_SIZE = 32


def digits(images):
    """Load the digits, so many of them for training, as arrays."""
    parts = []
    for split in (f"train[:{images}]" if images else "train", "test"):
        batches = tsp.datasets.load("optical_digits", split, 10_000, shuffle=False)
        parts.append(tuple(part.numpy() for part in next(iter(batches))))
    return parts


def build(K):
    L = K.layers
    return K.Sequential(
        [
            K.Input((8, 8, 1), name="image"),
            L.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
            L.MaxPooling2D(2, name="pool"),
            L.Flatten(name="flat"),
            L.Dense(64, activation="relu", name="hidden"),
            L.Dense(10, name="scores"),
        ],
        name="digits",
    )


def train(K, model, data, epochs, callbacks=()):
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    settings = {"batch_size": BATCH_SIZE, "epochs": epochs, "verbose": 0}
    model.fit(*data, callbacks=list(callbacks), **settings)


def sparse(K, model, data, epochs):
    """Train on under masks; give the plain model with its zeros."""
    steps = -(-len(data[0]) // BATCH_SIZE) * epochs
    # The last quarter of the steps is for getting used to it.
    ramp = tsp.schedules.PolynomialDecay(
        0.5, 0.8, begin_step=0, end_step=max(1, 3 * steps // 4), frequency=1
    )
    pruning = tsp.MaskPruning(ramp)  # TFMOT: UpdatePruningStep()
    if K.__name__ == "tf_keras":
        from tensorflow_model_optimization.sparsity import keras as tfmot

        masked = tfmot.prune_low_magnitude(model, pruning_schedule=ramp)
        train(K, masked, data, epochs, [pruning])
        return tfmot.strip_pruning(masked)
    masked = tsp.wrap_with_masks(model)
    train(K, masked, data, epochs, [pruning])
    return tsp.strip_masks(masked)


def ship(model, file, quantize=None, some=None):
    """Convert, and count the zeros: TFMOT prunes the very model it is given."""
    zeros = tsp.weight_sparsity(model)["total"]
    return zeros, tsp.export_litert(model, file, quantize, representative_data=some)


def accuracy(file, images, labels):
    """Classify with the file, in the runtime of the device."""
    (scores,) = tsp.litert.Runner(file).predict(images).values()
    return float(np.mean(scores.argmax(axis=1) == labels))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flavour", default="keras", choices=["keras", "tf_keras"])
    parser.add_argument(
        "--epochs", type=int, default=10, help="dense, and as many more"
    )
    parser.add_argument("--images", type=int, help="to train on; default: all")
    parser.add_argument("--output", default="runs/tfmot_migration", help="a folder")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    check_destination(folder / "file")

    K = importlib.import_module(options.flavour)
    K.utils.set_random_seed(0)
    data, test = digits(options.images)
    model = build(K)
    print(f"Training a dense network for {options.epochs} epochs", flush=True)
    train(K, model, data, options.epochs)
    rows = [ship(model, folder / "dense.tflite")]
    print(f"Training it on for {options.epochs}, from 50 % zeros to 80 %", flush=True)
    plain = sparse(K, model, data, options.epochs)
    rows.append(ship(plain, folder / "sparse.tflite"))
    rows.append(ship(plain, folder / "sparse_8_bits.tflite", "dynamic", data[0][:100]))

    print(f"\n{'':<13}  zeros  .tflite bytes  gzipped  smaller  test acc.")
    for zeros, made in rows:
        name = made.path.stem.replace("_", " ")
        sizes = f"{made.bytes:>13,}  {made.gzip_bytes:>7,}"
        ratio = rows[0][1].gzip_bytes / made.gzip_bytes
        right = f"{accuracy(made.path, *test):>9.1%}"
        print(f"{name:<13}  {zeros:>5.1%}  {sizes}  {ratio:>6.1f}x  {right}")
    print(f"\nThe files are in {folder}")


if __name__ == "__main__":
    main()
