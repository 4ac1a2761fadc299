"""`export`: a Keras model for TensorFlow Serving or LiteRT."""

import argparse
import pathlib
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune.cli.loading import (
    check_input,
    check_output,
    load_data,
    load_plain,
)
from tf_spline_prune.cli.outcome import Outcome
from tf_spline_prune.cli.parsing import (
    Commands,
    add_command,
    add_data,
    check_data,
    positive_int,
    whole_number,
)
from tf_spline_prune.errors import UsageError

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
        "Write a Keras model for TensorFlow Serving or LiteRT, and compare what was "
        "written with the model.",
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
    serving = parser.add_argument_group("for --saved-model")
    serving.add_argument(
        "--version",
        type=whole_number,
        metavar="N",
        help="a new version; default: the next one",
    )
    serving.add_argument(
        "--labels", metavar="FILE", help="a text file with the name of a class a line"
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
        "--sparse", action="store_true", help="store zeros of weights in fewer bytes"
    )
    litert.add_argument(
        "--overwrite", action="store_true", help="replace an existing file"
    )
    add_data(parser, "on which int8 is calibrated", 256)


def run(options: argparse.Namespace) -> Outcome:
    """Export a model.

    Args:
        options: Those of the command.

    Returns:
        What was written, how large it is, and how well it answers.
    """
    given = _given(options, "version", "warmup", "quantize", "sparse")
    asked: dict[str, Any] = {name: getattr(options, name) for name in given}
    if options.labels:
        asked["labels"] = _labels(options.labels)
    model = load_plain(options.model, options)
    if options.data:
        asked["representative_data"] = load_data(options)[0]
    if options.saved_model:
        report = tsp.export_saved_model(model, options.saved_model, **asked)
    else:
        report = tsp.export_litert(model, options.litert, **asked)
    return Outcome(vars(report), str(report))


def _check(options: argparse.Namespace) -> None:
    check_data(options)
    check_input(options.model)
    check_output(options.litert, (".tflite",), options.overwrite)
    if options.saved_model:
        wrong = _given(options, "quantize", "sparse", "overwrite", "data")
    else:
        wrong = _given(options, "version", "labels", "warmup")
    if wrong:
        raise UsageError(
            "Some options are of the other format. Expected: those that `--help` lists "
            f"for {'--saved-model' if options.saved_model else '--litert'}. Received: "
            f"{', '.join(f'--{name}' for name in wrong)}"
        )
    if (options.quantize == "int8") != bool(options.data):
        raise UsageError(
            "--quantize int8 and --data go together: the ranges of integers are "
            f"measured on data. Received: --quantize {options.quantize}, --data "
            f"{options.data}"
        )
    if options.labels:
        check_input(options.labels)


def _given(options: argparse.Namespace, *names: str) -> list[str]:
    """List the options that the user gave."""
    values = {name: getattr(options, name) for name in names}
    return [
        n for n, value in values.items() if value is not None and value is not False
    ]


def _labels(path: str) -> list[str]:
    """Read the names of the classes, one a line."""
    text = pathlib.Path(path).expanduser().read_text(encoding="utf-8")
    names = [line.strip() for line in text.splitlines()]
    if not names or not all(names):
        raise UsageError(
            "A file of labels has the name of a class on every line. Received: "
            f"{path!r} with {len(names)} lines, {names.count('')} of them empty"
        )
    return names
