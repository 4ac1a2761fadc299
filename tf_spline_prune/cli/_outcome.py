"""`Outcome`: what a command found, for people and for programs."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
