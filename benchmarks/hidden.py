"""What a smaller hidden size costs, as it is and recovered on 256 images.

    python benchmarks/hidden.py

A transformer of three blocks, trained on Fashion-MNIST and never trained again. Its
hidden size of 64 is made smaller along principal axes (`rotate`), by choosing units
(`select`), and by units that are drawn. Accuracies are percent on the test images, the
mean over the seeds; in brackets the standard deviation. A seed draws the images.
"""

import argparse

import criteria
import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp


def drawn(model, size, seed):
    """Remove units of the stream that are drawn."""
    (stream,) = tsp.residual_streams(model)
    rng = np.random.default_rng(seed)
    gone = rng.choice(stream.size, stream.size - size, replace=False)
    return tsp.remove_units(model, {stream.name: gone.tolist()}, approximate=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[56, 48, 32, 16])
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = criteria_nets.images("train"), criteria_nets.images("test")
    model = criteria_nets.trained("vit", 0)
    whole = tsp.cost(model)
    print(f"{criteria_nets.accuracy(model, *test):.2f} % with all 64 units\n")
    heads = "hidden size, MACs, parameters, rotated, and recovered, selected"
    heads = [*heads.split(", "), "and recovered", "drawn"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for size in options.sizes:
        ways = {
            (method, recover): []
            for method in ("rotate", "select")
            for recover in (None, "least_squares")
        }
        at_random = []
        for seed in range(options.seeds):
            images, _ = criteria.calibration(*train, seed, options.images)
            for (method, recover), found in ways.items():
                small = tsp.prune_hidden(
                    model, size, data=images, method=method, recover=recover
                )
                found.append(criteria_nets.accuracy(small, *test))
            at_random.append(criteria_nets.accuracy(drawn(model, size, seed), *test))
        left = tsp.cost(small)
        cells = [
            f"{np.mean(found):.2f} ({np.std(found):.2f})"
            for found in (*ways.values(), at_random)
        ]
        print(
            f"| {size} | {left.macs / whole.macs:.0%} | "
            f"{left.params / whole.params:.0%} | {' | '.join(cells)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
