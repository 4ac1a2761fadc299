"""`PartitionCodes`: the codes of a probe, one bit per knot."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tf_spline_prune._checks import Text, checked


@dataclass(frozen=True, eq=False)
class CodeLayout:
    """What the bits of codes mean; the same for all codes of one coder.

    Attributes:
        num_knots: For each layer, the number of knots that are coded.
        num_units: For each layer, the number of its units, coded or not.
        units: For each layer, an array of shape `(knots,)`: the unit (neuron or
            channel) that a knot belongs to.
        key: Names the layers and the subsets of their knots.
    """

    num_knots: Mapping[str, int]
    num_units: Mapping[str, int]
    units: Mapping[str, np.ndarray]
    key: str

    def codes(self, flat: np.ndarray) -> "PartitionCodes":
        """Read codes back from what `PartitionCodes.to_bytes` gave."""
        widths = {layer: -(-knots // 8) for layer, knots in self.num_knots.items()}
        count = len(flat) // sum(widths.values())
        packed, start = {}, 0
        for layer, width in widths.items():
            packed[layer] = flat[start : start + count * width].reshape(count, width)
            start += count * width
        return PartitionCodes(packed, self)


@dataclass(frozen=True, eq=False)
class PartitionCodes:
    """The codes of a probe: for each input, which side of every knot it is on.

    Attributes:
        packed: For each layer, an array of shape `(n, ceil(knots / 8))`, uint8,
            one bit per knot, the first knot in the highest bit.
        layout: What the bits mean.

    Example:

    ```python
    codes = tsp.PartitionCoder(model)(x)
    codes.unpack("relu").mean(axis=0)      # how often each knot is exceeded
    ```
    """

    packed: Mapping[str, np.ndarray]
    layout: CodeLayout

    @property
    def num_knots(self) -> Mapping[str, int]:
        """For each layer, the number of knots that are coded."""
        return self.layout.num_knots

    @property
    def units(self) -> Mapping[str, np.ndarray]:
        """For each layer, the unit that each coded knot belongs to."""
        return self.layout.units

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the coded layers, in the order of computation."""
        return tuple(self.packed)

    @property
    def num_points(self) -> int:
        """Number of inputs in the probe."""
        return len(next(iter(self.packed.values())))

    @property
    def nbytes(self) -> int:
        """Bytes that the codes take."""
        return sum(bits.nbytes for bits in self.packed.values())

    @checked(layer=Text())
    def unpack(self, layer: str) -> np.ndarray:
        """Return the codes of one layer as booleans.

        Args:
            layer: A name from `layers`.

        Returns:
            Array of shape `(n, knots)`, bool.

        Raises:
            KeyError: If no such layer is coded.
        """
        if layer not in self.packed:
            raise KeyError(
                f"No layer of this name is coded. Expected one of {self.layers}. "
                f"Received: {layer!r}"
            )
        bits = np.unpackbits(self.packed[layer], axis=1, count=self.num_knots[layer])
        return bits.astype(bool)

    @cached_property
    def num_regions(self) -> int:
        """Number of different codes: of regions that the inputs lie in."""
        rows = np.concatenate(list(self.packed.values()), axis=1)
        return len(np.unique(rows, axis=0))

    def to_bytes(self) -> np.ndarray:
        """Return all codes as one flat uint8 array, layer after layer."""
        return np.concatenate([bits.ravel() for bits in self.packed.values()])

    def like(self, flat: np.ndarray) -> "PartitionCodes":
        """Return the codes that `to_bytes` of codes like these has packed.

        Args:
            flat: Array of shape `(bytes,)`, uint8.

        Returns:
            Codes with this object's layers and units.
        """
        return self.layout.codes(flat)
