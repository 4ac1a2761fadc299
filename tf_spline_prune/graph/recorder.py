"""`Recorder`: what the rules write down while the graph is walked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune.compat import Call, read_weights
from tf_spline_prune.graph.axes import Labels, TensorAxes
from tf_spline_prune.graph.facts import Resize, Role, WeightFact


class Recorder:
    """Collects units, ties, barriers and weights; `solve` draws the conclusion.

    A *label* is an integer that names one unit of one layer. Ties say that two
    labels are the same unit of the network; barriers that a label must stay.
    """

    def __init__(self) -> None:
        self.weights: dict[tuple[str, str], WeightFact] = {}
        self.resizes: list[Resize] = []
        self._made: dict[tuple[str, int], Labels] = {}
        self._count = 0
        self._ties: list[tuple[Labels, Labels]] = []
        self._bars: list[tuple[Labels, str]] = []
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def fresh(self, size: int) -> Labels:
        """Name `size` new units."""
        self._count += size
        return np.arange(self._count - size, self._count)

    def units(self, call: Call, size: int, axis: int = 0) -> Labels:
        """Name the units that a layer makes, the same for all uses of the layer."""
        key = (call.path, axis)
        if key not in self._made:
            self._made[key] = self.fresh(size)
        return self._made[key]

    def read(self, value: TensorAxes, axis: int, call: Call) -> Labels:
        """Give the labels of an axis that a layer reads by position."""
        labels = value.labels[axis]
        if labels is None:
            size = value.shape[axis]
            if size is None:
                raise ValueError(f"{call.path} reads an axis of unknown size.")
            labels = self.fresh(size)
            self.bar(labels, f"{call.path} reads positions that are no units")
        return labels

    def tie(self, first: Labels, second: Labels) -> None:
        """Say that two arrays of labels name the same units, entry by entry."""
        if first is not second:
            self._ties.append((first.ravel(), second.ravel()))

    def bar(self, labels: Labels, reason: str) -> None:
        """Say that units must stay, and why."""
        self._bars.append((labels.ravel(), reason))

    def bar_tensor(self, value: TensorAxes, reason: str) -> None:
        """Say that all units of a tensor must stay, and why."""
        for labels in value.labels:
            if labels is not None:
                self.bar(labels, reason)

    def bar_space(self, value: TensorAxes, channel: int, call: Call) -> None:
        """Say that units on other axes than the channels' must stay.

        A layer that moves along an axis, or pools over it, mixes its positions.
        """
        for axis in value.labelled:
            labels = value.labels[axis]
            if axis != channel and labels is not None:
                self.bar(labels, f"{call.path} mixes positions along these units")

    def weight(
        self,
        call: Call,
        name: str,
        axes: Sequence[Labels | None],
        roles: Sequence[Role | None],
        uses: int | None = 0,
        rows: Sequence[Labels] = (),
    ) -> None:
        """Say whose units the axes of a weight hold; no-op without that weight.

        A layer that is used several times holds the same units in every use.
        """
        if call.path not in self._shapes:
            self._shapes[call.path] = {
                n: w.shape for n, w in read_weights(call.layer).items()
            }
        shape = self._shapes[call.path].get(name)
        if shape is None:
            return
        key = (call.path, name)
        if key in self.weights:
            known = self.weights[key]
            for old, new in zip(known.axes, axes, strict=True):
                if old is not None and new is not None:
                    self.tie(old, new)
            uses = None if uses is None or known.uses is None else uses + known.uses
            axes, roles = known.axes, known.roles
        self.weights[key] = WeightFact(
            call.path, name, shape, tuple(axes), tuple(roles), uses, tuple(rows)
        )

    def vector(self, call: Call, name: str, labels: Labels) -> None:
        """Say that a weight holds one entry a unit, such as a bias."""
        self.weight(call, name, (labels,), ("channel",))

    def resize(
        self, call: Call, key: str, labels: Labels, index: int | None = None
    ) -> None:
        """Say that an entry of the layer's config counts units."""
        self.resizes.append(Resize(call.path, key, labels, index))

    def solve(self) -> tuple[np.ndarray, dict[int, str]]:
        """Find which labels name the same unit, and which units must stay.

        Returns:
            Array of shape `(labels,)`, the unit of each label (its smallest
            label), and the reason for each unit that must stay.
        """
        root = np.arange(self._count)
        if self._ties:
            first = np.concatenate([a for a, _ in self._ties])
            second = np.concatenate([b for _, b in self._ties])
            while True:
                # Hook the larger root to the smaller one, then shorten the paths.
                low = np.minimum(root[first], root[second])
                high = np.maximum(root[first], root[second])
                if np.array_equal(low, high):
                    break
                np.minimum.at(root, high, low)
                while not np.array_equal(root, root[root]):
                    root = root[root]
        reasons: dict[int, str] = {}
        for labels, reason in self._bars:
            for unit in np.unique(root[labels]).tolist():
                reasons.setdefault(unit, reason)
        return root, reasons


def tensors(args: Any, kwargs: Any) -> list[TensorAxes]:
    """List the tensors among the arguments of a call."""
    found: list[TensorAxes] = []

    def visit(part: Any) -> None:
        if isinstance(part, TensorAxes):
            found.append(part)
        elif isinstance(part, dict):
            for item in part.values():
                visit(item)
        elif isinstance(part, (list, tuple)):
            for item in part:
                visit(item)

    visit((args, kwargs))
    return found
