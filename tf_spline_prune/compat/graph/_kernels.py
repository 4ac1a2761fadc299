"""The kernels of a model, each as the matrices that it multiplies by."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tf_spline_prune.compat._weights import weight_variables
from tf_spline_prune.compat.graph._graph import Call, Graph

KernelKind = Literal["plain", "transposed", "depthwise"]

KERNEL_KINDS: dict[str, KernelKind] = {
    "Dense": "plain",
    **{f"Conv{rank}D": "plain" for rank in (1, 2, 3)},
    **{f"SeparableConv{rank}D": "plain" for rank in (1, 2)},
    **{f"Conv{rank}DTranspose": "transposed" for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": "depthwise" for rank in (1, 2)},
}
"""How the axes of kernels are to be read, by the kind of their layer."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a model.

    Attributes:
        path: Path of its layer.
        name: Name of the weight in the layer.
        layer: The layer.
        kind: How its axes are to be read.
    """

    path: str
    name: str
    layer: Any
    kind: KernelKind

    @property
    def key(self) -> str:
        """Return the weight's path in the whole model: `"encoder/conv1/kernel"`."""
        return f"{self.path}/{self.name}"

    @property
    def variable(self) -> Any:
        """The variable that holds the kernel."""
        return weight_variables(self.layer)[self.name]

    @property
    def bias(self) -> Any | None:
        """The variable that holds the layer's bias, if there is one."""
        return weight_variables(self.layer).get("bias")

    @property
    def input_axis(self) -> int:
        """The axis along which an output sums its inputs."""
        return -1 if self.kind == "transposed" else -2

    @property
    def groups(self) -> int:
        """The number of groups of a convolution, each with inputs of its own."""
        return int(getattr(self.layer, "groups", 1) or 1)

    def blocks(self, array: np.ndarray) -> np.ndarray:
        """See the kernel as `blocks_of` does."""
        return blocks_of(array, self.kind, self.groups)

    def array(self, blocks: np.ndarray) -> np.ndarray:
        """Put blocks into the shape of the kernel."""
        shape = tuple(self.variable.shape)
        return array_of(blocks, shape, self.kind)


def kernels_of(graph: Graph) -> dict[str, Kernel]:
    """List the kernels of the dense and convolution layers of a model.

    Args:
        graph: What `trace` gave.

    Returns:
        The kernels by the path of their layer, in the order of computation. Of a
        separable convolution it is the pointwise one.
    """
    found: dict[str, Kernel] = {}
    for call in graph.calls:
        kernel = kernel_of(call)
        if kernel is not None:
            found.setdefault(call.path, kernel)
    return found


def kernel_of(call: Call) -> Kernel | None:
    """Return the kernel of a call, if its layer is dense or a convolution."""
    if call.kind not in KERNEL_KINDS:
        return None
    name = "pointwise_kernel" if call.kind.startswith("Separable") else "kernel"
    return Kernel(call.path, name, call.layer, KERNEL_KINDS[call.kind])


def blocks_of(array: np.ndarray, kind: KernelKind, groups: int = 1) -> np.ndarray:
    """See a kernel as the matrices that it multiplies by.

    Args:
        array: The kernel as its layer holds it.
        kind: `"plain"` ends with inputs and outputs, `"transposed"` with outputs and
            inputs, `"depthwise"` with inputs and the outputs of each.
        groups: The number of groups of a plain convolution.

    Returns:
        Array of shape `(groups, taps, inputs, outputs)`: for each group, whose inputs
        and outputs are its own, a matrix for each place of the window.
    """
    *window, first, last = array.shape
    flat = array.reshape(int(np.prod(window)), first, last)
    if kind == "depthwise":
        return flat.transpose(1, 0, 2)[:, :, None, :]
    if kind == "transposed":
        return flat.swapaxes(1, 2)[None]
    parts = flat.reshape(len(flat), first, groups, last // groups)
    return parts.transpose(2, 0, 1, 3)


def array_of(
    blocks: np.ndarray, shape: tuple[int, ...], kind: KernelKind = "plain"
) -> np.ndarray:
    """Undo `blocks_of`.

    Args:
        blocks: Array of shape `(groups, taps, inputs, outputs)`.
        shape: The shape of the kernel.
        kind: As in `blocks_of`.

    Returns:
        Array of this shape.
    """
    if kind == "depthwise":
        flat = blocks[:, :, 0].transpose(1, 0, 2)
    elif kind == "transposed":
        flat = blocks[0].swapaxes(1, 2)
    else:
        flat = blocks.transpose(1, 2, 0, 3)
    return flat.reshape(shape)
