"""`interleaved_latencies`: two models measured in one go, so that they compare."""

import time

import numpy as np

from tf_spline_prune.litert.runner import Runner

_ROUNDS = 25
_LEAST_ROUNDS = 5
_PATIENCE = 2.0  # seconds


def interleaved_latencies(first: Runner, second: Runner) -> tuple[float, float]:
    """Measure two models in turns, on one input each.

    A machine slows down and speeds up from second to second. In turns both models
    meet the same moments, so that their ratio holds where each number alone
    would not.

    Args:
        first: A runner.
        second: Another one.

    Returns:
        The medians over up to 25 turns, in microseconds; fewer, five at least,
        where a turn takes long.
    """
    times = []
    start = time.monotonic()
    for turn in range(_ROUNDS):
        if turn >= _LEAST_ROUNDS and time.monotonic() - start > _PATIENCE:
            break
        times.append([r.measure_latency(runs=5, warmup=1) for r in (first, second)])
    one, two = np.median(times, axis=0)
    return float(one), float(two)
