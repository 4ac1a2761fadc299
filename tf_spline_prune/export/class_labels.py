"""Names for the classes that a model tells apart."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tf_spline_prune._checks import ListOf, Options, Text

LABELS: Options = [ListOf(Text("a name"), "names of the classes"), None]
"""What the checks of arguments want of labels."""
# Of characters: control, half a pair, line and paragraph ends. Of directions: those
# that turn the writing of what follows.
_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def class_names(labels: Sequence[str], outputs: Mapping[str, Any]) -> list[str]:
    """Check that labels are those of a model.

    Args:
        labels: The names, in the order of the model's scores.
        outputs: The model's outputs: shape and dtype by name.

    Returns:
        The names.

    Raises:
        ValueError: If two are the same, one holds control characters, or the model
            does not give one score each.
    """
    names = list(labels)
    if len(set(names)) < len(names):
        raise ValueError(
            "`labels` must be a list of the classes' names, no two of them the same, "
            f"since a client could not tell those apart. Received: {labels!r}"
        )
    unprintable = [name for name in names if any(map(_is_control, name))]
    if unprintable:
        raise ValueError(
            "A class's name is one line of text. Control characters (line ends, tabs, "
            "NUL, escape sequences, marks that turn the direction of writing) would "
            "change what a client shows. Remove them. Received: "
            f"{[ascii(name) for name in unprintable]}"
        )
    shapes = [shape for shape, _ in outputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] != len(names):
        raise ValueError(
            "The labels are not those of the model. They need one output with a "
            "score for each of them; export a model that ends there, or leave "
            f"`labels` out. Expected: one output of shape [None, {len(names)}]. "
            f"Received: {len(names)} labels and the outputs {dict(outputs)}."
        )
    return names


def _is_control(letter: str) -> bool:
    """Tell whether a character is one that is obeyed, not shown."""
    return (
        unicodedata.category(letter) in _CONTROLS
        or unicodedata.bidirectional(letter) in _TURNS
    )
