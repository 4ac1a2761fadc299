"""`export`: a Keras model for TensorFlow Serving, LiteRT or ONNX."""

import argparse
from collections.abc import Iterable
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune._files import read_file
from tf_spline_prune.cli._loading import (
    check_input,
    check_output,
    load_data,
    load_plain,
)
from tf_spline_prune.cli._parsing import (
    Commands,
    Outcome,
    add_command,
    add_data,
    check_data,
    positive_int,
    tolerance,
    whole_number,
)
from tf_spline_prune.errors import UsageError

# Which options each format takes, beside those of all.
_OPTIONS = {
    "saved_model": ("version", "labels", "warmup", "plan"),
    "litert": (
        *("quantize", "data", "sparse", "integer_io", "batch_size", "tolerance"),
        *("labels", "plan", "overwrite"),
    ),
    "onnx": ("plan", "overwrite"),
}
_EXAMPLES = """\
  # The next version for TensorFlow Serving: served/digits/1, then 2, and so on
  tf-spline-prune export small.keras --saved-model served/digits

  # A LiteRT file in 8-bit integers, calibrated on real images
  tf-spline-prune export small.keras --litert digits.tflite --quantize int8 \\
      --data optical_digits"""


def add_to(commands: Commands) -> None:
    """Add the command `export`."""
    parser = add_command(
        commands,
        "export",
        "Write a Keras model for TensorFlow Serving, LiteRT or ONNX, and compare what "
        "was written with the model.",
        _EXAMPLES,
        run,
        _check,
    )
    parser.add_argument("model", metavar="MODEL", help="the Keras model")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--saved-model", metavar="FOLDER", help="the folder of all versions"
    )
    where.add_argument("--litert", metavar="FILE", help="a name that ends in .tflite")
    where.add_argument("--onnx", metavar="FILE", help="a name that ends in .onnx")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a text file with one class name per line; not for --onnx",
    )
    parser.add_argument(
        "--plan", metavar="FILE", help="the plan it was pruned by, for the metadata"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file"
    )
    serving = parser.add_argument_group("for --saved-model")
    serving.add_argument(
        "--version",
        type=whole_number,
        metavar="N",
        help="a new version; default: the next one",
    )
    serving.add_argument(
        "--warmup", type=positive_int, metavar="N", help="how many warm-up requests"
    )
    litert = parser.add_argument_group("for --litert")
    litert.add_argument(
        "--quantize",
        choices=("float16", "dynamic", "int8"),
        help="how to store the weights; default: float32; int8 needs --data",
    )
    litert.add_argument(
        "--sparse", action="store_true", help="leave out zeros, if that is smaller"
    )
    litert.add_argument(
        "--integer-io", action="store_true", help="with int8: integers in and out"
    )
    litert.add_argument(
        "--batch-size", type=positive_int, metavar="N", help="default: any size"
    )
    litert.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="X",
        help="the relative difference from the model that is accepted",
    )
    add_data(parser, "on which the file is calibrated and compared", 256)


def run(options: argparse.Namespace) -> Outcome:
    """Export a model.

    Args:
        options: Those of the command.

    Returns:
        What was written, how large it is, and how well it answers.
    """
    format = _format(options)
    asked: dict[str, Any] = {
        name: getattr(options, name)
        for name in _given(options, _OPTIONS[format])
        if name not in ("data", "overwrite")
    }
    if options.labels:
        asked["labels"] = _labels(options.labels)
    if options.plan:
        asked["plan"] = tsp.PruningPlan.load(options.plan)
    model = load_plain(options.model, options)
    if options.data:
        asked["representative_data"] = load_data(options)
    export = getattr(tsp, f"export_{format}")
    report = export(model, getattr(options, format), **asked)
    return Outcome(vars(report), str(report))


def _check(options: argparse.Namespace) -> None:
    check_data(options)
    check_input(options.model)
    check_output(options.litert, (".tflite",), options.overwrite)
    check_output(options.onnx, (".onnx",), options.overwrite)
    format = _format(options)
    known = dict.fromkeys(name for names in _OPTIONS.values() for name in names)
    wrong = [n for n in _given(options, known) if n not in _OPTIONS[format]]
    if wrong:
        raise UsageError(
            "Some options are of another format. Expected: those that `--help` lists "
            f"for {_flag(format)}. Received: {', '.join(map(_flag, wrong))}"
        )
    if options.quantize == "int8" and not options.data:
        raise UsageError(
            "--quantize int8 needs --data: the ranges of integers are measured on "
            "data. Received: --quantize int8 without --data"
        )
    for path in filter(None, (options.labels, options.plan)):
        check_input(path)


def _format(options: argparse.Namespace) -> str:
    return next(name for name in _OPTIONS if getattr(options, name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """List the options that the user gave."""
    values = {name: getattr(options, name) for name in names}
    return [
        n for n, value in values.items() if value is not None and value is not False
    ]


def _labels(path: str) -> list[str]:
    """Read the names of the classes, one per line."""
    try:
        text = read_file(path, "a text, one class per line").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The file of labels is no text. Received: {path!r}"
        ) from error
    names = [line.strip() for line in text.splitlines()]
    if not names or not all(names):
        raise UsageError(
            "A file of labels has the name of a class on every line. Received: "
            f"{path!r} with {len(names)} lines, {names.count('')} of them empty"
        )
    return names
