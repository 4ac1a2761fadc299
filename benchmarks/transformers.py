"""Heads and neurons of a small transformer: accuracy after pruning, in a table.

    python benchmarks/transformers.py

Three transformers, of other seeds, are trained on the digits of `optical_digits`, whose
eight rows of eight pixels are the tokens. Each loses heads and neurons of its
feed-forward layers down to half of the multiply-accumulates, and is never trained
again. 512 training images serve criteria and recovery; their labels are read by
`taylor` and `fisher` alone. Cells are percent of the test images that are answered
rightly, as it is -> with the consumers solved by least squares: means over the seeds,
and the standard deviation of the latter.
"""

import argparse

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune import criteria

CRITERIA = {
    "reconstruction": criteria.Reconstruction(),
    "activation, l2": criteria.Activation("l2"),
    "activation, mean": criteria.Activation(),
    "taylor": criteria.Taylor(),
    "fisher": criteria.Fisher(batch_size=8),
    "magnitude": criteria.Magnitude(),
    "random": criteria.Random(),
}
SCOPES = ("layer", "global")


def digits(split):
    """Return images of eight rows of eight pixels in [0, 1], and labels."""
    batches = tsp.datasets.load("optical_digits", split, batch_size=256)
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    images = np.concatenate(images).astype("float32").reshape(-1, 8, 8)
    return images / images.max(), np.concatenate(labels)


def transformer(blocks=3, width=32, heads=4, neurons=96):
    """Pre-norm blocks of attention and a feed-forward layer on rows as tokens."""
    layers = keras.layers
    inputs = keras.Input((8, 8))
    x = layers.Dense(width, name="embed")(inputs)
    places = layers.Embedding(8, width, name="places")(np.arange(8)[None])
    x = layers.Add()([x, places])
    for block in range(blocks):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(
            heads, width // heads, name=f"attention_{block}"
        )
        x = layers.Add()([x, attention(y, y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(neurons, activation="gelu", name=f"up_{block}")(y)
        x = layers.Add()([x, layers.Dense(width, name=f"down_{block}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, name="answer")(x))


def trained(seed, train, epochs):
    keras.utils.set_random_seed(seed)
    model = transformer()
    steps = epochs * -(-len(train[0]) // 64)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(rate), loss)
    model.fit(*train, batch_size=64, epochs=epochs, verbose=0)
    return model


def accuracy(model, x, y):
    return 100 * np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--macs", type=float, default=0.5)
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = digits("train"), digits("test")
    found = {(name, scope): [] for name in CRITERIA for scope in SCOPES}
    dense = []
    for seed in range(options.seeds):
        model = trained(seed, train, options.epochs)
        dense.append(accuracy(model, *test))
        chosen = np.random.default_rng(seed).permutation(len(train[0]))
        data = tuple(part[chosen[: options.images]] for part in train)
        for name, scope in found:
            plan = tsp.plan(
                model,
                CRITERIA[name],
                target_macs=options.macs,
                scope=scope,
                layers=["attention_./heads", "up_."],
                data=data,
                seed=seed,
            )
            small = plan.apply(model)
            solved = tsp.least_squares(model, small, plan, data[0])
            found[name, scope].append([accuracy(one, *test) for one in (small, solved)])
            print(seed, name, scope, found[name, scope][-1], flush=True)
    print(f"{np.mean(dense):.1f} % before pruning ({np.std(dense):.1f})\n")
    print(f"| criterion | {' | '.join(f'by {scope}' for scope in SCOPES)} |")
    print("|---" * (1 + len(SCOPES)) + "|")
    for name in CRITERIA:
        cells = []
        for scope in SCOPES:
            plain, solved = np.transpose(found[name, scope])
            cells.append(
                f"{plain.mean():.1f} -> {solved.mean():.1f} ({solved.std():.1f})"
            )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
