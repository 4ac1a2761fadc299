"""`report`: what pruning saved."""

import argparse

import tf_spline_prune as tsp
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
)

_EXAMPLES = """\
  # Costs, file sizes and latencies of both, side by side
  tf-spline-prune report model.keras small.keras

  # The same as a page to look at, with accuracies on real images
  tf-spline-prune report model.keras small.keras --html report.html \\
      --data optical_digits --split test"""


def add_to(commands: Commands) -> None:
    """Add the command `report`."""
    parser = add_command(
        commands,
        "report",
        "Count and measure what pruning saved: costs, file sizes, latencies.",
        _EXAMPLES,
        run,
        _check,
    )
    parser.add_argument("model", metavar="MODEL", help="the original Keras model")
    parser.add_argument("pruned", metavar="PRUNED", help="the pruned Keras model")
    parser.add_argument("--html", metavar="FILE", help="write a page besides")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file"
    )
    add_data(parser, "on which both models are measured", 512)


def run(options: argparse.Namespace) -> Outcome:
    """Report what pruning saved.

    Args:
        options: Those of the command.

    Returns:
        The report.
    """
    models = [load_plain(path, options) for path in (options.model, options.pruned)]
    data = load_data(options) if options.data else None
    report = tsp.report(*models, data=data)
    if options.html:
        report.to_html(options.html)
    return Outcome(report.to_dict(), str(report))


def _check(options: argparse.Namespace) -> None:
    check_data(options)
    check_input(options.model)
    check_input(options.pruned)
    check_output(options.html, (".html",), options.overwrite)
