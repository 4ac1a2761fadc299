"""`Spline`: of two units that cut the input space alike, one is redundant."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from tf_spline_prune._checks import COUNT, OneOf, Real, hold
from tf_spline_prune.criteria._criterion import (
    Normalizer,
    PairCriterion,
    Reduction,
    Rows,
    UnitPairs,
    reduced_rows,
)
from tf_spline_prune.graph import ChannelGraph, Group, Member
from tf_spline_prune.graph._unit_path import batchnorm_factor
from tf_spline_prune.partition import PartitionCoder, probes

Mode = Literal["paper", "hyperplane", "unit", "code"]
_ROUNDING = 1e-6
# So many distances are worked on together, that the processor has them at hand.
_AT_ONCE = 2**17


@dataclass
class Spline(PairCriterion):
    """Compare how two units cut the input space of their layer.

    A unit's subdivision line is where its activation changes slope. With the
    effective weights `w` (BatchNormalization folded in), the offset `b`, and
    `b~ = b / |w|` in standard deviations of the layer's input, the distance is

    - `"paper"`: `1 - |cos(w, w')| + rho |b - b'|`, as published: the course of
      the boundary alone, and not invariant to the scale of a unit;
    - `"hyperplane"`: `1 - |cos| + rho |b~ - sign(cos) b~'|`: the same boundary;
    - `"unit"`: `1 - cos + rho |b~ - b~'|`: the same function up to a positive scale,
      the only kind that a ReLU network can merge without loss;
    - `"code"`: the fraction of probe inputs, and positions, at which the two units'
      codes differ.

    Distances are averaged over the group's layers. Of the closest remaining pair the
    unit of smaller `|w| |outgoing|` is pruned, and so on; units without any weight are
    pruned first. The twin that is kept, and the scale that merging needs, are stored in
    the plan.

    Args:
        mode: One of the four above. Defaults to `"unit"`.
        rho: Weight of the offsets against the angle. Defaults to `1.0`.
        num_points: Size of the Gaussian probe that `"code"` uses without data. Defaults
            to `1024`.
        reduction: How the distances of a group's layers are joined: `"mean"`, `"sum"`,
            `"max"` or `"first"`. Defaults to `"mean"`.
        normalizer: What the distances of each group are divided by: `"mean"`, `"max"`,
            `"sum"` or `"none"`. Defaults to `"mean"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, tsp.criteria.Spline(mode="unit"), target_macs=0.5)
    ```

    Source: You et al., "Max-Affine Spline Insights Into Deep Network Pruning",
    TMLR 2022, section 3 (`"paper"`); the other modes are this package's.
    """

    mode: Mode = "unit"
    rho: float = 1.0
    num_points: int = 1024
    reduction: Reduction = "mean"
    normalizer: Normalizer = "mean"
    name: ClassVar[str] = "spline"

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, mode=OneOf(*get_args(Mode)), rho=Real(0), num_points=COUNT)

    def pairs(self, group: Group) -> UnitPairs:
        """Return the distances between the units of a group."""
        kernels = [
            m
            for m in group.members
            if m.role == "out" or (m.role == "channel" and m.name.endswith("kernel"))
        ]
        lengths, rows, silent = [], [], []
        first: np.ndarray | None = None
        for member in kernels:
            weights, offsets, spread = effective_weights(self.graph, group, member)
            length = np.linalg.norm(weights, axis=1)
            lengths.append(length)
            if member.role == "out":
                still = length == 0  # or too short for the square of a number
                still[still] = ~weights[still].any(axis=1)
                silent.append(still & ~offsets.any(axis=1))
            direction = _normalised(weights, length)
            if member is group.producers[0]:
                first, made = direction, length
            if self.mode == "code":
                rows.append(self._code_rows(group, member))
            else:
                rows.append(self._rows(direction, length, offsets, spread))
            del weights
        outgoing = np.zeros(group.num_units)
        for member in group.consumers:
            outgoing += self.graph.lengths(member) ** 2

        joint = reduced_rows(rows, self.reduction)

        def to_itself_zero(chosen: np.ndarray) -> np.ndarray:
            distances = joint(chosen)
            # Units without any weight have no direction, so no cosine of 1.
            distances[np.arange(len(chosen)), chosen] = 0.0
            return distances

        def scale(units: np.ndarray, twins: np.ndarray) -> np.ndarray:
            if first is None:
                return np.zeros(len(units))
            cosine = np.zeros(len(units))
            for start in range(0, first.shape[1], 256):  # never a copy of all rows
                part = np.ascontiguousarray(first[:, start : start + 256])
                cosine += np.einsum("nd,nd->n", part[units], part[twins])
            fits = (cosine > 0) & (made[twins] > 0)
            return np.where(fits, made[units] / np.where(fits, made[twins], 1.0), 0.0)

        return UnitPairs(
            worth=_joint_length(lengths) * np.sqrt(outgoing),
            dead=np.all(silent, axis=0),
            rows=to_itself_zero,
            scale=scale,
        )

    def _rows(
        self,
        direction: np.ndarray,
        length: np.ndarray,
        offset: np.ndarray,
        spread: float,
    ) -> Rows:
        """Return the distances of a layer's units, row by row."""
        if self.mode != "paper":
            safe = np.where(length > 0, length, 1.0)[:, None]
            offset = offset / (safe * spread)
        offset = offset.astype("float32")

        def rows(chosen: np.ndarray) -> np.ndarray:
            # One array times its own transpose takes half the work of two arrays.
            whole = np.array_equal(chosen, np.arange(len(direction)))
            distances = (direction if whole else direction[chosen]) @ direction.T
            step = max(1, _AT_ONCE // len(direction))
            for start in range(0, len(chosen), step):
                some = slice(start, start + step)
                distances[some] = distance(distances[some], chosen[some])
            return distances

        def distance(cosine: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            np.clip(cosine, -1.0, 1.0, out=cosine)
            found = 1.0 - (cosine if self.mode == "unit" else np.abs(cosine))
            for column in offset.T:
                other = column[None, :]
                if self.mode == "hyperplane":
                    other = np.where(cosine < 0, -other, other)
                gap = np.abs(column[chosen, None] - other)
                found += self.rho * gap / offset.shape[1]
            # Rounding must not tell apart units that are the same.
            return np.where(found < _ROUNDING, 0.0, found)

        return rows

    def _code_rows(self, group: Group, member: Member) -> Rows:
        """Compare the units' codes on a probe, over all inputs and positions."""
        call = self.graph.path_of(group).activation.get(member.path)
        coder = PartitionCoder(self.graph.model, max_units_per_layer=None)
        if call not in coder.layers:
            raise ValueError(
                'Spline(mode="code") compares units at their activation, but the '
                f"units of {member.path!r} do not run into a single one. Use another "
                "mode, or leave this layer out with `layers=`."
            )
        probe: Any = None if self.data is None else self.data.inputs
        if probe is None:
            shape = self.graph.graph.inputs[0].shape[1:]
            probe = probes.noise(shape, self.num_points, self.seed)  # type: ignore[arg-type]
        coder = PartitionCoder(
            self.graph.model, layers=[call], max_units_per_layer=None
        )
        codes = coder(probe)
        order = np.argsort(codes.units[call], kind="stable")
        width = codes.num_knots[call] // codes.layout.num_units[call]
        bits = codes.unpack(call)[:, order].reshape(codes.num_points, -1, width)
        signs = bits.transpose(1, 0, 2).reshape(bits.shape[1], -1)
        signs = (2.0 * signs - 1.0).astype("float32")[member.positions]
        signs = signs.reshape(len(member.positions), -1)

        def rows(chosen: np.ndarray) -> np.ndarray:
            return 0.5 - 0.5 * (signs[chosen] @ signs.T) / signs.shape[1]

        return rows


def _joint_length(lengths: list[np.ndarray]) -> np.ndarray:
    """Join the lengths of several layers, each in units of its own mean."""
    if len(lengths) == 1:
        return lengths[0]
    return np.asarray(sum(one / one.mean() for one in lengths if one.any()))


def _normalised(rows: np.ndarray, length: np.ndarray) -> np.ndarray:
    safe = np.where(length > 0, length, 1.0).astype(rows.dtype)
    return np.asarray((rows / safe[:, None]).astype("float32", copy=False))


def effective_weights(
    graph: ChannelGraph, group: Group, member: Member
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the affine map that each unit applies before its activation.

    Args:
        graph: The channel graph.
        group: A group.
        member: A kernel that makes the group's units or filters them one by one.

    Returns:
        Weights of shape `(units, d)`; offsets of shape `(units, m)`, one an
        output channel of the unit; and the standard deviation of the layer's
        input along a unit's direction, as the statistics of the
        BatchNormalization tell it (1 where there is none).
    """
    rows = graph.rows(member)
    prefix, _, name = member.name.rpartition("/")
    norms = graph.path_of(group).norms.get(member.path, ())
    # Of a separable layer, the first half; bias and norms are behind the second.
    # Of a recurrent layer, the second kernel; the first one has the bias.
    inner = name in ("depthwise_kernel", "recurrent_kernel")
    offsets = _vector(graph, group, member.path, f"{prefix}/bias".lstrip("/"))
    if offsets is None or inner:
        offsets = np.zeros((len(rows), 1))
    scale = None
    for path in () if inner else norms:
        variance = _vector(graph, group, path, "moving_variance")
        mean = _vector(graph, group, path, "moving_mean")
        if variance is None or mean is None:
            continue
        given = _vector(graph, group, path, "gamma")
        beta = _vector(graph, group, path, "beta")
        scale = np.ones_like(variance) if given is None else given
        weights = {"gamma": scale, "moving_variance": variance}
        factor = batchnorm_factor(graph.layer(path), weights)
        # A unit may have several places, and a depthwise one several outputs.
        places = member.positions.shape[1]
        shape = (len(rows), places, 1, factor.shape[1] // places)
        blocks = rows.reshape(*shape[:2], -1, shape[3]) * factor.reshape(shape)
        rows = blocks.reshape(len(rows), -1)
        offsets = (0 if beta is None else beta) + factor * (offsets - mean)
    spread = 1.0
    if scale is not None:
        # Behind a BatchNormalization a unit varies by |scale|: by the length of
        # its weights times the spread of the input in their direction.
        unit_scale = np.abs(scale).mean(axis=1)
        length = np.linalg.norm(rows, axis=1)
        ratio = unit_scale[length > 0] / length[length > 0]
        spread = float(np.median(ratio)) if ratio.size and np.median(ratio) > 0 else 1.0
    return rows, offsets, spread


def _vector(
    graph: ChannelGraph, group: Group, path: str, name: str
) -> np.ndarray | None:
    """Read what a weight with one entry per output holds, shape `(units, m)`."""
    member = group.member(path, name)
    return None if member is None else graph.rows(member)
