"""`compare`: whether two models of any form answer alike."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from tf_spline_prune._files import sizes_of
from tf_spline_prune.cli._answerer import Answerer, Spec, open_answerer
from tf_spline_prune.cli._loading import check_input, load_data
from tf_spline_prune.cli._parsing import (
    Commands,
    Outcome,
    add_command,
    add_data,
    add_seed,
    check_data,
    table,
    tolerance,
)
from tf_spline_prune.errors import CalibrationError, ModelError

_BATCH = 32
_EXAMPLES = """\
  # Does the exported file answer as the model does? (exit code 0: yes, 1: no)
  tf-spline-prune compare small.tflite small.keras

  # How often do two models decide alike on real images?
  tf-spline-prune compare small.keras model.keras --data optical_digits --split test"""


def add_to(commands: Commands) -> None:
    """Add the command `compare`."""
    parser = add_command(
        commands,
        "compare",
        "Give two models the same inputs and compare their answers, sizes and "
        "latencies.",
        _EXAMPLES,
        run,
        _check,
    )
    what = "a .keras, .h5 or .tflite file, or a SavedModel folder"
    parser.add_argument("a", metavar="A", help=what)
    parser.add_argument("b", metavar="B", help=f"the reference: {what}")
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        default=1e-4,
        metavar="T",
        help="largest max|a - b| / max|b| that passes; default: 1e-4",
    )
    add_seed(parser)
    add_data(parser, "whose inputs both are given; default: random inputs", 256)


def run(options: argparse.Namespace) -> Outcome:
    """Compare two models.

    Args:
        options: Those of the command.

    Returns:
        Differences by output, sizes, latencies; alike if within the tolerance.
    """
    paths = (options.a, options.b)
    models = [open_answerer(path, options) for path in paths]
    names = _matched("inputs", models[0].inputs, models[1].inputs)
    arrays, labels = _inputs(options, models, names)
    answers = _answers(models, arrays, names, _step(models))
    if options.data:
        _warn_of_data(models, arrays, labels, answers)
    outputs = _compared(*answers)
    worst = _largest([one["difference"] for one in outputs.values()])
    runners = [model.runner() for model in models]
    latencies: tuple[float | None, ...] = (None, None)
    if all(runner is not None for runner in runners):
        from tf_spline_prune.litert._runner import interleaved_latencies

        latencies = interleaved_latencies(*runners)
    sides = [
        {
            "path": path,
            "kind": model.kind,
            "bytes": sizes[0],
            "gzip_bytes": sizes[1],
            "latency_us": latency,
        }
        for path, model, sizes, latency in zip(
            paths, models, map(sizes_of, paths), latencies, strict=True
        )
    ]
    values = {
        "a": sides[0],
        "b": sides[1],
        "num_inputs": len(next(iter(arrays.values()))),
        "inputs": options.data or "random",
        "outputs": outputs,
        "max_difference": worst,
        "tolerance": options.tolerance,
        "within_tolerance": worst <= options.tolerance,
    }
    return Outcome(values, _text(values), worst <= options.tolerance)


def _check(options: argparse.Namespace) -> None:
    check_data(options)
    check_input(options.a)
    check_input(options.b)


def _matched(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """Match names of the first model with those of the second."""
    if set(a) == set(b):
        return {name: name for name in a}
    if len(a) == len(b) == 1:
        return {next(iter(a)): next(iter(b))}
    raise ModelError(
        f"The two models have other {what}, so their answers cannot be compared. "
        f"Expected: the same names, or one each. Received: {sorted(a)} and {sorted(b)}"
    )


def _inputs(
    options: argparse.Namespace, models: list[Answerer], names: Mapping[str, str]
) -> tuple[dict[str, Any], Any]:
    """Draw inputs that fit both models, by the names of the first, and their labels."""
    from tf_spline_prune.compat import random_inputs

    specs = {
        name: _common(name, models[0].inputs[name], models[1].inputs[other])
        for name, other in names.items()
    }
    if not options.data:
        drawn = random_inputs(
            {n: ((None, *shape[1:]), dtype) for n, (shape, dtype) in specs.items()},
            options.num_samples,
            options.seed,
        )
        return drawn, None
    array, labels = load_data(options)
    ((name, (shape, _)),) = list(specs.items())[:1]
    fits = len(shape) == array.ndim and all(
        want in (None, have)
        for want, have in zip(shape[1:], array.shape[1:], strict=False)
    )
    if len(specs) != 1 or not fits:
        raise CalibrationError(
            "The data set does not fit the models. Expected: one input "
            f"{[(n, s) for n, (s, _) in specs.items()]}. Received: {options.data!r} "
            f"with the shape {array.shape}"
        )
    return {name: array}, labels


def _common(name: str, one: Spec, other: Spec) -> Spec:
    """Find the shape that both models take; open sizes fit any."""
    sizes = []
    if len(one[0]) == len(other[0]):
        for a, b in zip(one[0], other[0], strict=True):
            sizes.append(b if a is None else a)
            if None not in (a, b) and a != b:
                sizes = []
                break
    if not sizes:
        raise ModelError(
            "The two models take inputs of different shapes, so their answers cannot "
            f"be compared. Received: {one[0]} and {other[0]} for the input {name!r}"
        )
    return sizes, one[1]


def _step(models: list[Answerer]) -> int:
    """Return the batch size: that of a model which fixes it, or 32."""
    fixed = [shape[0] for m in models for shape, _ in m.inputs.values() if shape[0]]
    return max(fixed, default=_BATCH)


def _batches(arrays: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Yield batches of one size; a last one that is short is filled up."""
    import numpy as np

    count = len(next(iter(arrays.values())))
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        yield {name: array[rows] for name, array in arrays.items()}


def _answers(
    models: list[Answerer],
    arrays: Mapping[str, Any],
    names: Mapping[str, str],
    size: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask both models; give the answers of each by the name of the output."""
    import numpy as np

    answers: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for batch in _batches(arrays, size):
        renamed = {names[name]: array for name, array in batch.items()}
        answers.append((models[0].answer(batch), models[1].answer(renamed)))
    count = len(next(iter(arrays.values())))
    a, b = (
        {n: np.concatenate([one[n] for one in side])[:count] for n in side[0]}
        for side in zip(*answers, strict=True)
    )
    return a, b


def _warn_of_data(
    models: list[Answerer],
    arrays: Mapping[str, Any],
    labels: Any,
    answers: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Warn if the data are not such as the models were trained on."""
    from tf_spline_prune.compat import guesses, misfit
    from tf_spline_prune.errors import DataRangeWarning, warn

    graphs = [model.graph for model in models if model.graph is not None]
    found = [misfit(graph, list(arrays.values())) for graph in graphs]
    text = next(filter(None, found), None) or guesses([*answers[1].values()], labels)
    if text:
        warn(text, DataRangeWarning)


def _compared(
    one: Mapping[str, Any], two: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Measure by output how much the answers of two models differ."""
    import numpy as np

    from tf_spline_prune.export._comparison import relative_difference

    found: dict[str, dict[str, float | None]] = {}
    for name, other in _matched("outputs", one, two).items():
        a, b = one[name], two[other]
        if a.shape != b.shape:
            raise ModelError(
                "The two models answer in different shapes. Received: "
                f"{a.shape} and {b.shape} for the output {name!r}"
            )
        alike = None
        if a.ndim > 1 and a.shape[-1] > 1:
            alike = float(np.mean(a.argmax(-1) == b.argmax(-1)))
        found[name] = {"difference": relative_difference(a, b), "same_argmax": alike}
    return found


def _largest(differences: list[Any]) -> float:
    import numpy as np

    return float(np.max(differences))  # unlike max(), this keeps a NaN


def _text(values: Mapping[str, Any]) -> str:
    sides = values["a"], values["b"]
    rows: list[tuple[str, ...]] = [("", "A", "B")]
    rows.append(("form", *(side["kind"] for side in sides)))
    for name, key in (("bytes", "bytes"), ("gzipped", "gzip_bytes")):
        rows.append((name, *(f"{side[key]:,}" for side in sides)))
    if sides[0]["latency_us"] is not None:
        cells = (f"{side['latency_us']:,.1f}" for side in sides)
        rows.append(("latency (us)", *cells))
    lines = [f"A: {sides[0]['path']}", f"B: {sides[1]['path']}", "", *table(rows), ""]
    for name, one in values["outputs"].items():
        line = f"{name}: relative difference {one['difference']:.1e}"
        if one["same_argmax"] is not None:
            line += f", {one['same_argmax']:.1%} of the decisions the same"
        lines.append(f"{line} ({values['num_inputs']} {values['inputs']} inputs)")
    verdict = "within" if values["within_tolerance"] else "OUTSIDE"
    lines.append(f"{verdict} the tolerance of {values['tolerance']:g}")
    if values["inputs"] == "random":
        lines.append(
            "random inputs prove little about real ones: compare on --data NAME too"
        )
    return "\n".join(lines)
