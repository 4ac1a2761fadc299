"""`main`: reads the command line, runs a command, writes what it found."""

import contextlib
import functools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from tf_spline_prune.cli import (
    _comparing_command as comparing_command,
    _export_command as export_command,
    _inspect_command as inspect_command,
    _pruning_command as pruning_command,
    _report_command as report_command,
    _slice_command as slice_command,
)
from tf_spline_prune.cli._loading import own_objects
from tf_spline_prune.cli._parsing import (
    Parser,
    add_common,
    as_json,
    check_given,
    in_options,
)
from tf_spline_prune.errors import (
    DatasetError,
    PlanError,
    RegionLimitError,
    SplinePruneWarning,
)

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
    """Describe what went wrong, in one paragraph, and with which exit code."""
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


_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def only_our_voice(worded: Callable[[str], str]) -> Iterator[None]:
    """Send stdout to stderr, our warnings there as short lines, and hush the rest.

    A warning is shown once, however often a command comes by.

    Who sets TF_CPP_MIN_LOG_LEVEL hears TensorFlow; who chooses warnings (`python -W`)
    sees those chosen.

    Args:
        worded: Says in options what a warning says in arguments.
    """
    said: set[str] = set()
    hush = contextlib.nullcontext() if _LEVEL in os.environ else _hushed()
    with hush, contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", SplinePruneWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, SplinePruneWarning):
                text = worded(" ".join(str(message).split()))
                if text not in said:
                    sys.stderr.write(f"warning: {text}\n")
                said.add(text)
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Hear no logs below errors, and nothing of what compiled libraries write.

    TensorFlow's converter and its start heed no log level: they write to the file
    descriptor of stderr itself. Python's `sys.stderr` gets another one meanwhile.
    """
    os.environ[_LEVEL] = "3"
    logging.disable(logging.WARNING)
    stderr = sys.stderr
    kept = None
    if sys.__stderr__ is not None and stderr is sys.__stderr__:
        stderr.flush()
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = open(  # noqa: SIM115 -- loggers made meanwhile hold on to it
            kept, "w", buffering=1, encoding=stderr.encoding, closefd=False
        )
    try:
        yield
    finally:
        if kept is not None:
            sys.stderr.flush()
            sys.stderr = stderr
            os.dup2(kept, 2)
        logging.disable(logging.NOTSET)
        os.environ.pop(_LEVEL, None)
