"""What the table and the page of a report say alike."""

from collections.abc import Mapping
from typing import Any

# The rows of a report, by the keys of `Report.pairs`.
ROWS = {
    "macs": "MACs",
    "params": "parameters",
    "bytes": "weight bytes",
    "tflite_bytes": ".tflite bytes",
    "gzip_bytes": "gzip -9 of it",
    "latency_us": "latency (us)",
}


def number(key: str, value: float) -> str:
    """Write a number of a row: whole, or microseconds with one decimal."""
    return f"{value:,.1f}" if key == "latency_us" else f"{value:,.0f}"


def level(before: float | None, after: float | None) -> float | None:
    """Return the share that is kept; `None` where there is nothing to compare."""
    return after / before if before and after is not None else None


def share(kept: float | None) -> str:
    """Write what is kept, or a dash where nothing was there to be kept."""
    return "-" if kept is None else f"{kept:.1%}"


def why_not(reason: str) -> str:
    """Return the words for a row without numbers: the first sentence of the reason."""
    return f"not measured: {reason.partition('. ')[0].rstrip('.')}"


def bird_text(bird: Mapping[str, Any]) -> str:
    """Describe in one line when the early bird was found.

    Args:
        bird: `Report.bird`.

    Returns:
        The line.
    """
    if bird["ticket_epoch"] is not None:
        found = f"found after epoch {bird['ticket_epoch'] + 1}"
    elif bird["records"]:
        found = f"not found by epoch {max(bird['records']) + 1}"
    else:
        found = "it has seen no two epochs yet"
    bound = "" if bird["bound"] is None else f", threshold {bird['bound']:.4g}"
    return f"early bird: {found} ({bird['distance']}{bound})"
