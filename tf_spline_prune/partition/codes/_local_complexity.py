"""`local_complexity`: how many knots pass close to each input."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, LAYERS, POSITIVE, SEED, checked
from tf_spline_prune.compat import trace
from tf_spline_prune.partition.codes._partition_coder import PartitionCoder
from tf_spline_prune.partition.codes._partition_codes import PartitionCodes
from tf_spline_prune.partition.probes import check_probe

# So many bytes of codes are held at a time.
_AT_ONCE = 2**26


@checked(radius=POSITIVE, directions=COUNT, layers=LAYERS, seed=SEED, batch_size=COUNT)
def local_complexity(
    model: Any,
    x: Any,
    radius: float,
    *,
    directions: int = 20,
    layers: Iterable[str] | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> dict[str, np.ndarray]:
    """Count the knots that pass between inputs close to each input.

    Around each input stand the `2 * directions` corners `x ± radius * v`, where the v
    are orthonormal and drawn once. A knot counts if not all corners are on one side
    of it: then it passes through the body that they span, and cuts the network's
    partition there. Many knots near the data is much room to bend; pruning that
    takes them away from where the data is can be seen here.

    Args:
        model: A built model.
        x: Array of shape `(n, *input shape)`; a list or dict of such arrays for a
            model with several inputs, whose numbers count as those of one.
        radius: Distance of the corners, in the units of the inputs.
        directions: Number of directions; as many as the input has numbers if that is
            less. Defaults to `20`.
        layers: Names of the layers to count. Defaults to `None`, which means all that
            have knots.
        seed: Seed of the directions. Defaults to `0`.
        batch_size: Number of corners that are run at a time. Defaults to `128`.

    Returns:
        For each layer the number of knots near each input, of shape `(n,)`, int, in
        the order of computation. Their sum is the local complexity.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, has no knots, or has weights
            that are not finite.
        ProbeError: If `x` is empty, misshapen or not finite.
        ValueError: If another argument is out of range, or names an unknown layer.

    Example:

    ```python
    near = tsp.local_complexity(model, x_test[:256], radius=0.05)
    {layer: count.mean() for layer, count in near.items()}
    ```

    Source: Humayun, Balestriero and Baraniuk, "Deep Networks Always Grok and Here is
    Why", ICML 2024.
    """
    meter = ComplexityMeter(model, radius, directions, layers, seed, batch_size)
    return meter(x)


class ComplexityMeter:
    """Counts knots near inputs, again and again as a model is trained.

    The arguments are those of `local_complexity`.
    """

    def __init__(
        self,
        model: Any,
        radius: float,
        directions: int = 20,
        layers: Iterable[str] | None = None,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        self._radius, self._directions, self._seed = radius, directions, seed
        self._inputs = trace(model).inputs
        self._coder = PartitionCoder(
            model, layers, max_units_per_layer=None, batch_size=batch_size
        )

    def __call__(self, x: Any) -> dict[str, np.ndarray]:
        """Count the knots near each input."""
        points = check_probe(x, self._inputs)
        bodies = self._corners([some.shape[1:] for some in points])
        corners = [
            body.astype(some.dtype) for body, some in zip(bodies, points, strict=True)
        ]
        lots, start, count = [], 0, 1
        while start < len(points[0]):
            around = [
                (some[start : start + count, None] + body).reshape(-1, *some.shape[1:])
                for some, body in zip(points, corners, strict=True)
            ]
            codes = self._coder(around)
            lots.append(_differing(codes, len(corners[0])))
            start += count
            knots = sum(codes.num_knots.values())
            count = max(1, 8 * _AT_ONCE // (len(corners[0]) * knots))
        return {name: np.concatenate([lot[name] for lot in lots]) for name in lots[0]}

    def _corners(self, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Draw the corners of the body around the origin, in all inputs together."""
        sizes = [int(np.prod(shape)) for shape in shapes]
        normal = np.random.default_rng(self._seed).normal(
            size=(sum(sizes), min(self._directions, sum(sizes)))
        )
        frame = np.linalg.qr(normal)[0].T
        both = self._radius * np.concatenate([frame, -frame])
        parts = np.split(both, np.cumsum(sizes)[:-1], axis=1)
        return [
            part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)
        ]


def _differing(codes: PartitionCodes, corners: int) -> dict[str, np.ndarray]:
    """Count, for every so many inputs, the bits in which they are not all equal."""
    found = {}
    for name, packed in codes.packed.items():
        bits = packed.reshape(-1, corners, packed.shape[1])
        somewhere = np.bitwise_or.reduce(bits, axis=1)
        everywhere = np.bitwise_and.reduce(bits, axis=1)
        found[name] = np.bitwise_count(somewhere ^ everywhere).sum(axis=1, dtype=int)
    return found
