"""What dropping residual blocks costs, as it is and recovered on 256 images.

    python benchmarks/depth.py

The residual net of `criteria.py`, trained on Fashion-MNIST and never trained again.
Three of its four blocks have an identity skip; each of them, and each two, are dropped
by name. Accuracies are percent on the test images, the mean over the seeds; in brackets
the standard deviation. A seed draws the images. Marks: what `drop_blocks` itself
chooses on all of the seeds, by the loss (L) and by the cosine (C).
"""

import argparse
import itertools

import criteria
import criteria_nets
import keras
import numpy as np

import tf_spline_prune as tsp


def chosen(model, number, images, importance):
    """Return the names of the blocks that go when so many are to."""
    small = tsp.drop_blocks(
        model, number, data=images, importance=importance, recover=None
    )
    left = {block.name for block in tsp.residual_blocks(small)}
    return {block.name for block in tsp.residual_blocks(model)} - left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    keras.utils.disable_interactive_logging()
    train, test = criteria_nets.images("train"), criteria_nets.images("test")
    model = criteria_nets.trained("resnet", 0)
    whole = tsp.cost(model)
    draws = [
        criteria.calibration(*train, seed, options.images)
        for seed in range(options.seeds)
    ]
    picked = {
        (number, importance): [
            chosen(model, number, data, importance) for data in draws
        ]
        for number in (1, 2)
        for importance in ("loss", "cosine")
    }
    print(f"{criteria_nets.accuracy(model, *test):.2f} % with all blocks\n")
    print("| blocks dropped | MACs | parameters | as it is | recovered | chosen |")
    print("|---|---|---|---|---|---|")
    free = [block for block in tsp.residual_blocks(model) if not block.reason]
    for number in (1, 2):
        for blocks in itertools.combinations(free, number):
            names = [block.name for block in blocks]
            plain = tsp.drop_blocks(model, names)
            found = [
                criteria_nets.accuracy(
                    tsp.drop_blocks(model, names, data=x, seed=seed), *test
                )
                for seed, (x, _) in enumerate(draws)
            ]
            marks = [
                mark
                for mark, importance in (("L", "loss"), ("C", "cosine"))
                if all(one == set(names) for one in picked[number, importance])
            ]
            left = tsp.cost(plain)
            print(
                f"| {', '.join(names)} | {left.macs / whole.macs:.0%} | "
                f"{left.params / whole.params:.0%} | "
                f"{criteria_nets.accuracy(plain, *test):.2f} | "
                f"{np.mean(found):.2f} ({np.std(found):.2f}) | {' '.join(marks)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
