"""`interleaved_latencies`: models measured in one go, so that they compare."""

import time

import numpy as np

from tf_spline_prune._checks import Instance, checked
from tf_spline_prune.litert.runner import Runner

_ROUNDS = 25
_LEAST_ROUNDS = 5
_PATIENCE = 2.0  # seconds


@checked(runners=Instance(Runner))
def interleaved_latencies(*runners: Runner) -> tuple[float, ...]:
    """Measure models in turns, on one input each.

    A machine slows down and speeds up from second to second. In turns all models
    meet the same moments, so that their ratios hold where each number alone
    would not.

    Args:
        runners: The models.

    Returns:
        For each the median over up to 25 turns, in microseconds; fewer, five at
        least, where a turn takes long.

    Example:

    ```python
    runners = [tsp.litert.Runner(tsp.litert.convert(m)) for m in (model, small)]
    before, after = tsp.litert.interleaved_latencies(*runners)
    ```
    """
    times = []
    start = time.monotonic()
    for turn in range(_ROUNDS):
        if turn >= _LEAST_ROUNDS and time.monotonic() - start > _PATIENCE:
            break
        times.append([r.measure_latency(runs=5, warmup=1) for r in runners])
    return tuple(np.median(times, axis=0).tolist())
