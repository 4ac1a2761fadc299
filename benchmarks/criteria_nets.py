"""The nets of `criteria.py`: trained once on Fashion-MNIST, and kept in files."""

import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import nets
import numpy as np
from nets import conv_bn

import tf_spline_prune as tsp

L = keras.layers
CACHE = pathlib.Path("runs/criteria")


def mlp(name):
    """784-512-256-10."""
    return nets.mlp((28, 28, 1), name=name)


def vgg(name):
    """Five convolutions with BatchNormalization, in the manner of VGG."""
    x = inputs = keras.Input((28, 28, 1))
    x = conv_bn(x, 32)
    for width in (64, 128):
        x = L.MaxPooling2D()(x)
        x = conv_bn(conv_bn(x, width), width)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(10)(x), name=name)


def resnet(name):
    """A stem and four residual blocks, two of them at twice the width."""
    x = inputs = keras.Input((28, 28, 1))
    x = conv_bn(x, 32, 2)
    for stage, width in enumerate((32, 64)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            short = x if stride == 1 else conv_bn(x, width, stride, 1, relu=False)
            y = conv_bn(x, width, stride)
            x = L.ReLU()(L.Add()([short, conv_bn(y, width, relu=False)]))
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(10)(x), name=name)


def vit(name):
    """Three blocks of attention on 49 positions, behind two convolutions."""
    x = inputs = keras.Input((28, 28, 1))
    x = L.Reshape((49, 64))(conv_bn(conv_bn(x, 32, 2), 64, 2))
    x = L.Dense(64, name="embed")(x)
    for _ in range(3):
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 16)(y, y)])
        y = L.Dense(128, activation="gelu")(L.LayerNormalization()(x))
        x = L.Add()([x, L.Dense(64)(y)])
    x = L.GlobalAveragePooling1D()(L.LayerNormalization()(x))
    return keras.Model(inputs, L.Dense(10)(x), name=name)


NETS = {"mlp": mlp, "vgg": vgg, "resnet": resnet}
OTHERS = {"vit": vit}  # of other benchmarks
EPOCHS = {"mlp": 12, "vgg": 5, "resnet": 6, "vit": 3}


def images(split):
    """Return all images of a split of Fashion-MNIST, in [0, 1], and their labels."""
    batches = list(tsp.datasets.load("fashion_mnist", split, 10_000, shuffle=False))
    x, y = zip(*[(np.asarray(x), np.asarray(y)) for x, y in batches], strict=True)
    return np.concatenate(x), np.concatenate(y)


def accuracy(model, x, y):
    """Return the accuracy, in percent."""
    answers = np.concatenate(
        [
            np.asarray(model(x[i : i + 1000], training=False)).argmax(-1)
            for i in range(0, len(x), 1000)
        ]
    )
    return 100 * float((answers == y).mean())


def trained(kind, seed):
    """Load a trained net, or train it and keep it."""
    file = CACHE / f"{kind}_{seed}.keras"
    if file.exists():
        return keras.models.load_model(file)
    keras.utils.set_random_seed(seed)
    model = {**NETS, **OTHERS}[kind](f"{kind}_{seed}")
    x, y = images("train")
    batch, epochs = 128, EPOCHS[kind]
    rate = keras.optimizers.schedules.CosineDecay(
        1e-3, epochs * -(-len(x) // batch), warmup_target=3e-3, warmup_steps=400
    )
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    model.fit(x, y, batch, epochs, verbose=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.keras")
    model.save(partial)
    partial.rename(file)
    print(f"{model.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return model


def recorded(keys, images, measure, dense, file=None):
    """Measure cell by cell; what a file holds already is not measured again.

    Args:
        keys: Dictionaries that say which cell it is, `"net"` among it.
        images: How many images serve for calibration.
        measure: Takes a key; returns what was found, a dictionary.
        dense: The accuracies of the nets before pruning.
        file: Where each cell is kept, a line of JSON. Defaults to `None`.

    Returns:
        The records of so many images: keys and what was found.
    """
    records = []
    if file and file.exists():
        records = [json.loads(line) for line in file.read_text().splitlines()]
    progress = keras.utils.Progbar(len(keys), unit_name="cell", verbose=1)
    for key in keys:
        key = {**key, "images": images}
        if not any(key.items() <= record.items() for record in records):
            records.append({**key, "dense": dense[key["net"]], **measure(key)})
            if file:
                with file.open("a") as out:
                    out.write(json.dumps(records[-1]) + "\n")
        progress.add(1)
    return [record for record in records if record["images"] == images]


if __name__ == "__main__":
    for seed in range(3):
        for kind in NETS:
            model = trained(kind, seed)
            print(kind, seed, accuracy(model, *images("test")), flush=True)
