"""`prune_hidden`: a smaller hidden size; `residual_streams`: what has one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from tf_spline_prune._checks import (
    BETWEEN,
    COUNT,
    SEED,
    Data,
    Flag,
    OneOf,
    Options,
    checked,
)
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    Stages,
    coarsest_dtype,
    own_outputs,
    require_flavour,
    run_to_ends,
    states_kept,
    warn_of_lost_training,
)
from tf_spline_prune.errors import (
    BudgetError,
    ModelError,
    SplinePruneWarning,
    VerificationError,
    warn,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning._remove_units import build_pruned
from tf_spline_prune.pruning.checks._closeness import times_apart
from tf_spline_prune.pruning.checks._verify import require_verified
from tf_spline_prune.pruning.planning._plan import read_with_data
from tf_spline_prune.pruning.recovery._least_squares import refit
from tf_spline_prune.pruning.recovery._recording import Recording
from tf_spline_prune.pruning.width._looking import look_at
from tf_spline_prune.pruning.width._refitting import refit_rotated
from tf_spline_prune.pruning.width._rotation import (
    Arrays,
    Basis,
    basis_of,
    epsilons,
    rotated,
    run_in_bases,
)
from tf_spline_prune.pruning.width._streams import Stream, streams_of

_MOST_INPUTS = 2048
_COMPARED = 32  # inputs on which the result is verified
_SIZE: Options = [COUNT, BETWEEN]
_RECOVER: Options = [OneOf("auto", "least_squares"), None]


@dataclass(frozen=True)
class ResidualStream:
    """A stream of a model: coupled units that normalisations run over.

    Attributes:
        name: Its name, that of the layer that makes it first.
        size: The number of units: the hidden size.
        norms: The paths of the normalisations.
        writers: The paths of the layers that write into it.
        readers: The paths of the layers that read it.
        reason: Why it cannot be rotated, so that `prune_hidden` chooses among its units
            as they are; empty if it can. Defaults to `""`.

    Example:

    ```python
    for stream in tsp.residual_streams(model):
        print(stream.name, stream.size, stream.reason)
    ```
    """

    name: str
    size: int
    norms: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    reason: str = ""


def residual_streams(model: Any) -> tuple[ResidualStream, ...]:
    """Return the streams of a model whose size `prune_hidden` can make smaller.

    Args:
        model: A built model of either flavour. It is not changed.

    Returns:
        The streams in the order of computation; none where normalisations run over no
        units, or over such as may not be pruned.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.

    Example:

    ```python
    print([stream.size for stream in tsp.residual_streams(model)])
    ```

    Source: as `prune_hidden`.
    """
    require_flavour(model)
    graph = ChannelGraph(model, approximate=True)
    found = []
    for stream in streams_of(graph):
        norms = dict.fromkeys(norm.call.path for norm in stream.norms.values())
        group = stream.group
        found.append(
            ResidualStream(
                name=group.name,
                size=stream.size,
                norms=tuple(norms or group.approximate),
                writers=tuple(dict.fromkeys(m.path for m in group.producers)),
                readers=tuple(dict.fromkeys(m.path for m in group.consumers)),
                reason=stream.reason,
            )
        )
    return tuple(found)


@checked(
    size=_SIZE,
    data=Data(),
    method=OneOf("auto", "rotate", "select"),
    recover=_RECOVER,
    round_to=COUNT,
    seed=SEED,
    verify=Flag(),
)
def prune_hidden(
    model: Any,
    size: int | float,
    *,
    data: Any,
    method: Literal["auto", "rotate", "select"] = "auto",
    recover: None | Literal["auto", "least_squares"] = "auto",
    round_to: int = 1,
    seed: int = 0,
    verify: bool = True,
) -> Any:
    """Make the hidden size of a transformer smaller.

    The hidden size is that of the residual stream, which all blocks read behind a
    normalisation, and into which all of them write. Its units are coupled; and none of
    them alone is dispensable as a rule, for what matters little are directions across
    all of them. So the stream is written in another basis first, its principal axes
    behind the normalisations, which changes no output; then the axes of least variance
    go. Layers keep their classes: the change of basis and the gains of the
    normalisations go into the weights of the layers that write and read the stream, and
    their `epsilon` grows as the number of entries falls.

    LayerNormalization stays what it is. It takes the mean off, so the mean is an axis
    of the new basis as it was one of the old. What it adds is carried by this axis.

    A stream cannot be rotated where something treats its entries apart: where a
    normalisation stands behind the sum (its gain lies on the stream), for activations
    and scales on the stream, and where one table is both embedding and head. Then, or
    with `method="select"`, the units as they are compete: those stay that are largest
    behind the normalisations.

    Models of layers with one hidden size or several can be pruned, each stream to the
    same fraction or number; `residual_streams` lists them. What a model gives out keeps
    its size, so a backbone without a head has no hidden size that could change.

    Args:
        model: A built model of either flavour. It is not changed.
        size: The new hidden size: how many units stay (int), or which fraction of them
            (float).
        data: Inputs to measure on, and to recover with: an array of shape
            `(n, *input shape)`, a list or dict of arrays for several inputs, or batches
            of these. A few hundred are enough; at most 2048 are drawn. Labels are
            ignored.
        method: `"rotate"` writes the stream in principal axes, `"select"` chooses among
            its units. Defaults to `"auto"`: rotated if that is possible; if not, a
            warning says why.
        recover: `"least_squares"` solves the layers that read and write the stream on
            `data`, as the function of this name does; `None` does nothing. Defaults to
            `"auto"`: least squares.
        round_to: Keep a multiple of this many units, as where a class divides them by a
            number of heads. Defaults to `1`.
        seed: Seed of draws from the data. Defaults to `0`.
        verify: Whether the result, before recovery, is compared with the original in
            which every normalisation sees only what is left of the stream. Defaults to
            `True`.

    Returns:
        A new, uncompiled model of the same flavour, of the same layers.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, has NaN weights or no stream, or
            a stream cannot be rotated and `method="rotate"`.
        BudgetError: If the size is none of 1 to what it is, or no multiple of
            `round_to`.
        CalibrationError: If the data are empty, misshapen, not finite, or missing.
        VerificationError: If the result does not compute what it should.
        ValueError: If an argument is out of range.

    Example:

    ```python
    tokens = keras.Input((8,), dtype="int32")
    x = keras.layers.Embedding(50, 32)(tokens)
    for _ in range(2):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, 8)(y, y)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(64, activation="gelu")(y)
        x = x + keras.layers.Dense(32)(y)
    x = keras.layers.LayerNormalization()(x)
    net = keras.Model(tokens, keras.layers.Dense(50)(x))
    data = keras.ops.convert_to_numpy(keras.random.randint((256, 8), 0, 50))
    small = tsp.prune_hidden(net, 0.75, data=data)
    ```

    Source: Ashkboos et al., "SliceGPT: Compress Large Language Models by Deleting Rows
    and Columns", ICLR 2024, with one basis for all blocks; the choice of units as in
    Muralidharan et al., "Compact Language Models via Pruning and Knowledge
    Distillation", NeurIPS 2024.
    """
    require_flavour(model)
    graph, given = read_with_data(model, data, approximate=True)
    streams = streams_of(graph)
    if not streams:
        raise ModelError(_without_stream(graph))
    for stream in streams:
        _left(stream, size, round_to)
    reasons = [f"{one.group.name!r}: {one.reason}" for one in streams if one.reason]
    if reasons and method == "rotate":
        raise ModelError(
            'A stream cannot be rotated; `method="select"` chooses among its units as '
            f"they are. Received: method='rotate', {'; '.join(reasons)}"
        )
    given = given.drawn(_MOST_INPUTS, seed)
    if reasons and method == "auto":
        warn(
            "A stream cannot be rotated, so units of it are chosen as they are: "
            f"{'; '.join(reasons)}.",
            SplinePruneWarning,
        )
    rotates = method != "select" and len(reasons) < len(streams)
    selects = method == "select" or bool(reasons)
    asked = _Asked(size, given, recover is not None, round_to, seed, verify)
    each = 2 + verify + asked.solves
    stages = Stages(each * (rotates + selects), "pruning the hidden size")
    small = graph.model
    if rotates:
        small = _rotated(graph, [s for s in streams if not s.reason], asked, stages)
    if selects:
        if rotates:  # the others have changed what these see
            graph = ChannelGraph(
                small, approximate=True, input_shapes=graph.input_shapes
            )
        chosen = [s for s in streams_of(graph) if method == "select" or s.reason]
        small = _selected(graph, chosen, asked, stages)
    warn_of_lost_training(model, small)
    return small


@dataclass(frozen=True)
class _Asked:
    """What `prune_hidden` is asked for; the attributes are those of its arguments."""

    size: int | float
    data: Calibration
    solves: bool
    round_to: int
    seed: int
    verify: bool


def _without_stream(graph: ChannelGraph) -> str:
    """Explain why a model has no stream, for an error."""
    barriers = [f"{barrier.layer}: {barrier.reason}" for barrier in graph.barriers[:5]]
    why = f" What may not be pruned: {'; '.join(barriers)}." * bool(barriers)
    return (
        "The model has no stream: there are no units that a normalisation such as "
        f"LayerNormalization runs over and that may be pruned.{why} What a model gives "
        f"out keeps its size; put a head behind it. Received: model "
        f"{graph.model.name!r}"
    )


def _left(stream: Stream, size: int | float, round_to: int) -> int:
    """Return how many units of a stream stay.

    Raises:
        BudgetError: If there are not so many, or that is no such multiple.
    """
    left = size
    if isinstance(size, float):
        left = max(1, math.floor(size * stream.size / round_to + 0.5)) * round_to
    if not 1 <= left <= stream.size or left % round_to:
        raise BudgetError(
            f"The stream {stream.group.name!r} has {stream.size} units. Expected: a "
            f"size from 1 to {stream.size} that is a multiple of round_to={round_to}. "
            f"Received: size={size}"
        )
    return int(left)


def _rotated(
    graph: ChannelGraph, streams: Sequence[Stream], asked: _Asked, stages: Stages
) -> Any:
    """Write streams in their principal axes, and keep the first of these."""
    with stages.stage():
        looked = look_at(graph.graph, streams, asked.data)
    bases = [
        basis_of(seen, _left(seen.stream, asked.size, asked.round_to))
        for seen in looked
    ]
    changed: Arrays = {}
    removed = graph.nothing_removed()
    entries: dict[str, Mapping[str, float]] = {}
    for basis in bases:
        rotated(graph, basis, changed)
        removed[basis.stream.group.roots[basis.size :]] = True
        entries.update(epsilons(basis))
    with stages.stage():
        small = build_pruned(graph, removed, changed, entries)
    cut = graph.traced(small)
    if asked.verify:
        with stages.stage():
            _require_alike(graph.graph, bases, cut, asked.data)
    if asked.solves:
        with stages.stage():
            refit_rotated(graph, bases, cut, asked.data, asked.seed)
    return small


def _selected(
    graph: ChannelGraph, streams: Sequence[Stream], asked: _Asked, stages: Stages
) -> Any:
    """Keep those units of streams that are largest behind the normalisations."""
    with stages.stage():
        looked = look_at(graph.graph, streams, asked.data)
    removed = graph.nothing_removed()
    for seen in looked:
        left = _left(seen.stream, asked.size, asked.round_to)
        order = np.argsort(-seen.importance, kind="stable")
        removed[seen.stream.group.roots[order[left:]]] = True
    with stages.stage():
        small = build_pruned(graph, removed, {})
    cut = graph.traced(small)
    if asked.verify:
        with stages.stage():
            require_verified(graph, cut, removed, {})
    if asked.solves:
        with stages.stage():
            refit(graph, cut, removed, Recording(graph, asked.data, seed=asked.seed))
    return small


def _require_alike(
    graph: Graph, bases: Sequence[Basis], cut: Graph, data: Calibration
) -> None:
    """Compare with the original in which only what is left of streams is looked at."""
    inputs, _ = next(data.batches(_COMPARED))
    tensors = [keras.ops.convert_to_tensor(x) for x in inputs]
    with states_kept(graph.model, fresh=True):
        whole = run_in_bases(graph, bases, tensors)
    with states_kept(cut.model, fresh=True):
        found = [own_outputs(cut, inputs), run_to_ends(cut, tensors)[1]]
    times = times_apart(whole, found, coarsest_dtype(graph.model))
    if not times <= 1:
        raise VerificationError(
            "The narrow model computes something else than the original in which every "
            f"normalisation sees what is left of its stream: {times:.2g} times what "
            "rounding explains. The original model is untouched; please report this as "
            "a bug."
        )
