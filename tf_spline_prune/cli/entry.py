"""`main`: reads the command line, runs a command, writes what it found."""

import functools
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from tf_spline_prune.cli import (
    comparing_command,
    export_command,
    inspect_command,
    pruning_command,
    report_command,
    slice_command,
)
from tf_spline_prune.cli.loading import own_objects
from tf_spline_prune.cli.outcome import as_json
from tf_spline_prune.cli.parsing import (
    Parser,
    add_common,
    check_given,
    in_options,
)
from tf_spline_prune.cli.quiet import only_our_voice
from tf_spline_prune.errors import DatasetError, PlanError, RegionLimitError

_FINE, _FAILED, _WRONG_INPUT, _INTERRUPTED = 0, 1, 2, 130
# What wrong arguments, files and data raise; all else failed in spite of good ones.
_INPUT_ERRORS = (
    *(OSError, ValueError, TypeError, ImportError),
    *(DatasetError, RegionLimitError),
)

_EPILOG = """\
the common path:
  tf-spline-prune inspect model.keras
  tf-spline-prune prune model.keras --output small.keras --target-macs 50%
  tf-spline-prune report model.keras small.keras
  tf-spline-prune export small.keras --litert small.tflite
  tf-spline-prune compare small.tflite small.keras

`tf-spline-prune COMMAND --help` explains a command. Results go to stdout, all else to
stderr.

exit codes: 0 all is well; 1 a comparison, a verification or an export failed;
2 wrong arguments, files or data; 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands after the program's name; defaults to `sys.argv`.

    Returns:
        The exit code: 0 if all is well, 1 if a comparison, verification or export
        failed, 2 for wrong arguments, files or data, 130 if interrupted.

    Raises:
        SystemExit: After `--help` and `--version`.

    Example:

    ```python
    main(["prune", "model.keras", "--output", "small.keras", "--target-macs", "50%"])
    ```
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_object = "--json" in arguments

    def worded(text: str) -> str:
        return text

    try:
        options = _parser().parse_args(arguments)
        worded = functools.partial(in_options, options.parser)
        check_given(options)
        options.check(options)
        with only_our_voice(worded):
            options.own_objects = own_objects(options.imports)
            outcome = options.run(options)
        _write(as_json(outcome.values) if as_object else outcome.text)
        return _FINE if outcome.ok else _FAILED
    except (Exception, KeyboardInterrupt) as error:
        if "--traceback" in arguments:
            sys.stderr.write(traceback.format_exc())
        text, code = _judged(error)
        if not isinstance(error, PlanError):  # which speaks of the keys of a file
            text = worded(text)
        if as_object:
            _write(as_json({"error": text, "kind": type(error).__name__}))
        else:
            sys.stderr.write(f"tf-spline-prune: error: {text}\n")
        return code


def _parser() -> Parser:
    parser = Parser(
        prog="tf-spline-prune",
        description="Makes Keras models smaller, exports them, compares the results.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"tf-spline-prune {metadata.version('tf-spline-prune')}",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for command in (
        inspect_command,
        pruning_command,
        export_command,
        comparing_command,
        report_command,
        slice_command,
    ):
        command.add_to(commands)
    for one in commands.choices.values():
        add_common(one)
    return parser


def _judged(error: BaseException) -> tuple[str, int]:
    """Say what went wrong, in one paragraph, and with which exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted; nothing was left half-written.", _INTERRUPTED
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:  # not ours
        text = f"{error.strerror}. Received: {str(error.filename)!r}"
    if isinstance(error, _INPUT_ERRORS):
        return text or type(error).__name__, _WRONG_INPUT
    ours = type(error).__module__.startswith("tf_spline_prune")
    return text if ours else f"{type(error).__name__}: {text}", _FAILED


def _write(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
