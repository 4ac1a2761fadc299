"""Two small transformers of KerasHub at half of their MACs: pictures, and verses.

    python benchmarks/classifiers.py
    python benchmarks/classifiers.py --tasks verses --seeds 3 --json classifiers.jsonl

A ViT reads the 8 x 8 digits that ship with the package. A BERT reads a verse of the
King James Bible, as the program `bible` prints it (Debian: apt install bible-kjv), and
tells the book it stands in, one of 66; a tenth of the verses is held out. Each is
trained, pruned to half of its multiply-accumulates, solved again on some inputs
without labels, and trained for a fifth of the epochs. Accuracies are on inputs that
were not trained on; both nets saw no others.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A benchmark beside this file has the name of the package.
sys.path.remove(str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from language_model import bible

import tf_spline_prune as tsp

LENGTH, WORDS = 32, 4000  # of a verse, and of the vocabulary
UNKNOWN, FIRST = 1, 2  # 0 is for padding
CALIBRATION = 512
EPOCHS = {"digits": 40, "verses": 10}


def digits():
    """Return the digits: training and test images with labels."""
    found = []
    for split in ("train", "test"):
        batches = [
            (np.asarray(x), np.asarray(y))
            for x, y in tsp.datasets.load("optical_digits", split, 512, shuffle=False)
        ]
        found.append(tuple(map(np.concatenate, zip(*batches, strict=True))))
    return found


def verses(seed):
    """Return verses as words, and their books as labels: known ones and others."""
    lines = [line.partition(" ") for line in bible()]
    books = [re.match(r"\d?\D+", reference).group() for reference, _, _ in lines]
    named = {book: number for number, book in enumerate(dict.fromkeys(books))}
    labels = np.array([named[book] for book in books])
    texts = [re.findall(r"[a-z]+", verse.lower()) for _, _, verse in lines]
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out, known = np.split(order, [len(order) // 10])
    counts = collections.Counter(word for i in known for word in texts[i])
    numbers = {w: FIRST + i for i, (w, _) in enumerate(counts.most_common(WORDS))}
    ids = np.zeros((len(texts), LENGTH), "int32")
    for row, words in zip(ids, texts, strict=True):
        some = [numbers.get(word, UNKNOWN) for word in words[:LENGTH]]
        row[: len(some)] = some
    given = {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": (ids > 0).astype("int32"),
    }
    return [(take(given, at), labels[at]) for at in (known, held_out)]


def take(given, at):
    """Take some of the inputs."""
    return keras.tree.map_structure(lambda array: array[at], given)


def vit():
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 1),
        patch_size=2,
        num_layers=3,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=128,
        dropout_rate=0.1,
    )
    return keras_hub.models.ViTImageClassifier(backbone, num_classes=10)


def bert():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=WORDS + FIRST,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        dropout=0.3,
        max_sequence_length=LENGTH,
    )
    return keras_hub.models.BertTextClassifier(backbone, num_classes=66, dropout=0.3)


def train(model, data, epochs, peak):
    """Train at a rate that warms up in a tenth of the steps and falls to zero."""
    given, labels = data
    steps = epochs * -(-len(labels) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps * 9 // 10, warmup_target=peak, warmup_steps=steps // 10
    )
    compile(model, keras.optimizers.AdamW(schedule, weight_decay=0.01))
    # KerasHub shuffles no arrays.
    batches = tf.data.Dataset.from_tensor_slices((given, labels))
    batches = batches.shuffle(len(labels)).batch(64)
    model.fit(batches, epochs=epochs, verbose=2)


def compile(model, optimizer="sgd"):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def accuracy(model, data):
    """Return the accuracy in percent; an uncompiled model is compiled."""
    if not model.compiled:
        compile(model)
    return 100 * model.evaluate(*data, batch_size=256, verbose=0)[1]


def measure(task, seed):
    """Return what one task gives with one seed."""
    keras.utils.set_random_seed(seed)
    known, others = digits() if task == "digits" else verses(seed)
    model = vit() if task == "digits" else bert()
    epochs = EPOCHS[task]
    train(model, known, epochs, 2e-3)
    rng = np.random.default_rng(seed)
    given = take(known[0], rng.choice(len(known[1]), CALIBRATION, replace=False))
    shapes = None
    if isinstance(given, dict):
        shapes = {name: (LENGTH,) for name in given}
    start = tsp.cost(model, input_shapes=shapes)
    found = {"task": task, "seed": seed, "dense": accuracy(model, others)}
    small = tsp.prune(model, target_macs=0.5, data=given, seed=seed)
    cost = tsp.cost(small, input_shapes=shapes)
    found["class"] = type(small).__name__
    found["macs"] = [start.macs, cost.macs]
    found["params"] = [start.params, cost.params]
    found["solved"] = accuracy(small, others)
    train(small, known, epochs // 5, 5e-4)
    found["trained"] = accuracy(small, others)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=[*EPOCHS], choices=[*EPOCHS])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="append the results here")
    options = parser.parse_args()
    rows = []
    for task in options.tasks:
        for seed in range(options.seeds):
            rows.append(measure(task, seed))
            print(json.dumps(rows[-1]), flush=True)
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n| task | class | MACs | parameters | dense | solved | trained |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        macs, params = (f"{a:,} -> {b:,}" for a, b in (row["macs"], row["params"]))
        found = " | ".join(f"{row[k]:.1f}" for k in ("dense", "solved", "trained"))
        print(f"| {row['task']} | {row['class']} | {macs} | {params} | {found} |")


if __name__ == "__main__":
    main()
