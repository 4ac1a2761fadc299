"""`drop_blocks`: removing whole residual blocks, and `residual_blocks`, to see them."""

import math
from collections.abc import Callable, Sequence
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
    Function,
    ListOf,
    OneOf,
    Options,
    Text,
    checked,
    received,
)
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    Progress,
    Stages,
    check_finite,
    coarsest_dtype,
    fixed_size,
    own_outputs,
    read_weights,
    rebuild,
    require_flavour,
    run_to_ends,
    sample_inputs,
    states_kept,
    trace,
    warn_of_lost_training,
)
from tf_spline_prune.errors import (
    BudgetError,
    CalibrationError,
    ModelError,
    SplinePruneWarning,
    VerificationError,
    warn,
)
from tf_spline_prune.pruning.checks._closeness import times_apart
from tf_spline_prune.pruning.checks._measuring import measured
from tf_spline_prune.pruning.depth._branches import (
    Branch,
    branches_of,
    with_zeros,
    without_branches,
)
from tf_spline_prune.pruning.depth._close_gaps import close_gaps
from tf_spline_prune.pruning.depth._worth import Run, costs_without, turns

Importance = Literal["loss", "cosine"] | Callable[[Any], float]

_MOST_INPUTS = 2048
_COMPARED = 32  # inputs on which the result is verified
_NAME = "the name of a block"
_BLOCKS: Options = [COUNT, BETWEEN, Text(_NAME), ListOf(Text(_NAME), "such names")]
_IMPORTANCE: Options = [
    OneOf("loss", "cosine"),
    Function("a function of a model that returns one number"),
]
_RECOVER: Options = [OneOf("auto", "least_squares"), None]
_DATA: Options = [Data(), None]


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block of a model: what lies between a stream and what is added to it.

    Attributes:
        name: Its name, that of the layer or operation that adds.
        layers: The paths of its layers that have weights.
        params: How many parameters go with it.
        reason: Why it cannot be dropped; empty if it can. Defaults to `""`.
        importance: What dropping it alone costs; `None` if that was not measured.
            Defaults to `None`.

    Example:

    ```python
    for block in tsp.residual_blocks(model, x_train[:256]):
        print(block.name, block.params, block.importance, block.reason)
    ```
    """

    name: str
    layers: tuple[str, ...]
    params: int
    reason: str = ""
    importance: float | None = None


@checked(data=_DATA, importance=_IMPORTANCE, seed=SEED)
def residual_blocks(
    model: Any, data: Any = None, *, importance: Importance = "loss", seed: int = 0
) -> tuple[ResidualBlock, ...]:
    """Return the residual blocks of a model, and what dropping each alone costs.

    Args:
        model: A built model of either flavour. It is not changed.
        data: Inputs to measure on, as in `drop_blocks`. Defaults to `None`: the blocks
            are only listed, unless `importance` is a function.
        importance: What is measured of a block: `"loss"`, `"cosine"` or a function, as
            in `drop_blocks`. Defaults to `"loss"`.
        seed: Seed of a draw from the data. Defaults to `0`.

    Returns:
        The blocks in the order of computation, also those that cannot be dropped, with
        the reason.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        CalibrationError: If the data are empty, misshapen or not finite, or the labels
            do not fit the loss.
        TypeError: If `importance` is a function that gives no number.
        ValueError: If an argument is out of range.

    Example:

    ```python
    blocks = tsp.residual_blocks(model, (x_train[:256], y_train[:256]))
    print([block.name for block in blocks if not block.reason])
    ```

    Source: as `drop_blocks`.
    """
    graph = _traced(model)
    branches = branches_of(graph)
    if data is not None:
        data = Calibration.of(data, graph)
    free = [branch for branch in branches if not branch.reason]
    worth: dict[str, float] = {}
    if free and (data is not None or callable(importance)):
        found = _importances(graph, [[b] for b in free], data, importance, seed)
        worth = dict(zip([branch.name for branch in free], found, strict=True))
    return tuple(
        ResidualBlock(
            name=branch.name,
            layers=tuple(branch.layers),
            params=branch.params,
            reason=branch.reason,
            importance=worth.get(branch.name),
        )
        for branch in branches
    )


@checked(
    blocks=_BLOCKS,
    data=_DATA,
    importance=_IMPORTANCE,
    recover=_RECOVER,
    contiguous=Flag(),
    seed=SEED,
    verify=Flag(),
)
def drop_blocks(
    model: Any,
    blocks: int | float | str | Sequence[str],
    *,
    data: Any = None,
    importance: Importance = "loss",
    recover: None | Literal["auto", "least_squares"] = "auto",
    contiguous: bool = False,
    seed: int = 0,
    verify: bool = True,
) -> Any:
    """Remove whole residual blocks, so that the model becomes less deep.

    A block is a residual branch: all layers between a stream and the `Add` (or `+`)
    where their output is added to it. When it goes, the stream takes the place of the
    sum. Widths stay as they are. Residual networks, transformers and mixers of plain
    layers have such blocks, also inside nested models; `residual_blocks` lists them.

    A block cannot be dropped where no side of the sum is computed from the other, as in
    a projection skip; where the branch takes in something besides the stream, as in
    cross-attention; where shapes differ; where it shares layers with what is outside of
    it, or something else consumes what is computed inside it; where a mask runs along
    with the stream; and inside a layer that cannot be traced.

    With data, the layer before dropped blocks is solved by least squares, so that the
    stream before them becomes what it was behind them in the original. That layer must
    be linear, and its output must go straight into the sum (or be the stream), but for
    BatchNormalization, dropout, and one ReLU right behind the sum. The layers behind
    are then solved in their order for what they gave, as in `least_squares`. Masks of
    single weights are not looked at: their zeros are filled.

    Args:
        model: A built model of either flavour. It is not changed.
        blocks: How many blocks go (int), what fraction of those that may be chosen
            (float), or which: a name or a list of names. What is chosen holds no other
            block; such ones go by name only.
        data: Inputs to measure importance on and to recover with: an array of shape
            `(n, *input shape)`, a list or dict of arrays for several inputs, a tuple of
            inputs and labels, or batches of these. A few hundred are enough; at most
            2048 are drawn. Defaults to `None`; then `blocks` must be names, or
            `importance` a function.
        importance: What is measured of a block; the least important go. `"loss"`: by
            how much the loss rises without it, if there are labels and the model is
            compiled with a loss; else the mean squared change of the outputs (before a
            last softmax or sigmoid), relative to their variance. `"cosine"`: one minus
            the cosine of the stream before and behind it; cheaper and blinder. Or a
            function of the model without it that returns a number, such as a loss on
            validation data. Defaults to `"loss"`.
        recover: `"least_squares"` solves the layers before and behind the gaps on
            `data`, `None` does nothing. Defaults to `"auto"`: least squares if there
            are data.
        contiguous: Whether the blocks must follow one another; then all of them are
            measured together. Defaults to `False`: each is measured alone.
        seed: Seed of draws from the data, and of the inputs to verify on if there are
            none. Defaults to `0`.
        verify: Whether the result, before recovery, is compared with the original in
            which what the branches give is zero. Defaults to `True`.

    Returns:
        A new, uncompiled model of the same flavour. Layers keep their names, and those
        that are not solved keep their weights.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, has NaN weights or no residual
            blocks, or a block that was named cannot be dropped.
        BudgetError: If there are not so many blocks to drop.
        CalibrationError: If the data are empty, misshapen, not finite, or missing, or
            the labels do not fit the loss.
        VerificationError: If the result does not compute what it should.
        TypeError: If `importance` is a function that gives no number.
        ValueError: If a name is unknown, or an argument is out of range.

    Example:

    ```python
    x = inputs = keras.Input((16,))
    for i in range(3):
        y = keras.layers.Dense(32, activation="relu")(x)
        x = keras.layers.Add(name=f"block_{i}")([x, keras.layers.Dense(16)(y)])
    net = keras.Model(inputs, keras.layers.Dense(10)(x))
    data = keras.ops.convert_to_numpy(keras.random.normal((256, 16)))
    small = tsp.drop_blocks(net, 1, data=data)
    small = tsp.drop_blocks(net, ["block_1", "block_2"])
    ```

    Source: Men et al., "ShortGPT: Layers in Large Language Models are More Redundant
    Than You Expect", 2024 (cosine); Gromov et al., "The Unreasonable Ineffectiveness of
    the Deeper Layers", 2024 (contiguous blocks); Veit, Wilber and Belongie, "Residual
    Networks Behave Like Ensembles of Relatively Shallow Networks", NeurIPS 2016.
    """
    graph = _traced(model)
    branches = branches_of(graph)
    if data is not None:
        data = Calibration.of(data, graph)
    elif recover == "least_squares":
        raise CalibrationError(
            "Recovery by least squares needs inputs: give `data`, or recover=None. "
            "Received: recover='least_squares', data=None"
        )
    if not branches:
        raise ModelError(_NONE.format(model.name))
    solves = recover is not None and data is not None
    chosen: list[Branch] = []
    stages = Stages(2 + verify + solves, "dropping blocks")
    with stages.stage():
        if isinstance(blocks, (int, float)):
            one_shape = importance == "cosine"
            runs = _choices(branches, blocks, contiguous, one_shape)
            if data is None and not callable(importance):
                raise CalibrationError(
                    "Which blocks matter least is measured on data; no weights tell. "
                    "Give `data`, or the names of the blocks, or a function as "
                    f"`importance`. Blocks: {_names(branches)}. Received: "
                    f"blocks={blocks}, data=None"
                )
            worth = _importances(graph, runs, data, importance, seed)
            order = np.argsort(worth, kind="stable")
            number = 1 if contiguous else _number(branches, blocks)
            chosen = [b for i in sorted(order[:number]) for b in runs[i]]
        else:
            if contiguous:
                raise ValueError(
                    "`contiguous` is about blocks that are chosen; names say which go. "
                    f"Received: contiguous=True, blocks={received(blocks)}"
                )
            chosen = _named(branches, [blocks] if isinstance(blocks, str) else blocks)
    left = without_branches(graph, chosen)
    with stages.stage():
        small = rebuild(left)
    if verify:
        with stages.stage():
            _require_alike(graph, chosen, small, data, seed)
    if solves:
        with stages.stage():
            solved = close_gaps(graph, chosen, left, small, data, seed)
        if recover == "least_squares" and not solved:
            warn(
                "Nothing is solved, for neither is there a linear layer before the "
                "dropped blocks whose output goes straight into the stream, nor one "
                "behind them with data enough. Received: recover='least_squares', "
                f"blocks {_names(chosen)}",
                SplinePruneWarning,
            )
    warn_of_lost_training(model, small)
    return small


_NONE = (
    "The model has no residual blocks: nothing in it adds to a tensor what is computed "
    "from this tensor, outside of layers that cannot be looked into. Received: model "
    "{!r}"
)


def _traced(model: Any) -> Graph:
    require_flavour(model)
    graph = trace(model)
    for path, layer in graph.layers.items():
        if getattr(layer, "weights", ()):
            check_finite(path, read_weights(layer))
    return graph


def _names(branches: Sequence[Branch]) -> list[str]:
    return [branch.name for branch in branches if not branch.reason]


def _free(branches: Sequence[Branch]) -> list[Branch]:
    """List the blocks that may be chosen: those that hold no other block."""
    return [
        branch
        for branch in branches
        if not branch.reason and not any(branch.holds(other) for other in branches)
    ]


def _number(branches: Sequence[Branch], asked: int | float) -> int:
    """Return how many blocks are to go."""
    if isinstance(asked, int):
        return asked
    return math.floor(asked * len(_free(branches)) + 0.5)


def _choices(
    branches: Sequence[Branch], asked: int | float, contiguous: bool, one_shape: bool
) -> list[Run]:
    """List what may be chosen: single blocks, or so many in a row, maybe of one shape.

    A pooling between blocks changes the shape of the stream.
    """
    free, number = _free(branches), _number(branches, asked)
    reasons = "".join(
        f" {branch.name!r} cannot go: {branch.reason}."
        for branch in branches
        if branch.reason
    )
    if not 1 <= number <= len(free):
        raise BudgetError(
            f"The model has {len(free)} blocks that can be chosen, {_names(free)}, so "
            f"{number} of them cannot go.{reasons} Received: blocks={asked}"
        )
    if number == len(branches):
        raise BudgetError(_ALL.format(_names(free), f"blocks={asked}"))
    if not contiguous:
        return [[branch] for branch in free]
    rows = [free[i : i + number] for i in range(len(free) - number + 1)]
    rows = [row for row in rows if all(map(_follow, row[1:], row))]
    if one_shape:
        rows = [r for r in rows if len({b.add.output_shapes for b in r}) == 1]
    if not rows:
        raise BudgetError(
            f"No {number} blocks that can be dropped follow one another on one stream"
            f"{' of one shape' * one_shape}."
            f"{reasons} Received: blocks={asked}, contiguous=True"
        )
    return list(rows)


def _follow(branch: Branch, before: Branch) -> bool:
    return branch.origin == before.output


_ALL = (
    "Without any residual block nothing is left of the network's depth; keep one at "
    "least. Blocks: {}. Received: {}"
)


def _named(branches: Sequence[Branch], names: Sequence[str]) -> list[Branch]:
    """Find the blocks of these names."""
    known = {branch.name: branch for branch in branches}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"A block is named like the layer or operation that adds. Expected some of "
            f"{_names(branches)}. Received: {unknown}"
        )
    chosen = [branch for branch in branches if branch.name in set(names)]
    for branch in chosen:
        if branch.reason:
            raise ModelError(
                f"The block {branch.name!r} cannot be dropped: {branch.reason}. Those "
                f"that can: {_names(branches)}"
            )
    left = [b for b in branches if b not in chosen]
    if all(any(one.holds(b) for one in chosen) for b in left):
        raise BudgetError(_ALL.format(_names(branches), f"blocks={received(names)}"))
    return chosen


def _importances(
    graph: Graph,
    runs: Sequence[Run],
    data: Calibration | None,
    importance: Importance,
    seed: int,
) -> list[float]:
    """Measure what each choice costs, in the user's way or on data."""
    if callable(importance):
        progress = Progress(len(runs), "model")
        found = []
        for run in runs:
            found.append(measured(importance, rebuild(without_branches(graph, run))))
            progress.step()
    elif data is None:
        raise CalibrationError("Importance is measured on data. Received: data=None")
    else:
        data = data.drawn(_MOST_INPUTS, seed)
        measure = turns if importance == "cosine" else costs_without
        found = measure(graph, runs, data)
    if not np.isfinite(found).all():
        names = [run[0].name for run in runs]
        raise ModelError(
            "The importance of a block is NaN or infinite, so the blocks have no "
            f"order. Received: {dict(zip(names, found, strict=True))}"
        )
    return found


def _require_alike(
    graph: Graph,
    dropped: Sequence[Branch],
    small: Any,
    data: Calibration | None,
    seed: int,
) -> None:
    """Compare the result with the original that adds zeros in the branches' place."""
    if data is None:
        count = fixed_size(graph.inputs) or _COMPARED  # at once
        inputs = sample_inputs(graph, count, seed)
    else:
        inputs, _ = next(data.batches(_COMPARED))
    tensors = [keras.ops.convert_to_tensor(x) for x in inputs]
    cut = trace(small)
    with states_kept(graph.model, fresh=True):
        whole = run_to_ends(graph, tensors, with_zeros(dropped))
    with states_kept(small, fresh=True):
        found = [own_outputs(cut, inputs), run_to_ends(cut, tensors)[1]]
    times = times_apart(whole, found, coarsest_dtype(graph.model))
    if not times <= 1:
        raise VerificationError(
            "The smaller model computes something else than the original with zeros in "
            f"the place of the branches {[b.name for b in dropped]}: {times:.2g} times "
            "what rounding explains. The original model is untouched; please report "
            "this as a bug."
        )
