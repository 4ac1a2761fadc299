"""`report`: what pruning saved, counted, measured and evaluated."""

import gzip
from collections.abc import Mapping
from typing import Any

from tf_spline_prune._checks import Function, Having, Integer, checked
from tf_spline_prune.compat import Graph, Progress, require_flavour
from tf_spline_prune.errors import ModelError, PlanError
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph.costing import cost_after, why_no_macs
from tf_spline_prune.litert import Runner, convert, interleaved_latencies
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning.execution import PLAN
from tf_spline_prune.reporting.report_table import Report
from tf_spline_prune.reporting.scoring import Evaluate, scores_of

_MEASURED = ("tflite_bytes", "gzip_bytes", "latency_us")


@checked(
    plan=[PLAN, None],
    evaluate=[
        Function("a function of a model that gives a number, or numbers by name"),
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
    """Count, measure and, if asked, evaluate what pruning saved.

    Both models are converted for LiteRT in memory and timed in turns. Where that
    cannot be done the report comes without these rows, and with the reason.

    Args:
        model: The original model.
        pruned: The pruned model, of the same flavour, inputs and outputs.
        plan: The plan that led from the one to the other: the report then says
            what was asked and what was achieved.
        data: Labelled data, on which each model's own metrics are taken: a tuple
            of inputs and labels (and sample weights), or batches of such, as
            `Model.evaluate` takes them. Of a model that is not compiled a copy is
            evaluated, compiled like the other.
        evaluate: In the place of `data`: takes a model, and returns a number or a
            dictionary of numbers by name. It is called with the two models
            themselves.
        bird: An early-bird detector that has watched a training, whether it has
            fired or not.
        num_threads: Number of CPU threads for the latencies.

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
    shapes = {
        i: entry.shape for i, entry in zip(graph.input_ids, graph.inputs, strict=True)
    }
    for call in graph.calls:
        shapes.update(zip(call.outputs, call.output_shapes, strict=True))
    return [tuple(shapes[i][1:]) for i in graph.output_ids]


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
