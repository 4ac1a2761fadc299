"""What pruning does to the partition between three images, in exact slices.

    python examples/image_slice.py
    python examples/image_slice.py --dataset fashion_mnist --output pictures

A small ConvNet learns images. Three test images of different classes span a plane of
its input space, which is cut into the regions of the network before it is pruned to
half of its multiply-accumulates, right after, and once it has been trained on.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune._files import check_destination


def build(input_shape, num_classes):
    L = keras.layers
    # Every position of a convolution has a line for each unit: of large images only
    # some fifty positions are looked at.
    stride = max(1, input_shape[0] // 7)
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            L.Conv2D(4, 5, stride, padding="same", activation="relu", name="conv0"),
            L.Conv2D(8, 3, 2, padding="same", activation="relu", name="conv1"),
            L.Flatten(name="flat"),
            L.Dense(16, activation="relu", name="hidden"),
            L.Dense(num_classes, name="scores"),
        ],
        name="convnet",
    )


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.002), loss, metrics=["accuracy"])
    return model


def fit(model, train, epochs):
    compiled(model).fit(train, epochs=epochs, shuffle=False, verbose=0)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="optical_digits", help="a TFDS name")
    parser.add_argument("--train-split", default="train", help="such as train[:20%%]")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/image_slice", help="a folder")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    check_destination(folder / "file")

    info = tsp.datasets.describe(options.dataset)
    train = tsp.datasets.load(
        options.dataset, options.train_split, 64, seed=options.seed
    )
    test = tsp.datasets.load(options.dataset, "test", 256, shuffle=False)
    images, labels = (part.numpy() for part in next(iter(test)))
    anchors = images[np.unique(labels, return_index=True)[1][:3]]

    keras.utils.set_random_seed(options.seed)
    print(f"Training on {options.dataset}")
    model = fit(build(info.input_shape, info.num_classes), train, options.epochs)
    calibration = tsp.probes.minibatch(train, 512)
    small = tsp.prune(model, target_macs=0.5, data=calibration)
    trained = keras.models.clone_model(small)
    trained.set_weights(small.get_weights())
    fit(trained, train, max(1, options.epochs // 3))

    slices = {}
    print(f"\n{'':>12}  regions by layer        boundary  test acc.")
    for name, net in {"whole": model, "half": small, "trained on": trained}.items():
        accuracy = compiled(net).evaluate(test, verbose=0)[1]
        s = tsp.slice2d(net, anchors, (-0.3, 1.3))
        length = np.linalg.norm(s.boundary[:, 1] - s.boundary[:, 0], axis=1).sum()
        through = ", ".join(f"{n:,}" for n in s.regions_through.values())
        print(f"{name:>12}  {through:<22}  {length:>8.2f}  {accuracy:>9.1%}")
        slices[f"{name}, {accuracy:.1%}"] = s
    tsp.visualize.plot_slices(
        slices, folder / "image_slice.png", fill="class", images=True
    )
    print(f"\nThe picture is in {folder}")


if __name__ == "__main__":
    main()
