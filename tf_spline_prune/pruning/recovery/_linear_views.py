"""Layers that are linear in their kernels, as matrix products over rows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    Call,
    Values,
    arguments_inside,
    array_of,
    as_numbers,
    blocks_of,
    depthwise_output,
    kind_of,
    numpy_of,
    parts_of,
    sequence_and_states,
    states_before,
    without_scale,
    working_layer,
)
from tf_spline_prune.graph._unit_path import has_no_activation
from tf_spline_prune.graph.rules._dense import letters_of

# What a kernel multiplies, and what a layer is given, from the tensors before a call.
Source = Callable[[Call, Values], np.ndarray]
Given = Callable[[Call, Values], tuple[tuple[Any, ...], dict[str, Any]]]


class Arrangement(ABC):
    """How a kernel multiplies a tensor: as `rows @ matrix`, a row per position.

    Matrices are stacks of shape `(groups, d, m)`: one per group of a grouped
    convolution, one per channel of a depthwise one, a single one elsewhere.
    """

    @abstractmethod
    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""

    @abstractmethod
    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs.

        Args:
            x: What the kernel multiplies.
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

    @abstractmethod
    def summed_axes(self, rank: int) -> Collection[int]:
        """List the axes of a kernel, of so many, that run over inputs."""

    @abstractmethod
    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Arrange a kernel as a stack of matrices."""

    @abstractmethod
    def of_matrix(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Arrange a stack of matrices as a kernel of a shape."""


class _Contraction(Arrangement):
    """An equation of Einstein's: each letter an axis of input, kernel and output.

    Args:
        taken: The letters of the input.
        kernel: Those of the kernel.
        made: Those of the output.
    """

    def __init__(self, taken: str, kernel: str, made: str) -> None:
        self.taken, self.kernel, self.made = taken, kernel, made
        self._over = [c for c in taken if c in made and c not in kernel]
        self._apart = [c for c in kernel if c in taken and c in made]
        self._summed = [c for c in kernel if c not in made]
        self._new = [c for c in kernel if c not in taken]
        self.units = "".join([*self._apart, *self._new])

    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""
        sizes = dict(zip(self.taken, x.shape, strict=True))
        return math.prod(sizes[c] for c in self._over)

    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs."""
        kept = "".join([*self._over, *self._apart, *self._summed])
        if len(kept) < len(self.taken):
            x = np.einsum(f"{_plain(self.taken)}->{_plain(kept, self.taken)}", x)
        else:
            x = x.transpose([self.taken.index(c) for c in kept])
        shape = x.shape[len(self._over) :]
        groups = math.prod(shape[: len(self._apart)])
        rows = x.reshape(-1, groups, math.prod(shape[len(self._apart) :]))
        return np.ascontiguousarray(rows[chosen].swapaxes(0, 1))

    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape."""
        order = [*self._over, *self._apart, *self._new]
        y = y.transpose([self.made.index(c) for c in order])
        return np.asarray(y.reshape(-1, math.prod(y.shape[len(self._over) :]))[chosen])

    def summed_axes(self, rank: int) -> Collection[int]:
        """List the axes of a kernel that run over inputs."""
        return [self.kernel.index(c) for c in self._summed]

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Arrange a kernel as a stack of matrices."""
        order = [*self._apart, *self._summed, *self._new]
        moved = kernel.transpose([self.kernel.index(c) for c in order])
        apart, summed = len(self._apart), len(self._apart) + len(self._summed)
        return moved.reshape(
            math.prod(moved.shape[:apart]),
            math.prod(moved.shape[apart:summed]),
            math.prod(moved.shape[summed:]),
        )

    def of_matrix(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Arrange a stack of matrices as a kernel of a shape."""
        order = [*self._apart, *self._summed, *self._new]
        moved = matrix.reshape([shape[self.kernel.index(c)] for c in order])
        return moved.transpose([order.index(c) for c in self.kernel])


def _plain(letters: str, among: str = "") -> str:
    """Spell letters of any alphabet in that of NumPy."""
    among = among or letters
    return "".join(chr(ord("a") + among.index(c)) for c in letters)


class _Window(Arrangement):
    """A window that moves over the input: a row is the patch that it covers.

    Args:
        layer: A convolution of any rank.
        kind: How the axes of its kernel are to be read, as in `blocks_of`.
        shape: The shape of the output, for one that is transposed.
    """

    def __init__(self, layer: Any, kind: Any, shape: Sequence[int | None]) -> None:
        rank = len(shape) - 2
        self.kind = kind
        self.size, self.strides, self.dilation = (
            tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank
            for given in (layer.kernel_size, layer.strides, layer.dilation_rate)
        )
        self.padding = layer.padding
        self.first = layer.data_format == "channels_first"
        self.groups = int(getattr(layer, "groups", 1) or 1)
        # A batch of outputs is as large as the batch of inputs says.
        self._made = tuple(shape[2:] if self.first else shape[1:-1])

    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""
        return len(x) * math.prod(self._places(self._last(x).shape[1:-1]))

    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs: patches."""
        x = self._last(x)
        sizes = x.shape[1:-1]
        image, *at = np.unravel_index(chosen, (len(x), *self._places(sizes)))
        taps = np.indices(self.size).reshape(len(self.size), -1)
        inside = np.ones((len(chosen), taps.shape[1]), bool)
        where = []
        for axis, (place, tap) in enumerate(zip(at, taps, strict=True)):
            index, seen = self._looked_at(axis, place[:, None], tap, sizes[axis])
            inside &= seen
            where.append(np.where(seen, index, 0))
        patches = x[(image[:, None], *where)]
        if not inside.all():
            patches[~inside] = 0
        groups = x.shape[-1] if self.kind == "depthwise" else self.groups
        patches = patches.reshape(*patches.shape[:2], groups, -1)
        return np.moveaxis(patches, 2, 0).reshape(groups, len(chosen), -1)

    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape."""
        y = self._last(y)
        return np.asarray(y.reshape(-1, y.shape[-1])[chosen])

    def summed_axes(self, rank: int) -> Collection[int]:
        """List the axes of a kernel, of so many, that run over inputs."""
        units = {"plain": [1], "transposed": [2], "depthwise": [1, 2]}[self.kind]
        return [axis for axis in range(rank) if rank - axis not in units]

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Arrange a kernel as a stack of matrices."""
        blocks = blocks_of(kernel, self.kind, self.groups)
        return blocks.reshape(len(blocks), -1, blocks.shape[-1])

    def of_matrix(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Arrange a stack of matrices as a kernel of a shape."""
        inputs = {"plain": shape[-2], "transposed": shape[-1], "depthwise": 1}
        split = (len(matrix), -1, inputs[self.kind], matrix.shape[-1])
        return array_of(matrix.reshape(split), shape, self.kind)

    def _last(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 1, -1) if self.first else x

    def _reach(self, axis: int) -> int:
        return (self.size[axis] - 1) * self.dilation[axis] + 1

    def _places(self, sizes: Sequence[int]) -> list[int]:
        """Count the positions of the output along each axis."""
        if self.kind == "transposed":
            return [
                self._stretched(axis, n) if made is None else made
                for axis, (n, made) in enumerate(zip(sizes, self._made, strict=True))
            ]
        if self.padding != "valid":
            return [-(-n // s) for n, s in zip(sizes, self.strides, strict=True)]
        return [
            (n - self._reach(axis)) // self.strides[axis] + 1
            for axis, n in enumerate(sizes)
        ]

    def _stretched(self, axis: int, size: int) -> int:
        """Count the positions that a transposed convolution makes of so many."""
        wide = self._reach(axis) - self.strides[axis]
        rest = max(0, wide) if self.padding == "valid" else 0
        return size * self.strides[axis] + rest

    def _looked_at(
        self, axis: int, place: np.ndarray, tap: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find which input each tap sees at each place, and whether there is one."""
        stride, step, reach = self.strides[axis], self.dilation[axis], self._reach(axis)
        if self.kind == "transposed":
            made = self._places([size] * len(self.size))[axis]
            before = max((size - 1) * stride + reach - made, 0) // 2
            spread = place + (0 if self.padding == "valid" else before) - tap * step
            index = spread // stride
            return index, (spread % stride == 0) & (index >= 0) & (index < size)
        before = 0
        if self.padding == "causal":
            before = reach - 1
        elif self.padding == "same":
            before = max((-(-size // stride) - 1) * stride + reach - size, 0) // 2
        index = place * stride + tap * step - before
        return index, (index >= 0) & (index < size)


@dataclass(frozen=True, eq=False)
class LinearView:
    """A part of a layer that multiplies a tensor by a kernel.

    Attributes:
        arrangement: How.
        kernels: Names of the weights that are the kernel, stacked along their first
            axis if there are several.
        bias: Name of the bias, and which row of it is added. It may be absent.
        source: Gives what the kernel multiplies, before the states; `None` if it
            multiplies nothing else.
        states: Gives the layer's own states, which the last kernel multiplies;
            `None` if none does.
        ends: Whether the product and its bias are what the call returns.
        whole: Whether that is all that the call does, but for an activation.
    """

    arrangement: Arrangement
    kernels: tuple[str, ...]
    bias: tuple[str, int | None] | None
    source: Source | None
    states: Source | None = None
    ends: bool = False
    whole: bool = False

    def joined(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the kernel, of a layer's weights."""
        found = [arrays[name] for name in self.kernels]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def parted(
        self, kernel: np.ndarray, like: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the weights that a kernel is made of, of the sizes of others."""
        ends = np.cumsum([len(like[name]) for name in self.kernels])[:-1]
        return dict(zip(self.kernels, np.split(kernel, ends), strict=True))

    def taken(self, call: Call, values: Values) -> np.ndarray:
        """Return what the kernel multiplies, or the states if that is all."""
        source = self.source or self.states
        return np.zeros(0) if source is None else source(call, values)

    def rows(
        self,
        call: Call,
        values: Values,
        chosen: np.ndarray,
        states: np.ndarray | None,
        taken: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return rows of what the kernel multiplies.

        Args:
            call: A call of the layer.
            values: The tensors before it.
            chosen: Indices of rows.
            states: The same rows of the states, if it has any.
            taken: What `taken` gave, if it is known. Defaults to `None`.

        Returns:
            Array of shape `(groups, len(chosen), d)`.
        """
        parts = []
        if self.source is not None:
            x = self.source(call, values) if taken is None else taken
            parts.append(self.arrangement.rows(x, chosen))
        if states is not None:
            parts.append(states[None])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def same_ranks(calls: Sequence[Call]) -> bool:
    """Return whether all calls of a layer are read in the same way."""
    return len({len(call.input_shapes[0]) for call in calls}) == 1


def one_per_kernel(view: LinearView) -> list[LinearView]:
    """Part a product of several kernels into those that it is the sum of."""
    if len(view.kernels) == 1:
        return [view]
    first, last = view.kernels
    return [
        replace(view, kernels=(first,), states=None),
        replace(view, kernels=(last,), source=None),
    ]


def linear_views(call: Call) -> list[LinearView]:
    """Read the layer of a call as matrix products, as far as it is made of them.

    Args:
        call: The call.

    Returns:
        The products, each after those that it needs; none for layers without any.
    """
    layer, kind = call.layer, call.kind
    taken, made = call.input_shapes[0], call.output_shapes[0]
    if kind == "TimeDistributed":
        one = (taken[:1] + taken[2:], made[:1] + made[2:])
        inside = _plain_views(layer.layer, kind_of(layer.layer), *one)
        return [
            replace(view, arrangement=_EveryStep(view.arrangement))
            for view in inside
            if view.source is _input
        ]
    if kind in _GATES:
        return _recurrent(layer, "", Call.fill)
    if kind == "Bidirectional":
        return [
            view
            for name in ("forward", "backward")
            if kind_of(parts_of(layer)[name]) in _GATES
            for view in _recurrent(parts_of(layer)[name], f"{name}/", _inside(name))
        ]
    if kind.endswith("Attention"):
        return _attention(layer)
    return _plain_views(layer, kind, taken, made)


def _input(call: Call, values: Values) -> np.ndarray:
    return numpy_of(values, call.inputs[0])


def _inside(part: str) -> Given:
    """Return what tells the arguments of a part of a layer."""
    return lambda call, values: arguments_inside(call, values, part)


def _first_of(given: Given) -> Source:
    """Return what tells the first of the arguments."""
    return lambda call, values: as_numbers(sequence_and_states(*given(call, values))[0])


def _argument(part: str) -> Source:
    """Return what tells the argument that a projection into heads is given as it is."""
    name = "query" if part == "gate" else part

    def source(call: Call, values: Values) -> np.ndarray:
        given = call.arguments([values[tensor] for tensor in call.inputs])
        found = given.get(name)
        return as_numbers(given["value"] if found is None else found)

    return source


def _plain_views(
    layer: Any, kind: str, taken: Sequence[int | None], made: Sequence[int | None]
) -> list[LinearView]:
    """Read a layer whose products have weights of its own."""
    ends = has_no_activation(layer)
    if kind == "Dense":
        free = letters_of("...i,io->...o", len(taken), len(made))
        return [_view(_Contraction(*free), ends)]
    if kind == "EinsumDense":
        return [_einsum(layer, letters_of(layer.equation, len(taken), len(made)), ends)]
    if kind in _WINDOWS:
        if getattr(layer, "output_padding", None) is not None:
            return []
        return [_view(_Window(layer, _WINDOWS[kind], made), ends)]
    if kind in ("SeparableConv1D", "SeparableConv2D"):
        return _separable(layer, made, ends)
    if kind in _SCALES and _over_last(layer, len(taken)):
        return [_scale(kind, len(taken))]
    return []


_WINDOWS = {
    **{f"Conv{rank}D": "plain" for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": "transposed" for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": "depthwise" for rank in (1, 2)},
}
_GATES = ("SimpleRNN", "GRU", "LSTM")
# What the scale of a normalisation is called.
_SCALES = {"LayerNormalization": "gamma", "RMSNormalization": "scale"}


def _view(arrangement: Arrangement, ends: bool) -> LinearView:
    return LinearView(
        arrangement, ("kernel",), ("bias", None), _input, None, ends, True
    )


def _einsum(layer: Any, letters: tuple[str, str, str], ends: bool) -> LinearView:
    arrangement = _Contraction(*letters)
    view = _view(arrangement, ends)
    units = "".join(c for c in letters[2] if c in letters[1])
    biased = "".join(c for c in letters[2] if c in (layer.bias_axes or ""))
    # A bias of some of the units only has no room for an intercept of all.
    fits = biased == units == arrangement.units
    return view if fits else replace(view, bias=None)


def _attention(layer: Any) -> list[LinearView]:
    """Read attention's projections: three, and then the one out of the heads."""
    found = []
    for name in ("query", "key", "value", "gate", "attention_output"):
        part = parts_of(layer).get(name)
        if part is None:
            continue
        letters = tuple(part.equation.replace("->", ",").split(","))
        ends = name == "attention_output"
        view = _einsum(part, letters, ends)
        found.append(
            replace(
                view,
                kernels=(f"{name}/kernel",),
                bias=view.bias and (f"{name}/bias", None),
                source=_first_of(_inside(name)) if ends else _argument(name),
            )
        )
    return found


def _recurrent(layer: Any, prefix: str, given: Given) -> list[LinearView]:
    """Read a recurrent layer: what multiplies its input and its states.

    Where both products are added they are one. A GRU gates one of them before; only if
    it does so after multiplying is it a product of the states.
    """
    if getattr(layer, "time_major", False):
        return []
    step = _Contraction(*letters_of("...i,io->...o", 3, 3))
    source = _first_of(given)

    def states(call: Call, values: Values) -> np.ndarray:
        inside = parts_of(call.layer)[prefix[:-1]] if prefix else call.layer
        return np.asarray(states_before(inside, *given(call, values)))

    kernels = (f"{prefix}kernel", f"{prefix}recurrent_kernel")
    bias = f"{prefix}bias"
    if kind_of(layer) != "GRU":
        return [LinearView(step, kernels, (bias, None), source, states)]
    if not layer.reset_after:
        return [LinearView(step, kernels[:1], (bias, None), source)]
    return [
        LinearView(step, kernels[:1], (bias, 0), source),
        LinearView(step, kernels[1:], (bias, 1), None, states),
    ]


def _separable(layer: Any, made: Sequence[int | None], ends: bool) -> list[LinearView]:
    """Read a separable convolution: one filter per channel, and then a 1x1."""

    def between(call: Call, values: Values) -> np.ndarray:
        return np.asarray(
            depthwise_output(working_layer(call.layer), _input(call, values))
        )

    rank = len(made) - 2
    first = _Window(layer, "depthwise", made)
    second = _Window(layer, "plain", made)
    second.size = second.strides = second.dilation = (1,) * rank
    return [
        LinearView(first, ("depthwise_kernel",), None, _input),
        LinearView(second, ("pointwise_kernel",), ("bias", None), between, ends=ends),
    ]


def _over_last(layer: Any, rank: int) -> bool:
    """Return whether a normalisation has a scale, along the last axis alone."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return getattr(layer, "scale", True) is not False and axes in ([-1], [rank - 1])


def _scale(kind: str, rank: int) -> LinearView:
    """Read the scale of a normalisation as a matrix of one entry per channel."""
    name = _SCALES[kind]

    def normalised(call: Call, values: Values) -> np.ndarray:
        return np.asarray(without_scale(call, values, name))

    free = letters_of("...c,c->...c", rank, rank)
    return LinearView(
        _Contraction(*free), (name,), ("beta", None), normalised, ends=True
    )


class _EveryStep(Arrangement):
    """What TimeDistributed does: the same at every step.

    Args:
        inside: How it is at one step.
    """

    def __init__(self, inside: Arrangement) -> None:
        self.inside = inside

    def num_rows(self, x: np.ndarray) -> int:
        """Count the rows of a batch of inputs."""
        return self.inside.num_rows(x.reshape(-1, *x.shape[2:]))

    def rows(self, x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return rows of a batch of inputs."""
        return self.inside.rows(x.reshape(-1, *x.shape[2:]), chosen)

    def outputs(self, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the same rows of a tensor of the output's shape."""
        return self.inside.outputs(y.reshape(-1, *y.shape[2:]), chosen)

    def summed_axes(self, rank: int) -> Collection[int]:
        """List the axes of a kernel, of so many, that run over inputs."""
        return self.inside.summed_axes(rank)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Arrange a kernel as a stack of matrices."""
        return self.inside.matrix(kernel)

    def of_matrix(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Arrange a stack of matrices as a kernel of a shape."""
        return self.inside.of_matrix(matrix, shape)
