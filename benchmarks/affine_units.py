"""How many units are always active, and what `lossless` makes of them.

MLPs 784-256-256-10 with BatchNormalization are trained on Fashion-MNIST; the offset of
the norms begins at 0, as usual, or higher, which keeps units from their knots. Counted
are the units of each layer that are certified active on the box [0, 1] of all images,
by interval arithmetic, and those active at 1024 training images, at all of them or all
but a few; then what `lossless` leaves, also for inputs near one image. Accuracies are
those on the test images.

    python benchmarks/affine_units.py
"""

import pathlib
import time
import warnings

import keras
import numpy as np
from criteria_nets import accuracy, images

import tf_spline_prune as tsp

L = keras.layers
CACHE = pathlib.Path("runs/affine_units")


def mlp(beta):
    """784-256-256-10; BatchNormalization before each ReLU begins at this beta."""
    x = inputs = keras.Input((28, 28, 1))
    x = L.Flatten()(x)
    for _ in range(2):
        x = L.Dense(256, use_bias=False)(x)
        start = keras.initializers.Constant(beta)
        x = L.BatchNormalization(momentum=0.9, beta_initializer=start)(x)
        x = L.ReLU()(x)
    return keras.Model(inputs, L.Dense(10)(x), name=f"mlp_{beta:g}")


def trained(beta, epochs=6):
    """Load a trained net, or train it and keep it."""
    file = CACHE / f"mlp_{beta:g}.keras"
    if file.exists():
        return keras.models.load_model(file)
    keras.utils.set_random_seed(0)
    model = mlp(beta)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(*images("train"), 128, epochs, verbose=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file)
    return model


def certified(model):
    """Count the units of each hidden layer whose ReLU is active on all of [0, 1]."""
    low, high = np.zeros(784), np.ones(784)
    found = []
    pairs = zip(model.layers, model.layers[1:], strict=False)
    for dense, norm in (
        (a, b) for a, b in pairs if isinstance(b, L.BatchNormalization)
    ):
        gamma, beta, mean, variance = norm.get_weights()
        scale = gamma / np.sqrt(variance + norm.epsilon)
        kernel = dense.get_weights()[0] * scale
        up, down = np.maximum(kernel, 0), np.minimum(kernel, 0)
        offset = beta - scale * mean
        low, high = low @ up + high @ down + offset, high @ up + low @ down + offset
        found.append(int((low >= 0).sum()))
        low, high = np.maximum(low, 0), np.maximum(high, 0)
    return found


def active(model, x, tolerance):
    """Count the units of each hidden layer that are active but for a few of x."""
    relus = [layer.output for layer in model.layers if isinstance(layer, L.ReLU)]
    values = keras.Model(model.inputs, relus)(x)
    return [int(((np.asarray(v) > 0).mean(0) >= 1 - tolerance).sum()) for v in values]


def widths(model):
    """List the units of each Dense layer."""
    return [layer.units for layer in model.layers if isinstance(layer, L.Dense)]


def main():
    """Print what is found for each net."""
    x = np.asarray(images("train")[0][:1024])
    test = images("test")
    for beta in (0.0, 1.0, 3.0):
        model = trained(beta)
        print(f"\nbeta {beta:g}: accuracy {accuracy(model, *test):.2f} %")
        print(f"  certified active: {certified(model)} of 256")
        for tolerance in (0.0, 0.01, 0.05):
            found = active(model, x, tolerance)
            print(f"  active at all but {tolerance:.0%} of images: {found}")
        ways = {"the box [0, 1]": {"box": (0.0, 1.0)}}
        for far in (0.003, 0.01, 0.03):
            ways[f"an image +- {far}"] = {"box": (x[0] - far, x[0] + far)}
        for tolerance in (0.0, 0.01, 0.05):
            ways[f"{tolerance=}"] = {"data": x, "tolerance": tolerance}
        for way, how in ways.items():
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", tsp.errors.SplinePruneWarning)
                small = tsp.lossless(model, **how)
            took = time.perf_counter() - start
            print(
                f"  {way}: {widths(model)} -> {widths(small)}, "
                f"{tsp.cost(small).macs / tsp.cost(model).macs:.3f} of the MACs, "
                f"accuracy {accuracy(small, *test):.2f} %, {took:.1f} s",
                *(f"\n    {one.message}" for one in said),
            )


if __name__ == "__main__":
    main()
