"""Arguments that commands share, and a parser that raises."""

import argparse
import dataclasses
import json
import math
import pathlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tf_spline_prune._amounts import finite, read_amount
from tf_spline_prune.errors import UsageError


@dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes:
        values: What `--json` writes.
        text: What is written otherwise.
        ok: Whether what was compared is alike; decides the exit code.
    """

    values: Mapping[str, Any]
    text: str
    ok: bool = True


def as_json(values: Any) -> str:
    """Write values as one JSON object; what is not finite becomes `null`."""
    return json.dumps(_plain(values), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: Sequence[tuple[str, ...]], names: int = 1) -> list[str]:
    """Lay out rows of cells: the columns of names to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


DEFAULT_SCALE = (0.0, 1.0)
Commands = Any  # what `add_subparsers` gives has no public name


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError`, so that one place reports all errors."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False,  # so that a new option breaks no script
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        """Raise in the place of leaving the process."""
        raise UsageError(f"{message}. `{self.prog} --help` shows how it is used")


def add_command(
    commands: Commands,
    name: str,
    purpose: str,
    examples: str,
    run: Callable[[argparse.Namespace], Outcome],
    check: Callable[[argparse.Namespace], None],
) -> Parser:
    """Add the parser of a command.

    Args:
        commands: What `add_subparsers` gave.
        name: Name of the command.
        purpose: A sentence: what it is for.
        examples: Worked examples.
        run: Does the work.
        check: Raises `UsageError` where arguments do not go together.

    Returns:
        The parser.
    """
    parser: Parser = commands.add_parser(
        name,
        help=purpose,
        description=textwrap.fill(purpose, 80),
        epilog=f"examples:\n{examples}",
    )
    parser.set_defaults(run=run, check=check, parser=parser)
    return parser


def add_common(parser: Parser) -> None:
    """Add the options that all commands have."""
    every = parser.add_argument_group("for every command")
    every.add_argument(
        "--json", action="store_true", help="write one JSON object to stdout"
    )
    every.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="a Python file or module with classes that the model needs; may be "
        "given several times",
    )
    every.add_argument(
        "--unsafe",
        action="store_true",
        help="load models that carry Python code, as Lambda layers do, or name "
        "functions that do more than compute: they are run, with your permissions",
    )
    every.add_argument(
        "--traceback", action="store_true", help="show where an error came from"
    )


def add_data(parser: Parser, what_for: str, number: int) -> None:
    """Add the options that choose a data set.

    Args:
        parser: The parser of a command.
        what_for: What the data are for.
        number: How many inputs are taken where the user does not say.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="NAME",
        help=f"a data set, as TensorFlow Datasets calls it, {what_for}; "
        "optical_digits comes with this package",
    )
    group.add_argument(
        "--split", help='such as "test" or "train[:20%%]"; default: train'
    )
    group.add_argument(
        "--scale",
        type=scale,
        default=DEFAULT_SCALE,
        metavar="RANGE",
        help="the range of the images' values: '255' is 0 to 255, which a model wants "
        "that begins with Rescaling(1/255), '--scale=-1..1' is -1 to 1, 'none' as "
        "they are stored; default: 0 to 1",
    )
    group.add_argument(
        "--num-samples",
        type=positive_int,
        default=number,
        metavar="N",
        help=f"how many inputs, drawn at random; default: {number}",
    )


def add_seed(parser: Any) -> None:
    """Add the seed of whatever is random."""
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        help="seed of whatever is random; default: 0",
    )


def check_data(options: argparse.Namespace) -> None:
    """Raise `UsageError` where a split or a scale is given and no data set."""
    if options.split and not options.data:
        raise UsageError(
            "A split is part of a data set: give --data NAME as well. Received: "
            f"--split {options.split}"
        )
    if options.scale != DEFAULT_SCALE and not options.data:
        raise UsageError(
            "A scale is one of data: give --data NAME as well. Received: --scale "
            "without --data"
        )


def check_given(options: argparse.Namespace) -> None:
    """Raise `UsageError` where an argument is empty, as an unset variable is."""
    for name, value in vars(options).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                flag = f"--{name.replace('_', '-')}"
                flag = flag if flag in options.parser._option_string_actions else name
                flag = "--import" if name == "imports" else flag
                raise UsageError(
                    f"An empty text stands for {flag}. Expected: a value, or nothing "
                    f"at all. Received: {text!r}"
                )


def amount(text: str) -> float | int:
    """Read a fraction, `0.5` or `50%`, or an absolute whole number."""
    try:
        return read_amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def scale(text: str) -> tuple[float, float] | None:
    """Read a range: `255`, from 0 on; `-1..1`; or `none`, as the data are stored."""
    if text == "none":
        return None
    low, dots, high = text.partition("..")
    try:
        found = (float(low), float(high)) if dots else (0.0, float(low))
    except ValueError:
        found = (0.0, 0.0)
    if not (math.isfinite(found[0]) and math.isfinite(found[1])) or (
        found[0] >= found[1]
    ):
        raise argparse.ArgumentTypeError(
            "expected the largest value ('255'), a range ('0..255', written "
            f"--scale=-1..1 where it begins with a minus) or 'none'. Received: {text!r}"
        )
    return found


def in_options(parser: argparse.ArgumentParser, text: str) -> str:
    """Put the options of a command in the place of the arguments that they stand for.

    The library speaks of `target_macs=0.1`; who uses the shell wrote
    `--target-macs 0.1`.

    Args:
        parser: The parser of the command.
        text: What the library says.

    Returns:
        The same in options.
    """
    named = [action for action in parser._actions if action.option_strings]
    options = {action.dest: action.option_strings[-1] for action in named}
    text = text.replace("`data=(x, y)`", "`--data NAME`")
    for action in named:
        if action.nargs == 0:  # a switch, which takes no value
            text = text.replace(f"{action.dest}=True", options[action.dest])
    if "data" in options:
        options |= {"representative_data": "--data", "name": "--data"}
    for argument, option in options.items():
        text = re.sub(rf"(?<![\w.'\"-])`{argument}`", f"`{option}`", text)
        text = re.sub(rf"(?<![\w.'\"-]){argument}=(?=\S)", f"{option} ", text)
    return text


def fraction(text: str) -> float:
    """Read a fraction to remove, at least 0 and less than 1."""
    value = float(amount(text))
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            "expected a fraction of the units to prune, from 0 to less than 1, or to "
            f"less than 100%. Received: {text!r}"
        )
    return value


def budget(text: str) -> float | int:
    """Read a fraction to keep, above 0 and up to 1, or a whole number from 1 on."""
    value = amount(text)
    if value <= 0 or (isinstance(value, float) and value > 1):
        raise argparse.ArgumentTypeError(
            "expected a fraction to keep, above 0 and up to 1 or 100%, or a whole "
            f"number from 1 on. Received: {text!r}"
        )
    return value


def positive_int(text: str) -> int:
    """Read a whole number from 1 on."""
    return _at_least(1)(text)


def whole_number(text: str) -> int:
    """Read a whole number from 0 on."""
    return _at_least(0)(text)


def tolerance(text: str) -> float:
    """Read a number from 0 on."""
    try:
        value = finite(text)
    except ValueError:
        value = -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 on. Received: {text!r}"
        )
    return value


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least} on. Received: {text!r}"
            )
        return int(text)

    return read
