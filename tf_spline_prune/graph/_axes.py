"""What the channel graph knows of a tensor: for each axis, whose units it holds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tf_spline_prune.compat import Call

Shape = tuple[int | None, ...]
Labels = np.ndarray


@dataclass(frozen=True, eq=False)
class TensorAxes:
    """A tensor, reduced to the units that each of its axes holds.

    Attributes:
        shape: Shape with the batch axis first; `None` where a size is open.
        labels: For each axis an array of shape `(size,)`, the label of the unit
            at each position, or `None` where the axis holds no units (batch,
            space, time).
    """

    shape: Shape
    labels: tuple[Labels | None, ...]

    @property
    def rank(self) -> int:
        """Number of axes, the batch axis included."""
        return len(self.shape)

    @property
    def labelled(self) -> list[int]:
        """The axes that hold units."""
        return [axis for axis, labels in enumerate(self.labels) if labels is not None]

    @property
    def kept(self) -> dict[int, Labels]:
        """The labels by axis, where there are any."""
        return {a: labels for a, labels in enumerate(self.labels) if labels is not None}

    def with_labels(self, shape: Shape, changes: dict[int, Labels]) -> "TensorAxes":
        """Describe a tensor of another shape that holds units on the axes given."""
        return TensorAxes(shape, tuple(changes.get(axis) for axis in range(len(shape))))


def norm_axis(call: Call, rank: int) -> int:
    """Return the axis that a BatchNormalization works on.

    Args:
        call: A call of a BatchNormalization.
        rank: Rank of its input, the batch axis included.

    Returns:
        The index of the axis, not negative.
    """
    axis = call.layer.axis
    return int(axis[0] if isinstance(axis, (list, tuple)) else axis) % rank


def channel_axis(call: Call, rank: int) -> int:
    """Return the channel axis of a layer with a `data_format`.

    Args:
        call: A call of a layer.
        rank: Rank of its input, the batch axis included.

    Returns:
        The index of the axis, not negative.
    """
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return 1 if first and rank > 2 else rank - 1


def positions(shape: Sequence[int | None], channels: Iterable[int]) -> int | None:
    """Count the positions of a tensor for one input of the model.

    Args:
        shape: Shape of the tensor, the batch axis first.
        channels: The axes that do not count as positions.

    Returns:
        The product of the other sizes, the batch left out; `None` if one is open.
    """
    left_out = {0, *channels}
    sizes = [size for axis, size in enumerate(shape) if axis not in left_out]
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]
