"""`report`: what pruning saved, counted and measured."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import require_flavour
from tf_spline_prune.graph import Cost, cost
from tf_spline_prune.litert import Runner, convert


@dataclass(frozen=True)
class Report:
    """What pruning saved.

    Attributes:
        before: Cost of the original model.
        after: Cost of the small model.
        tflite_bytes: Bytes of the two as `.tflite` files, float32.
        latency_us: Median time of one inference of the two, in microseconds:
            LiteRT, batch 1, one CPU thread, measured in turns in one process.

    Example:

    ```python
    print(tsp.report(model, small))
    ```
    """

    before: Cost
    after: Cost
    tflite_bytes: tuple[int, int]
    latency_us: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain numbers, lists and dicts."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = [
            (name, getattr(self.before, key), getattr(self.after, key))
            for name, key in (("MACs", "macs"), ("parameters", "params"))
        ]
        rows += [
            (".tflite bytes", *self.tflite_bytes),
            ("latency (us)", *self.latency_us),
        ]
        lines = [f"{'':<14}{'before':>15}{'after':>15}{'kept':>9}"]
        for name, old, new in rows:
            if old is not None and new is not None:
                lines.append(f"{name:<14}{old:>15,.0f}{new:>15,.0f}{new / old:>9.1%}")
        return "\n".join(lines)


def report(model: Any, small: Any) -> Report:
    """Count and measure what pruning saved.

    Args:
        model: The original model.
        small: The pruned model.

    Returns:
        Costs, file sizes and latencies of both; printing it gives a table.

    Raises:
        FlavourError: If one is no Keras model.
        ModelError: If one is unbuilt, cannot be traced, or has NaN weights.
        ExportError: If one cannot be converted for LiteRT.

    Example:

    ```python
    print(tsp.report(model, tsp.prune(model, target_macs=0.5)))
    ```
    """
    require_flavour(model)
    require_flavour(small)
    contents = convert(model), convert(small)
    first, second = measure_in_turns([Runner(content) for content in contents])
    return Report(
        before=cost(model),
        after=cost(small),
        tflite_bytes=(len(contents[0]), len(contents[1])),
        latency_us=(first, second),
    )


def measure_in_turns(runners: list[Runner], rounds: int = 9) -> list[float]:
    """Measure latencies that may be compared: in turns, so that noise is shared.

    Args:
        runners: The models.
        rounds: How often each has its turn.

    Returns:
        For each, the median over its turns, in microseconds.
    """
    times = [[runner.measure_latency() for runner in runners] for _ in range(rounds)]
    return [float(t) for t in np.median(times, axis=0)]


def training_flops(
    forward_flops: float, num_images: int, epochs: float, factor: float = 3
) -> float:
    """Count the floating-point operations of a training.

    A backward pass costs about two forward passes, hence the factor 3.

    Args:
        forward_flops: Operations of one forward pass of one input; a
            multiply-accumulate is two, so `2 * tsp.cost(model).macs`.
        num_images: Number of inputs in an epoch.
        epochs: Number of epochs.
        factor: Passes' worth of work a training step.

    Returns:
        The number of operations.

    Raises:
        ValueError: If an argument is negative.

    Example:

    ```python
    tsp.training_flops(3.64e9, 1_281_167, 90)     # 1.259e18: ResNet-18, ImageNet
    ```

    Source: the accounting of You et al., "Drawing Early-Bird Tickets", ICLR
    2020, table 3, which it reproduces.
    """
    if min(forward_flops, num_images, epochs, factor) < 0:
        raise ValueError(
            "Work cannot be negative. Received: "
            f"{forward_flops}, {num_images}, {epochs}, {factor}"
        )
    return factor * forward_flops * num_images * epochs
