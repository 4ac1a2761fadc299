"""`prune`: plan, apply, verify and recover in one call."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from tf_spline_prune._checks import Flag, ListOf, OneOf, Options, check, checked
from tf_spline_prune.compat import Calibration, Graph, Stages, require_flavour
from tf_spline_prune.criteria import AnyCriterion
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._cost import WeightDtype
from tf_spline_prune.graph._input_shapes import InputShapes
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.pruning._remove_units import Weights, build_pruned, folded
from tf_spline_prune.pruning.checks._verify import require_verified
from tf_spline_prune.pruning.planning._budget import Sparsity, Target
from tf_spline_prune.pruning.planning._latency import Latency
from tf_spline_prune.pruning.planning._plan import (
    SETTINGS,
    Settings,
    decide,
    read_with_data,
)
from tf_spline_prune.pruning.planning._pruning_plan import WEIGHTS, PruningPlan
from tf_spline_prune.pruning.planning._scopes import Scope
from tf_spline_prune.pruning.recovery._data_free import (
    check_statistics,
    refit_on_drawn,
)
from tf_spline_prune.pruning.recovery._least_squares import refit
from tf_spline_prune.pruning.recovery._recalibrate_batchnorm import recalibrate
from tf_spline_prune.pruning.recovery._recording import Recording

_STEPS = ("merge", "data_free", "least_squares", "batchnorm")  # in this order
_WITH_DATA = _STEPS[2:]
_RECOVER: Options = [OneOf("auto", *_STEPS), ListOf(OneOf(*_STEPS), "steps", 0), None]


@checked(**SETTINGS, weights=WEIGHTS, verify=Flag())
def prune(
    model: Any,
    criterion: AnyCriterion = "auto",
    *,
    sparsity: Sparsity | None = None,
    target_macs: Target | None = None,
    target_params: Target | None = None,
    target_bytes: Target | None = None,
    weight_dtype: WeightDtype | None = None,
    target_latency: Target | None = None,
    latency: Latency | None = None,
    scope: Scope = "auto",
    layers: Selector = None,
    data: Any = None,
    round_to: int = 1,
    min_units: int = 1,
    max_sparsity: float | None = None,
    approximate: bool = False,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
    recover: None | str | Sequence[str] = "auto",
    weights: Literal["inherit", "reinitialize"] | Any = "inherit",
    verify: bool = True,
) -> Any:
    """Prune a model: plan, apply, verify and recover in one call.

    Args:
        model: A built model of either flavour. It is not changed.
        criterion: How units are ranked: a name such as `"spline"` or `"magnitude"`, an
            instance of `criteria.Criterion`, or a function `(graph, group) -> array of
            shape (units,)`, higher means keep. Defaults to `"auto"`: `"reconstruction"`
            with `data`, `"spline"` without.
        sparsity: Fraction of the prunable units to prune, in [0, 1); or one fraction
            per layer, from a dictionary of names or a function of the layer. Defaults
            to `None`.
        target_macs: Multiply-accumulates to keep at most: a fraction of the model's
            (float), a number (int), or a text such as `"50%"`. Defaults to `None`.
        target_params: Parameters to keep at most, likewise. Defaults to `None`.
        target_bytes: Bytes of the weights to keep at most, likewise. Defaults to
            `None`.
        weight_dtype: Dtype in which `target_bytes` counts the weights: `"float32"`,
            `"float16"` or `"int8"`. Defaults to `None`, as the model holds them.
        target_latency: Latency to keep at most: a fraction of the model's (float) or
            microseconds (int). Defaults to `None`.
        latency: Where latencies come from: a function of a model that returns
            microseconds, or a table of microseconds by layer and number of kept units.
            Defaults to `None`, which measures LiteRT on this machine.
        scope: What is ranked together: `"global"`, `"layer"`, `"isomorphic"`,
            `"uniform"`, `"regions"`, or pools of layers (a dictionary or a function of
            the layer); see `plan`. Defaults to `"auto"`: `"uniform"` for a model whose
            class says the sizes of its blocks, as far as that suffices, so that it
            stays of the class; else `"layer"` for `"reconstruction"`, `"global"` for
            others.
        layers: Layers that may be pruned: a name, a regular expression, a list of
            these, or a function of the layer. Defaults to `None`, which means all.
        data: Inputs for recovery and for criteria that need any: an array of shape `(n,
            *input shape)`, a list or dict of arrays for several inputs, a tuple of
            inputs and labels, or batches of these. Sample weights of shape `(n,
            positions)` behind the labels leave out positions of weight 0, such as
            padding. A few hundred are enough. Defaults to `None`.
        round_to: Keep a multiple of this many units of each group. Defaults to `1`.
        min_units: Keep at least this many units of each group. Defaults to `1`.
        max_sparsity: Prune at most this fraction of a group, in [0, 1). Defaults to
            `None`: 0.9, or more if `sparsity` asks for more.
        approximate: Whether units under a LayerNormalization or its like may be pruned,
            which changes its statistics. Defaults to `False`.
        input_shapes: For names of inputs the shapes, without the batch axis, at which a
            model of open sizes is read and counted: `{"token_ids": (128,)}`. Defaults
            to `None`: those of `data`; without data any, and where a layer can only be
            read at a known size, 16.
        seed: Seed of everything random. Defaults to `0`.
        recover: How to recover, before any training and without labels: `"merge"` folds
            pruned units into their twins, `"least_squares"` refits the consumers'
            weights on `data`, `"data_free"` refits them on drawn inputs, by what
            BatchNormalization has seen in training, `"batchnorm"` recalibrates
            BatchNormalization on `data`; or a list of these; `None` does nothing.
            Defaults to `"auto"`, which merges, and refits if there are data.
        weights: `"inherit"` slices the model's weights, `"reinitialize"` draws new
            ones, and another model of the same structure gives its own (to rewind to).
            Defaults to `"inherit"`.
        verify: Whether the result is compared with the original in which every
            consumer's weights for the pruned units are zero. A
            `BlindVerificationWarning` says if the comparison could not have seen a
            fault. Defaults to `True`.

    Returns:
        A new, plain, uncompiled model of the same flavour, layer names kept.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt, cannot be traced, or has NaN weights.
        BudgetError: If the target is above what is there or out of reach.
        CalibrationError: If the data are empty, misshapen, not finite, or missing.
        VerificationError: If the result does not compute what it should.
        ValueError: If an argument is out of range.

    Example:

    ```python
    small = tsp.prune(model, target_macs=0.5, data=x_train[:512])
    small.compile("adam", "sparse_categorical_crossentropy")
    small.fit(train, epochs=10)
    ```
    """
    require_flavour(model)
    steps = recovery_steps(recover, weights, data is not None)
    asked = Settings.of(
        criterion=criterion,
        sparsity=sparsity,
        target_macs=target_macs,
        target_params=target_params,
        target_bytes=target_bytes,
        weight_dtype=weight_dtype,
        target_latency=target_latency,
        latency=latency,
        scope=scope,
        layers=layers,
        data=data,
        round_to=round_to,
        min_units=min_units,
        max_sparsity=max_sparsity,
        approximate=approximate,
        seed=seed,
    )
    graph, data = read_with_data(model, data, approximate, input_shapes)
    asked = replace(asked, data=data)
    stages = Stages(2 + verify + _after(steps), "pruning")
    recording = None
    if "least_squares" in steps:
        # Made before the criterion, which may run the same data through the model.
        recording = Recording(graph, asked.data, seed=seed)
    with stages.stage():
        decision, _ = decide(graph, asked)
    found = carried_out(
        graph, decision, asked.data, steps, weights, verify, seed, stages, recording
    )
    return found[0]


def carry_out(
    model: Any,
    decision: PruningPlan,
    *,
    data: Any = None,
    recover: None | str | Sequence[str] = "auto",
    weights: Literal["inherit", "reinitialize"] | Any = "inherit",
    verify: bool = True,
    seed: int = 0,
) -> tuple[Any, float | None]:
    """Do what a plan says, and what `prune` does besides: recover and verify.

    Args:
        model: The model that the plan was made for. It is not changed.
        decision: The plan.
        data: As in `prune`.
        recover: As in `prune`.
        weights: As in `prune`.
        verify: As in `prune`.
        seed: As in `prune`.

    Returns:
        The small model, and the relative error that the verification found; NaN
        where it was blind, `None` where nothing was compared.

    Raises:
        PlanError: If the plan was made for another structure.
        CalibrationError: If the data are empty, misshapen, not finite, or missing.
        VerificationError: If the result does not compute what it should.
        ValueError: If an argument is out of range.
    """
    steps = recovery_steps(recover, weights, data is not None)
    graph = decision.graph_of(model)
    if data is not None:
        data = Calibration.of(data, graph.graph)
    return carried_out(graph, decision, data, steps, weights, verify, seed)


def carried_out(
    graph: ChannelGraph,
    decision: PruningPlan,
    data: Calibration | None,
    steps: Sequence[str],
    weights: Literal["inherit", "reinitialize"] | Any = "inherit",
    verify: bool = True,
    seed: int = 0,
    stages: Stages | None = None,
    recording: Recording | None = None,
) -> tuple[Any, float | None]:
    """Carry a plan out on a model that is read already.

    Args:
        graph: The channel graph of the model that the plan was made for.
        decision: The plan.
        data: The data, if there are any.
        steps: What `recovery_steps` gave.
        weights: As in `prune`.
        verify: As in `prune`.
        seed: As in `prune`.
        stages: The bar to show, if it shows what came before, too.
        recording: What the recovery needs of the model, if that is made already.

    Returns:
        As `carry_out`.
    """
    if "data_free" in steps:
        check_statistics(graph.graph)
    stages = stages or Stages(1 + verify + _after(steps), "pruning")
    removed = graph.removal(dict(decision.removed))
    source = graph
    overlay: Weights | None = None
    if not isinstance(weights, str):
        source = decision.graph_of(weights)
        overlay = source.arrays
    elif weights == "inherit":
        overlay = folded(graph, decision.merges) if "merge" in steps else {}
    with stages.stage():
        small = build_pruned(graph, removed, overlay)
    cut, error = graph.traced(small), None
    if verify and overlay is not None:
        changed = overlay if source is graph else {}
        with stages.stage():
            error = require_verified(source, cut, removed, changed)
    recover_weights(graph, cut, removed, data, steps, seed, recording, stages)
    return small, error


def recover_weights(
    graph: ChannelGraph,
    cut: Graph,
    removed: np.ndarray,
    data: Calibration | None,
    steps: Sequence[str],
    seed: int = 0,
    recording: Recording | None = None,
    stages: Stages | None = None,
) -> None:
    """Recover a smaller model, in place; a merge has been made while cutting.

    Args:
        graph: The channel graph of the original.
        cut: The smaller model, traced; its weights change.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        data: The data, if there are any.
        steps: What `recovery_steps` gave.
        seed: As in `prune`.
        recording: What the recovery needs of the original, if that is made already.
        stages: The bar of which each step is a stage. Defaults to `None`: each step
            has its own.
    """

    def stage() -> contextlib.AbstractContextManager[None]:
        return stages.stage() if stages else contextlib.nullcontext()

    if "data_free" in steps:
        with stage():
            refit_on_drawn(graph, cut, removed, seed)
    if "least_squares" in steps and data is not None:
        with stage():
            recording = recording or Recording(graph, data, seed=seed)
            refit(graph, cut, removed, recording)
    if "batchnorm" in steps and data is not None:
        with stage():
            recalibrate(cut, data)


def _after(steps: Sequence[str]) -> int:
    """Count the steps of recovery on the small model; a merge is made while cutting."""
    return sum(step != "merge" for step in steps)


def recovery_steps(
    recover: None | str | Sequence[str], weights: Any, has_data: bool
) -> tuple[str, ...]:
    """Find the steps of recovery that `recover` means.

    Args:
        recover: As in `prune`.
        weights: As in `prune`.
        has_data: Whether there are inputs to look at.

    Returns:
        The steps.

    Raises:
        CalibrationError: If a step needs inputs and there are none.
        ValueError: If a step is unknown, or the weights are not the model's own.
    """
    recover = check("recover", recover, _RECOVER)
    inherits = isinstance(weights, str) and weights == "inherit"
    if recover == "auto":
        return (("merge", "least_squares") if has_data else ("merge",)) * inherits
    asked = (
        () if recover is None else (recover,) if isinstance(recover, str) else recover
    )
    if asked and not inherits:
        raise ValueError(
            "Recovery repairs the model's own weights, so it goes with "
            f'weights="inherit" only. Received: recover={recover!r}'
        )
    blind = [step for step in asked if step in _WITH_DATA]
    if blind and not has_data:
        raise CalibrationError(
            f"{blind} need calibration inputs: `data=x_train[:512]`. Labels are not "
            "needed. Received: data=None"
        )
    return tuple(asked)
