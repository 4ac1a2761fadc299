"""Linear layers in a row, with nothing between them that bends, made one."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph import ChannelGraph, channel_axis
from tf_spline_prune.graph._facts import positions
from tf_spline_prune.pruning.without_loss._affine_units import Evidence, Stage, stage_of
from tf_spline_prune.pruning.without_loss._rank import PRODUCERS, Changes, pads

LAYERS = (*PRODUCERS, "DepthwiseConv1D", "DepthwiseConv2D")
_BETWEEN = ("Identity", "op:identity")


@dataclass(frozen=True, eq=False)
class _Map:
    """A linear layer, with what follows it up to the next one.

    Attributes:
        kernel: Array of shape `(*window, inputs, outputs)`, float64.
        bias: Array of shape `(outputs,)`, float64.
        strides: One number per axis of the window.
        padding: Its padding, where it pads at all; else `"valid"`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, ...]
    padding: str

    def then(self, other: "_Map") -> "_Map | None":
        """Compose the map with one that follows, where that is one map."""
        window, behind = self.kernel.shape[:-2], other.kernel.shape[:-2]
        padding = self.padding
        if other.padding != "valid":
            # It pads what this one gives, which must be as if this one's input was.
            if set(window) | set(self.strides) != {1} or self.bias.any():
                return None
            padding = other.padding
        elif padding != "valid" and set(behind) | set(other.strides) != {1}:
            return None
        sizes = [
            n + (m - 1) * stride
            for n, m, stride in zip(window, behind, self.strides, strict=True)
        ]
        inputs, outputs = self.kernel.shape[-2], other.kernel.shape[-1]
        kernel = np.zeros((*sizes, inputs, outputs))
        for tap in itertools.product(*map(range, behind)):
            at = tuple(
                slice(i * stride, i * stride + n)
                for i, n, stride in zip(tap, window, self.strides, strict=True)
            )
            kernel[at] += self.kernel @ other.kernel[tap]
        summed = other.kernel.sum(axis=tuple(range(len(behind))))
        strides = [a * b for a, b in zip(self.strides, other.strides, strict=True)]
        bias = self.bias @ summed + other.bias
        return _Map(kernel, bias, tuple(strides), padding)

    def scaled(self, factor: np.ndarray, offset: np.ndarray) -> "_Map":
        """Follow the map by a factor and an offset per output."""
        bias = self.bias * factor + offset
        return _Map(self.kernel * factor, bias, self.strides, self.padding)


@dataclass(frozen=True, eq=False)
class Composed:
    """Layers in a row that become the last of them.

    Attributes:
        gone: The names of the calls that go.
        path: Path of the layer that stays.
        config: The entries of its config that change.
        arrays: New weights, by layer path and weight name.
        touched: Paths of all layers that are concerned.
        saved: Multiply-accumulates that are saved for one input.
        certified: Whether all that goes is affine on all of the box.
        exact: Whether it is so at least at all of the data. Defaults to `True`.
    """

    gone: tuple[str, ...]
    path: str
    config: dict[str, Any]
    arrays: Changes
    touched: frozenset[str]
    saved: int
    certified: bool
    exact: bool = True

    @property
    def name(self) -> str:
        """The layer that stays."""
        return self.path


def composed(
    graph: ChannelGraph, evidence: Evidence, widths: Mapping[str, int]
) -> list[Composed]:
    """Find layers in a row that cost no more as one.

    Args:
        graph: The channel graph.
        evidence: What is known of the inputs of activations.
        widths: For the paths of layers, how many units they can do with otherwise.

    Returns:
        What becomes one, the most saved first; no two share a layer.
    """
    found: list[Composed] = []
    for call in graph.graph.calls:
        if call.kind in LAYERS:
            found += _from(graph, evidence, call, widths)
    found.sort(key=lambda one: -one.saved)
    chosen: list[Composed] = []
    for one in found:
        if not any(one.touched & other.touched for other in chosen):
            chosen.append(one)
    return chosen


def _from(
    graph: ChannelGraph, evidence: Evidence, first: Call, widths: Mapping[str, int]
) -> Iterator[Composed]:
    """Compose a layer with the one, two and more that follow."""
    row = _row(graph, evidence, first)
    whole: _Map | None = None
    gone: list[Call] = []
    certified, cost = True, 0
    inputs = int(first.input_shapes[0][row[0].axis] or 0) if len(row) > 1 else 0
    for stage in row if inputs else ():
        call = stage.call
        own = _map_of(graph, call)
        whole = own if whole is None else whole.then(own)
        spots = positions(call.output_shapes[0], [stage.axis])
        if call.kind == "Dense":  # as many in front of it
            spots = spots or 1
        if whole is None or spots is None:
            return
        units = own.kernel.shape[-1]
        width = min(widths.get(call.path, units), units)
        area = math.prod(own.kernel.shape[:-2]) * spots * width
        depthwise = call.kind.startswith("Depthwise")
        cost += area if depthwise else area * inputs
        saved = cost - whole.kernel.size * spots
        if gone and not depthwise and saved >= 0:
            yield _made(graph, stage, whole, gone, saved, certified)
        affine = evidence.of(stage)
        certified = certified and bool(affine.certified.all())
        scale, offset = stage.affine(graph.arrays)
        whole = whole.scaled(
            affine.slope * scale, affine.slope * offset + affine.offset
        )
        inputs = width
        gone += stage.calls
        gone += _between(graph, stage)


def _row(graph: ChannelGraph, evidence: Evidence, first: Call) -> list[Stage]:
    """List a layer and those that follow, as far as all before them is affine."""
    row: list[Stage] = []
    calls: list[Call] = []
    following: Call | None = first
    while following is not None and _fits(graph, first, [*calls, following]):
        stage = stage_of(graph.graph, following)
        row.append(stage)
        affine = evidence.of(stage)
        if not (affine.found & affine.exact).all():
            break
        between = _between(graph, stage)
        calls += [*stage.calls, *between]
        tail = between[-1].outputs[0] if between else stage.tail
        following = next(graph.graph.chain(tail), None)
    return row


def _between(graph: ChannelGraph, stage: Stage) -> list[Call]:
    """List what hands on the output of a layer as it is, in training too."""
    behind = graph.graph.chain(stage.tail)
    return list(itertools.takewhile(lambda call: call.kind in _BETWEEN, behind))


def _fits(graph: ChannelGraph, first: Call, calls: Sequence[Call]) -> bool:
    """Return whether calls in a row may be exchanged for the last of them."""
    last = calls[-1]
    if last.kind not in LAYERS or (first.kind == "Dense") != (last.kind == "Dense"):
        return False
    uses = graph.graph.uses
    within = first.name.rpartition("/")[0]
    layer = last.layer
    grouped = getattr(layer, "groups", 1) != 1 and not last.kind.startswith("Depthwise")
    return (
        all(len(uses[call.path]) == 1 for call in calls if call.path in graph.arrays)
        and all(call.name.rpartition("/")[0] == within for call in calls)
        and not any(call.masks for call in calls)
        and len(first.input_shapes[0]) == len(last.input_shapes[0])
        and channel_axis(first, 3) == channel_axis(last, 3)
        and not grouped
        and set(getattr(layer, "dilation_rate", (1,))) == {1}
        and getattr(layer, "kernel_constraint", None) is None
    )


def _map_of(graph: ChannelGraph, call: Call) -> _Map:
    """Read a layer as a linear map, its bias left out."""
    kernel = graph.arrays[call.path]["kernel"].astype("float64")
    if call.kind.startswith("Depthwise"):
        inputs, times = kernel.shape[-2:]
        whole = np.zeros((*kernel.shape[:-2], inputs, inputs * times))
        for unit in range(inputs * times):
            whole[..., unit // times, unit] = kernel[..., unit // times, unit % times]
        kernel = whole
    strides = getattr(call.layer, "strides", ())
    padding = call.layer.padding if pads(call) else "valid"
    return _Map(kernel, np.zeros(kernel.shape[-1]), tuple(strides), padding)


def _made(
    graph: ChannelGraph,
    stage: Stage,
    whole: _Map,
    gone: Sequence[Call],
    saved: int,
    certified: bool,
) -> Composed:
    """Write down what a layer becomes that stands for all before it."""
    path = stage.call.path
    own = graph.arrays[path]
    config: dict[str, Any] = {}
    arrays: Changes = {path: {"kernel": whole.kernel.astype(own["kernel"].dtype)}}
    if whole.strides:
        config = {
            "kernel_size": whole.kernel.shape[:-2],
            "strides": whole.strides,
            "padding": whole.padding,
        }
    alone = stage.norms and len(graph.graph.uses[stage.norms[0].path]) == 1
    if "bias" in own or not alone:
        bias = own.get("bias", np.zeros(1, own["kernel"].dtype))
        config["use_bias"] = True
        arrays[path]["bias"] = (bias + whole.bias).astype(bias.dtype)
    else:
        norm = stage.norms[0].path
        mean = graph.arrays[norm]["moving_mean"]
        arrays[norm] = {"moving_mean": (mean - whole.bias).astype(mean.dtype)}
    names = tuple(one.name for one in gone)
    touched = frozenset({*(one.path for one in gone), *arrays})
    return Composed(names, path, config, arrays, touched, saved, certified)
