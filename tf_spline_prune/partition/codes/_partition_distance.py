"""Distances between two snapshots of the codes of one probe."""

from typing import Literal, overload

import numpy as np

from tf_spline_prune._checks import Flag, Instance, checked
from tf_spline_prune.partition.codes._partition_codes import PartitionCodes


@overload
def partition_distance(
    codes: PartitionCodes, other: PartitionCodes, per_layer: Literal[False] = False
) -> float: ...
@overload
def partition_distance(
    codes: PartitionCodes, other: PartitionCodes, per_layer: Literal[True]
) -> dict[str, float]: ...
@checked(
    codes=Instance(PartitionCodes), other=Instance(PartitionCodes), per_layer=Flag()
)
def partition_distance(
    codes: PartitionCodes, other: PartitionCodes, per_layer: bool = False
) -> float | dict[str, float]:
    """Compute the fraction of the partition that changed between two snapshots.

    A layer's distance is the fraction of its bits that differ (the normalised
    Hamming distance); the whole distance is the mean over layers, each layer
    counting the same.

    Args:
        codes: Codes of a probe.
        other: Codes of the same probe by the same coder.
        per_layer: Whether to return one number per layer. Defaults to `False`.

    Returns:
        A number in [0, 1], or with `per_layer` one per layer, by name.

    Raises:
        ValueError: If the two differ in layers, knots or number of inputs.

    Example:

    ```python
    tsp.partition_distance(coder(x), coder(x))    # 0.0
    ```

    Source: You et al. 2022, section 4, and the released detector's `getDiff`.
    """
    _check_alike(codes, other)
    layers = {
        name: int(np.bitwise_count(codes.packed[name] ^ other.packed[name]).sum())
        / (codes.num_points * codes.num_knots[name])
        for name in codes.layers
    }
    return layers if per_layer else float(np.mean(list(layers.values())))


@checked(codes=Instance(PartitionCodes), other=Instance(PartitionCodes))
def unit_distances(
    codes: PartitionCodes, other: PartitionCodes
) -> dict[str, np.ndarray]:
    """Compute for each unit the fraction of its bits that changed.

    Args:
        codes: Codes of a probe.
        other: Codes of the same probe by the same coder.

    Returns:
        For each layer an array of shape `(units,)`: the fraction of the unit's bits
        that differ, over all its positions and knots; NaN for a unit of which
        the coder's subset holds no position.

    Raises:
        ValueError: If the two differ in layers, knots or number of inputs.

    Example:

    ```python
    tsp.unit_distances(before, after)["relu"].argmax()   # the most restless unit
    ```
    """
    _check_alike(codes, other)
    result = {}
    for name in codes.layers:
        changed = np.unpackbits(
            codes.packed[name] ^ other.packed[name],
            axis=1,
            count=codes.num_knots[name],
        ).mean(axis=0)
        units, size = codes.units[name], codes.layout.num_units[name]
        counts = np.bincount(units, minlength=size)
        sums = np.bincount(units, weights=changed, minlength=size)
        with np.errstate(invalid="ignore"):
            result[name] = sums / counts
    return result


def _check_alike(codes: PartitionCodes, other: PartitionCodes) -> None:
    if codes.layout.key != other.layout.key or codes.num_points != other.num_points:
        raise ValueError(
            "Two snapshots are compared bit by bit, so they must come from the same "
            "coder and the same probe. Received: codes of "
            f"{codes.num_points} inputs and {sum(codes.num_knots.values())} knots in "
            f"{len(codes.layers)} layers, and of {other.num_points} inputs and "
            f"{sum(other.num_knots.values())} knots in {len(other.layers)} layers."
        )
