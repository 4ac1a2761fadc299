"""Which activations of a layer are coded, and how their bits are packed."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class Subset:
    """Which activations of a layer are coded.

    Attributes:
        chosen: Indices of blocks.
        count: Number of blocks in the layer.
        width: Activations in a block, side by side in memory.
    """

    chosen: np.ndarray
    count: int
    width: int

    @classmethod
    def choose(
        cls, shape: tuple[int, ...], axis: int, cap: int, name: str, seed: int
    ) -> "Subset":
        """Choose at most `cap` activations, or all if there are no more.

        Where the units lie side by side, a whole position is chosen with all its
        units: contiguous memory, and every unit is seen equally often.

        Args:
            shape: The layer's activations, without batch axis.
            axis: The axis of its units.
            cap: The most activations to choose.
            name: The layer's name: its subset depends on it and the seed alone.
            seed: The seed.
        """
        size = int(np.prod(shape))
        width = shape[-1] if axis == len(shape) - 1 and shape[-1] <= cap else 1
        count = size // width
        chosen = np.arange(count)
        if size > cap:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            chosen = np.sort(rng.choice(count, cap // width, replace=False))
        return cls(chosen.astype("int32"), count, width)

    def indices(self) -> np.ndarray:
        """Give the flat indices of the chosen activations."""
        flat = self.chosen[:, None].astype(int) * self.width + np.arange(self.width)
        return np.asarray(flat.ravel())

    @property
    def size(self) -> int:
        """Number of chosen activations."""
        return len(self.chosen) * self.width

    def of(self, tensor: Any) -> Any:
        """Take the subset from a tensor of shape `(n, *activations)`."""
        if len(self.chosen) < self.count:
            blocks = keras.ops.reshape(tensor, (-1, self.count, self.width))
            tensor = keras.ops.take(blocks, self.chosen, axis=1)
        return keras.ops.reshape(tensor, (-1, self.size))


def pack_bits(bits: Any, num_knots: int) -> Any:
    """Pack booleans into bytes, eight to a byte, first bit highest.

    A product with the powers of two is exact in float32 and faster than shifts
    on every backend.
    """
    values = keras.ops.cast(keras.ops.reshape(bits, (-1, num_knots)), "float32")
    values = keras.ops.pad(values, ((0, 0), (0, -num_knots % 8)))
    values = keras.ops.reshape(values, (-1, -(-num_knots // 8), 8))
    powers = np.array([128, 64, 32, 16, 8, 4, 2, 1], "float32")
    return keras.ops.cast(keras.ops.matmul(values, powers), "uint8")


def largest_cap(
    layers: Sequence[tuple[int, int]],
    num_points: int,
    most: int | None,
    max_bytes: int | None,
) -> int:
    """Find the largest number of activations a layer that fits both bounds.

    Args:
        layers: For each layer its number of activations and of knots in each.
        num_points: Number of inputs in the probe.
        most: Bound on the activations of a layer.
        max_bytes: Bound on the bytes of all codes.

    Returns:
        The number, at least 1.

    Raises:
        ValueError: If not even one activation a layer fits.
    """

    def total(cap: int) -> int:
        return num_points * sum(-(-min(size, cap) * k // 8) for size, k in layers)

    high = max(size for size, _ in layers)
    if most is not None:
        high = min(high, most)
    if max_bytes is None or total(high) <= max_bytes:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if total(middle) <= max_bytes:
            low = middle
        else:
            high = middle
    if low == 0:
        raise ValueError(
            "The codes of this probe do not fit, even with one activation a layer. "
            "Use fewer probe inputs or a larger bound. Received: "
            f"{num_points} inputs, {len(layers)} layers, max_bytes={max_bytes}"
        )
    return low
