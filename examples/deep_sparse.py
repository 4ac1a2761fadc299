"""How deep and how sparse a network can be and still learn.

    python examples/deep_sparse.py
    python examples/deep_sparse.py --depth 100 --sparsity 0.9 --orthogonal

A tanh network of 60 layers learns the 8x8 digits. On the edge of chaos it does; its
gradients reach the first layer. SNIP then takes 80 % of its weights before training:
what is left has too little variance, its gradients die out, and it does not learn,
unless its weights are rescaled. Off the edge, whole layers run empty.

Of 100 layers and 90 % it takes more: weights that are orthogonal from the beginning,
without biases, and again exactly so under the mask.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune._files import check_destination

# Weights and biases by the square root of their second moment: on the edge of chaos
# of tanh, and where signals shrink towards one another.
BIAS_STD = 0.2
ORDERED_STD = 0.9


def digits():
    """Load the digits as vectors of mean 0 and deviation 1."""
    parts = []
    for split in ("train", "test"):
        batches = tsp.datasets.load("optical_digits", split, 10_000, shuffle=False)
        x, y = (part.numpy() for part in next(iter(batches)))
        parts.append((x.reshape(len(x), -1), y))
    mean, deviation = parts[0][0].mean(), parts[0][0].std()
    return [((x - mean) / deviation, y) for x, y in parts]


def build(options, weight_std):
    """Make a tanh network of so many layers, on the edge of chaos or off it."""
    keras.utils.set_random_seed(0)
    start = tsp.initialization.EdgeOfChaos(
        "tanh",
        0.0 if options.orthogonal else BIAS_STD,
        distribution="orthogonal" if options.orthogonal else "normal",
        seed=0,
        weight_std=weight_std,
    )
    model = keras.Sequential([keras.Input((64,))])
    for number in range(options.depth - 1):
        name = f"layer_{number}"
        model.add(keras.layers.Dense(options.width, activation="tanh", name=name))
    model.add(keras.layers.Dense(10, name="scores"))
    return start.apply_to(model)


class Course:
    """How all networks are trained alike."""

    def __init__(self, options, train, test):
        self.train, self.test = train, test
        self.epochs = max(1, options.steps * 100 // len(train[0]))
        self.rate = options.rate

    def compiled(self, model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(self.rate, momentum=0.9)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def fit(self, name, model):
        """Train a network; give its accuracy after each epoch, on the test data."""
        print(f"Training {name}", flush=True)
        keras.utils.set_random_seed(1)
        history = self.compiled(model).fit(
            *self.train,
            batch_size=100,
            epochs=self.epochs,
            validation_data=self.test,
            verbose=0,
        )
        return history.history["val_accuracy"]


def reach(seen):
    """Compare the gradients of the second layer and of the last but one, by norm."""
    sizes = list(seen.gradients.values())
    return (sizes[1] / sizes[-2]) ** 0.5 if sizes[-2] else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=60, help="layers")
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=0.003, help="learning rate")
    parser.add_argument("--isometry", action="store_true", help="also repair by it")
    parser.add_argument(
        "--orthogonal",
        action="store_true",
        help="begin with orthogonal weights without biases, and repair to such",
    )
    parser.add_argument("--output", default="runs/deep_sparse", help="a folder")
    options = parser.parse_args()
    if options.depth < 4:
        parser.error("--depth must be at least 4: gradients are compared inside")
    folder = pathlib.Path(options.output)
    check_destination(folder / "file")

    train, test = digits()
    course = Course(options, train, test)
    some = (train[0][:256], train[1][:256])

    def pruned(model):
        return tsp.prune_at_init(
            course.compiled(model),
            "snip",
            options.sparsity,
            data=some,
            empty_layers="allow",
        )

    # Without biases the edge of chaos of tanh is where weights are orthonormal.
    weight_std = 1.0
    if not options.orthogonal:
        weight_std = tsp.initialization.edge_of_chaos("tanh", BIAS_STD).weight_std
    edge, ordered = build(options, weight_std), build(options, ORDERED_STD)
    masked = pruned(edge)
    nets = {
        "dense, edge of chaos": edge,
        "sparse, edge of chaos": masked,
        "sparse, rescaled": tsp.initialization.rescale(masked, weight_std=weight_std),
        "sparse, ordered phase": pruned(ordered),
    }
    if options.orthogonal:
        nets["sparse, exactly orthogonal"] = tsp.initialization.exact_orthogonal(
            masked, weight_std
        )
    if options.isometry:
        nets["sparse, isometry"] = tsp.initialization.approximate_isometry(
            masked, weight_std
        )
    rows, curves = [], {}
    for name, net in nets.items():
        seen = tsp.initialization.signal_propagation(
            course.compiled(net), *some, jacobian_inputs=0
        )
        zeros = tsp.weight_sparsity(net)["total"]
        curves[name] = course.fit(name, net)
        last = curves[name][-1]
        rows.append((name, zeros, len(seen.emptied), reach(seen), last))

    print(f"\n{options.depth} layers, {options.sparsity:.0%} of the weights removed\n")
    print(f"{'':<26}  zeros  empty layers  gradient ratio  test acc.")
    for name, zeros, empty, ratio, accuracy in rows:
        numbers = f"{zeros:>5.1%}  {empty:>12}  {ratio:>14.1e}  {accuracy:>9.1%}"
        print(f"{name:<26}  {numbers}")
    draw(curves, folder / "curves.png")
    print(f"\nThe picture is in {folder}")


def draw(curves, path):
    """Draw the accuracies, epoch by epoch."""
    from tf_spline_prune.visualize._figures import axes_or_new, written

    axes = axes_or_new(None, (6.4, 3.6))
    for (name, values), mark in zip(curves.items(), "osD^v", strict=False):
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, marker=mark, markevery=max(1, len(values) // 12))
        axes.lines[-1].set_label(name)
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    written(axes.figure, path)


if __name__ == "__main__":
    main()
