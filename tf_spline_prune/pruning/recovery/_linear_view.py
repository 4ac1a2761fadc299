"""Layers that are linear in their kernel, as matrix products over rows."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call, array_of, blocks_of


class LinearView(ABC):
    """Reads a layer as `rows @ matrix`, one row per output position.

    Matrices are stacks of shape `(groups, d, m)`: one per group of a grouped
    convolution, a single one elsewhere.
    """

    kernel = "kernel"
    groups = 1

    @abstractmethod
    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""

    @abstractmethod
    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs.

        Args:
            x: Input of the layer.
            chosen: Indices of rows.

        Returns:
            Array of shape `(groups, len(chosen), d)`.
        """

    @abstractmethod
    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape.

        Args:
            y: The tensor.
            chosen: Indices of rows.

        Returns:
            Array of shape `(len(chosen), groups * m)`.
        """

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Arrange a kernel as a stack of matrices."""
        blocks = blocks_of(kernel, "plain", self.groups)
        return blocks.reshape(self.groups, -1, blocks.shape[-1])

    def of_matrix(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Arrange a stack of matrices as a kernel of a shape."""
        blocks = matrix.reshape(self.groups, -1, shape[-2], matrix.shape[-1])
        return array_of(blocks, shape)


class _DenseView(LinearView):
    """Dense: every axis but the last one runs over rows."""

    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""
        return math.prod(x.shape[:-1])

    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs."""
        return np.asarray(x.reshape(-1, x.shape[-1])[chosen][None])

    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape."""
        return np.asarray(y.reshape(-1, y.shape[-1])[chosen])


class _ConvView(LinearView):
    """A convolution of any rank: a row is the patch under the kernel.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Any) -> None:
        self.size = tuple(layer.kernel_size)
        self.strides = tuple(layer.strides)
        self.dilation = tuple(layer.dilation_rate)
        self.padding = layer.padding
        self.groups = layer.groups
        self.first = layer.data_format == "channels_first"

    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""
        return len(x) * math.prod(self._places(self._last(x).shape[1:-1]))

    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs: patches."""
        x = self._last(x)
        places = self._places(x.shape[1:-1])
        padded = np.pad(x, [(0, 0), *self._pads(x.shape[1:-1]), (0, 0)])
        image, *at = np.unravel_index(chosen, (len(x), *places))
        taps = np.indices(self.size).reshape(len(self.size), -1)
        where = [
            a[:, None] * stride + tap * step
            for a, stride, tap, step in zip(
                at, self.strides, taps, self.dilation, strict=True
            )
        ]
        patches = padded[(image[:, None], *where)]
        patches = patches.reshape(*patches.shape[:2], self.groups, -1)
        return np.moveaxis(patches, 2, 0).reshape(self.groups, len(chosen), -1)

    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape."""
        y = self._last(y)
        return np.asarray(y.reshape(-1, y.shape[-1])[chosen])

    def _last(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 1, -1) if self.first else x

    def _reach(self) -> list[int]:
        return [
            (n - 1) * step + 1 for n, step in zip(self.size, self.dilation, strict=True)
        ]

    def _places(self, sizes: tuple[int, ...]) -> list[int]:
        if self.padding != "valid":
            return [-(-n // s) for n, s in zip(sizes, self.strides, strict=True)]
        return [
            (n - reach) // s + 1
            for n, s, reach in zip(sizes, self.strides, self._reach(), strict=True)
        ]

    def _pads(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        pads = []
        for n, s, reach in zip(sizes, self.strides, self._reach(), strict=True):
            if self.padding == "valid":
                pads.append((0, 0))
            elif self.padding == "causal":
                pads.append((reach - 1, 0))
            else:
                total = max((-(-n // s) - 1) * s + reach - n, 0)
                pads.append((total // 2, total - total // 2))
        return pads


def linear_view(call: Call) -> LinearView | None:
    """Read the layer of a call as a matrix product, if it is one.

    Args:
        call: The call.

    Returns:
        The view, or `None` for layers of other kinds.
    """
    if call.kind == "Dense":
        return _DenseView()
    if call.kind in ("Conv1D", "Conv2D", "Conv3D"):
        return _ConvView(call.layer)
    return None
