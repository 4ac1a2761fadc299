"""What it costs to prune a large network before training.

    python benchmarks/at_init_cost.py

SynFlow in 100 rounds on VGG16 with BatchNormalization at 32x32, 99 % of the weights to
go, in a process of its own, on all threads: seconds, and the memory beyond the built
model. Then how far the scores of the layers are from adding up alike at the end, where
all of the network's output flows through each of them.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from peak_memory import PeakMemory, each_alone
from plan_apply import VGG16, goal, vgg_keras

SPARSITY = 0.99
SECONDS = 60
MIB = 2**20


def one(rounds: int) -> dict[str, float]:
    """Prune once; everything that is imported at first use is imported before."""
    import tf_spline_prune as tsp

    tsp.prune_at_init(vgg_keras((8, 0), 8, 8), "synflow", 0.5, rounds=2)
    model = vgg_keras(VGG16, 32, 512)
    with PeakMemory() as memory:
        start = time.perf_counter()
        masked = tsp.prune_at_init(model, "synflow", SPARSITY, rounds=rounds)
        seconds = time.perf_counter() - start
    scores = tsp.initialization.connection_scores(masked, "synflow")
    sums = [array.sum() for array in scores.values()]
    return {
        "seconds": seconds,
        "bytes": memory.extra,
        "weights": sum(array.size for array in scores.values()),
        "apart": max(sums) / min(sums) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return
    ((_, found),) = each_alone(__file__, [str(options.rounds)], {})
    print("\n| SynFlow, VGG16 at 32 px | weights | seconds | peak memory (MiB) |")
    print("|---|---|---|---|")
    print(
        f"| {options.rounds} rounds | {found['weights']:,} | {found['seconds']:.1f} | "
        f"{found['bytes'] / MIB:,.0f} |"
    )
    apart = f"sums of scores of layers differ by {found['apart']:.0e}, at most 1e-6"
    goal(f"{found['seconds']:.1f} s, less than {SECONDS}", found["seconds"] < SECONDS)
    goal(apart, found["apart"] <= 1e-6)


if __name__ == "__main__":
    main()
