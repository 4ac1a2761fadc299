"""`report`: what pruning saved, counted, measured and evaluated."""

import functools
import gzip
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_spline_prune._checks import Function, Having, Integer, Real, checked, received
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    Progress,
    compile_alike,
    fixed_size,
    is_compiled,
    require_flavour,
    states_kept,
    with_weights,
)
from tf_spline_prune.errors import CalibrationError, ModelError, PlanError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._cost import cost_after, why_no_macs
from tf_spline_prune.litert import Runner, convert, interleaved_latencies
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning._remove_units import PLAN
from tf_spline_prune.reporting._report_table import Report

Evaluate = Callable[[Any], float | Mapping[str, float]]
Score = Callable[[], dict[str, float]]


def scores_of(
    graphs: tuple[Graph, Graph], data: Any, evaluate: Evaluate | None
) -> tuple[Score, ...]:
    """Prepare the evaluation of two models; everything is checked before it begins.

    Args:
        graphs: The two traced models.
        data: Labelled data, or `None`.
        evaluate: The user's measure, or `None`.

    Returns:
        A function for each model that gives its scores by name; none if there is
        neither `data` nor `evaluate`.

    Raises:
        CalibrationError: If the data do not fit, have no labels, or end after one
            reading or never.
        ModelError: If there are data and no model is compiled.
        TypeError: If `evaluate` is no function; when called, if it gives no number.
        ValueError: If there are both.
    """
    models = [graph.model for graph in graphs]
    if data is None and evaluate is None:
        return ()
    if data is not None and evaluate is not None:
        raise ValueError(
            "Give either `data`, for the models' own metrics, or `evaluate`. Received: "
            "both"
        )
    if evaluate is not None:
        measure = evaluate
    else:
        _check_labelled(data, graphs[0])
        models = _evaluable(models)

        def measure(model: Any) -> Mapping[str, float]:
            options: dict[str, Any] = {"verbose": 0, "return_dict": True}
            if not isinstance(data, tuple):
                return model.evaluate(data, **options)
            weights = data[2] if len(data) > 2 else None
            size = fixed_size(graphs[0].inputs)  # `None` is Keras' own default
            return model.evaluate(
                *data[:2], batch_size=size, sample_weight=weights, **options
            )

    def measured(model: Any) -> dict[str, float]:
        with states_kept(model):
            return _named(measure(model))

    return tuple(functools.partial(measured, model) for model in models)


def _named(found: Any) -> dict[str, float]:
    values = found if isinstance(found, Mapping) else {"score": found}
    try:
        return {str(name): float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`evaluate(model)` must return one number, such as an accuracy, or a "
            f"dictionary of numbers by name. Received: {received(found)} of type "
            f"{type(found).__name__}"
        ) from error


def _evaluable(models: list[Any]) -> list[Any]:
    """Put a copy, compiled like the other, in the place of a model that is not."""
    done = [model for model in models if is_compiled(model)]
    if not done:
        raise ModelError(
            "Neither model is compiled, so there are no metrics for `data`. Compile "
            f"one of them, or give `evaluate`. Received: models {models[0].name!r} "
            f"and {models[1].name!r}."
        )
    found = []
    for model in models:
        if not is_compiled(model):
            model = with_weights(model, {})
            compile_alike(done[0], model)
            if not is_compiled(model):
                raise ModelError(
                    "The compile settings of one model cannot be recreated for the "
                    "other. Compile both, or give `evaluate`. Received: model "
                    f"{model.name!r}, which is not compiled."
                )
        found.append(model)
    return found


def _check_labelled(data: Any, graph: Graph) -> None:
    """Raise unless both models can be evaluated on the data, judging by one batch."""
    endless = getattr(data, "cardinality", None)
    if callable(endless) and int(endless()) == -1:
        raise CalibrationError(
            "The data set never ends. Take a part of it: `dataset.take(8)`."
        )
    first = data
    if hasattr(data, "__getitem__") and not isinstance(data, (tuple, list, Mapping)):
        first = data if hasattr(data, "__array__") else data[0]
    elif isinstance(data, Iterable) and not isinstance(data, (tuple, list, Mapping)):
        batches = iter(data)
        if batches is data:
            raise CalibrationError(
                "An iterator is used up by the first model. Give what can be read "
                "twice: arrays, a `tf.data.Dataset`, a `keras.utils.Sequence`. "
                f"Received: an object of type {type(data).__name__}"
            )
        first = next(batches, data)
    if Calibration.of(first, graph).labels is None:
        raise CalibrationError(
            "Metrics need labels: `(inputs, labels)`, or batches of such. Received: "
            f"an object of type {type(data).__name__} without labels"
        )


_MEASURED = ("tflite_bytes", "gzip_bytes", "latency_us")


@checked(
    plan=[PLAN, None],
    evaluate=[
        Function("a function of a model that returns a number, or numbers by name"),
        None,
    ],
    bird=[
        Having(
            "ticket_epoch",
            "records",
            what="an early-bird detector, such as `tsp.SplineEarlyBird`",
        ),
        None,
    ],
    num_threads=Integer(1, 1024),
)
def report(
    model: Any,
    pruned: Any,
    *,
    plan: PruningPlan | None = None,
    data: Any = None,
    evaluate: Evaluate | None = None,
    bird: Any = None,
    num_threads: int = 1,
) -> Report:
    """Report what pruning saved: count, measure and, if asked, evaluate.

    Both models are converted for LiteRT in memory and timed in turns. Where that
    cannot be done the report comes without these rows, and with the reason.

    Args:
        model: The original model.
        pruned: The pruned model, of the same flavour, inputs and outputs.
        plan: The plan that led from the one to the other: the report then says what was
            asked and what was achieved. Defaults to `None`.
        data: Labelled data, on which each model's own metrics are taken: a tuple of
            inputs and labels (and sample weights), or batches of such, as
            `Model.evaluate` takes them. Of a model that is not compiled a copy is
            evaluated, compiled like the other. Defaults to `None`.
        evaluate: In the place of `data`: takes a model, and returns a number or a
            dictionary of numbers by name. It is called with the two models themselves.
            Defaults to `None`.
        bird: An early-bird detector that has watched a training, whether it has fired
            or not. Defaults to `None`.
        num_threads: Number of CPU threads for the latencies. Defaults to `1`.

    Returns:
        The report: print it, or call `to_dict` or `to_html`.

    Raises:
        FlavourError: If one is no Keras model, or the two are of different
            flavours.
        ModelError: If one is unbuilt, cannot be traced, or has NaN weights; if the
            two have other inputs or outputs; if there are data and neither is
            compiled.
        PlanError: If the plan was made for another model than `model`, or leads to
            another one than `pruned`.
        CalibrationError: If the data do not fit or have no labels.
        TypeError: If `evaluate` is no function or gives no number, or `plan` or
            `bird` is something else.
        ValueError: If there are both `data` and `evaluate`, or the number of
            threads is not positive.

    Example:

    ```python
    report = tsp.report(model, small, data=(x_test, y_test), bird=bird)
    print(report)
    report.to_html("report.html")
    ```
    """
    require_flavour(pruned, require_flavour(model))
    graphs = (
        plan.graph_of(model) if plan else ChannelGraph(model),
        ChannelGraph(pruned),
    )
    traced = (graphs[0].graph, graphs[1].graph)
    _check_related(*traced)
    first, second = (graph.unit_counts() for graph in graphs)
    if plan is not None:
        _check_led_to(plan, second)
    score = scores_of(traced, data, evaluate)
    progress = Progress(len(score) + 3, "step")
    scores = []
    for one in score:
        scores.append(one())
        progress.step()
    if scores and not set(scores[0]) & set(scores[1]):
        raise ValueError(
            "The two models have no metric in common. Compile both alike, or give "
            f"`evaluate`. Received: {list(scores[0])} and {list(scores[1])}"
        )
    before, after = (cost_after(g, g.nothing_removed()) for g in graphs)
    measured, unmeasured = _measured((model, pruned), num_threads, progress)
    for found in (before, after):
        if found.macs is None:
            unmeasured["macs"] = why_no_macs(found)
    return Report(
        names=(str(model.name), str(pruned.name)),
        before=before,
        after=after,
        units={p: (first.get(p), second.get(p)) for p in {**first, **second}},
        barriers=tuple(plan.barriers if plan else graphs[0].barriers),
        **{key: measured.get(key) for key in _MEASURED},
        num_threads=num_threads,
        unmeasured=unmeasured,
        scores={
            name: (value, scores[1][name])
            for name, value in (scores[0] if scores else {}).items()
            if name in scores[1]
        },
        plan=plan,
        bird=None if bird is None else _seen_by(bird),
    )


def _check_related(first: Graph, second: Graph) -> None:
    """Raise unless the models take and give the same shapes."""
    for what, shapes in (("inputs", _input_shapes), ("outputs", _output_shapes)):
        one, other = shapes(first), shapes(second)
        if one != other:
            raise ModelError(
                "A pruned model keeps the inputs and outputs of the original, so "
                f"these two are not related. Expected: {what} of shapes {one}, "
                f"batch axis apart. Received: {other}, model {second.model.name!r}."
            )


def _input_shapes(graph: Graph) -> list[tuple[int | None, ...]]:
    return [entry.shape[1:] for entry in graph.inputs]


def _output_shapes(graph: Graph) -> list[tuple[int | None, ...]]:
    return [shape[1:] for _, shape in graph.blueprint.ends()]


def _check_led_to(plan: PruningPlan, units: Mapping[str, int]) -> None:
    """Raise if a layer of the pruned model has other units than the plan leaves."""
    wrong = [
        f"{path}: {units[path]} instead of {kept}"
        for path, (_, kept) in plan.units.items()
        if units.get(path, kept) != kept
    ]
    if wrong:
        raise PlanError(
            "The plan leads to another model than the pruned one. Give the plan that "
            "it was made with, or none. Received: units of "
            f"{'; '.join(wrong[:5])}"
        )


def _seen_by(bird: Any) -> dict[str, Any]:
    return {
        "distance": bird.log_name,
        "records": {epoch: list(found) for epoch, found in bird.records.items()},
        "bound": getattr(bird, "distance_bound", None),
        "ticket_epoch": bird.ticket_epoch,
    }


def _measured(
    models: tuple[Any, Any], threads: int, progress: Progress
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure by LiteRT what it takes; for the rest give the reason."""
    found: dict[str, Any] = {}
    reason = ""
    try:
        contents = []
        for model in models:
            contents.append(convert(model))
            progress.step()
        found["tflite_bytes"] = tuple(map(len, contents))
        found["gzip_bytes"] = tuple(
            len(gzip.compress(content, 9, mtime=0)) for content in contents
        )
        runners = [Runner(content, threads) for content in contents]
        found["latency_us"] = interleaved_latencies(*runners)
    # A model that is not converted, a runtime that refuses a file, and no TensorFlow
    # at all speak in these classes. What was counted stands all the same.
    except (RuntimeError, ValueError, ImportError) as error:
        # What was received is the converter's own text, full of this machine's paths:
        # nothing for a report that is shown around.
        reason = " ".join(str(error).partition(" Received: ")[0].split())
    progress.step()
    return found, {key: reason for key in _MEASURED if key not in found}


@checked(
    forward_flops=Real(0), num_images=Integer(0, 2**62), epochs=Real(0), factor=Real(0)
)
def training_flops(
    forward_flops: float, num_images: int, epochs: float, factor: float = 3
) -> float:
    """Count the floating-point operations of a training.

    A backward pass costs about two forward passes, hence the factor 3.

    Args:
        forward_flops: Operations of one forward pass of one input; a
            multiply-accumulate is two, so `2 * tsp.cost(model).macs`.
        num_images: Number of inputs in an epoch.
        epochs: Number of epochs.
        factor: Work of a training step, in forward passes. Defaults to `3`.

    Returns:
        The number of operations.

    Raises:
        ValueError: If an argument is negative.

    Example:

    ```python
    tsp.training_flops(3.64e9, 1_281_167, 90)     # 1.259e18: ResNet-18, ImageNet
    ```

    Source: the accounting of You et al., "Drawing Early-Bird Tickets", ICLR
    2020, table 3, which it reproduces.
    """
    return factor * forward_flops * num_images * epochs
