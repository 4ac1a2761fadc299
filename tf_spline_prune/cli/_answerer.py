"""`Answerer`: a model in whatever form, seen as named arrays in and out."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune.cli._loading import load_plain
from tf_spline_prune.errors import ExportError, ModelError

Spec = tuple[Sequence[int | None], str]


@dataclass(frozen=True, eq=False)
class Answerer:
    """A model that can be asked: a Keras model, a SavedModel or a `.tflite` file.

    Attributes:
        kind: What it is.
        inputs: Shape (batch axis first, `None` where open) and dtype by name.
        outputs: The same of the outputs; empty where only answers tell.
        answer: Runs it: arrays by input name in, arrays by output name out.
        runner: Gives what its latency is measured on: the LiteRT runner of the
            model or of its conversion; `None` where there is none.
        graph: The traced Keras model; `None` of a file that was exported.
    """

    kind: str
    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]
    answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    runner: Callable[[], Any]
    graph: Any = None


def open_answerer(path: str, options: argparse.Namespace) -> Answerer:
    """Open a model of any form.

    Args:
        path: The file or folder.
        options: Those of the command.

    Returns:
        The model, ready to be asked.

    Raises:
        FileNotFoundError: If nothing is there.
        ModelError: If it is no model, or broken.
    """
    from tf_spline_prune.compat import model_format

    form = model_format(path)
    if form == "tflite":
        return _of_litert(path)
    if form == "saved_model":
        return _of_saved_model(path, options)
    return _of_keras(load_plain(path, options))


def _of_litert(path: str) -> Answerer:
    try:
        runner = tsp.litert.Runner(path)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            "LiteRT cannot read the file; it is broken, or no LiteRT model. Export it "
            f"again. Received: {path!r}, for which it raised: {error}"
        ) from error

    inputs, outputs = runner.input_specs, runner.output_specs
    return Answerer("LiteRT", inputs, outputs, runner.predict, lambda: runner)


def _of_saved_model(path: str, options: argparse.Namespace) -> Answerer:
    from tf_spline_prune.compat import check_saved_model
    from tf_spline_prune.export._served_model import ServedModel

    if not options.unsafe:
        check_saved_model(path)
    served = ServedModel(path)
    return Answerer(
        "SavedModel", served.inputs, served.outputs, served.run, lambda: None
    )


def _of_keras(model: Any) -> Answerer:
    from tf_spline_prune.compat import trace

    servable = tsp.litert.Servable(model)

    def runner() -> Any:
        try:
            return tsp.litert.Runner(tsp.litert.convert(servable))
        except ExportError:  # what LiteRT cannot run has no latency there
            return None

    kind = flavour_name(model)
    graph = trace(servable.model)
    return Answerer(kind, servable.inputs, {}, servable.predict, runner, graph)


def flavour_name(model: Any) -> str:
    """Return the name of a model's flavour for people."""
    from tf_spline_prune.compat import require_flavour

    return {"keras": "Keras 3", "tf_keras": "tf_keras"}[require_flavour(model)]
