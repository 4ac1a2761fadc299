"""`ExportReport`: what was written, how large it is and how well it answers."""

import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from tf_spline_prune._checks import ListOf, Options, Text
from tf_spline_prune._files import sizes_of
from tf_spline_prune.compat import flavour_of, keras_of
from tf_spline_prune.errors import ModelError, RuleError
from tf_spline_prune.export._comparison import Compared, Comparison
from tf_spline_prune.graph import cost
from tf_spline_prune.litert import Servable
from tf_spline_prune.pruning import PruningPlan


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        path: The file, or the version folder, that was written.
        bytes: Its size; of a folder, the sum over its files.
        gzip_bytes: The same with each file compressed by gzip at level 9, which
            is about what a download costs.
        max_difference: The largest relative difference from the model's outputs,
            `max|a - b| / max|b|`; `None` where outputs are random.
        compared: What was compared: `"answers"`; `"states"`: answers that change from
            call to call, from the same state on (of random numbers, or of a stateful
            layer); `"averages"`: of 32 random answers, which differ by no more than
            chance and rounding. Defaults to `"answers"`.
        latency_us: Median time of one inference at batch size 1 on one CPU thread, in
            microseconds; `None` where it is not measured. Defaults to `None`.
        quantize: How a LiteRT file stores numbers; `None`: in float32. Defaults to
            `None`.
        sparse: Whether a LiteRT file leaves out zeros. Defaults to `False`.
        batch_size: The fixed batch size of a LiteRT file; `None`: any. Defaults to
            `None`.
        renamed: The names of inputs and outputs that are others than in the model, by
            those in the model. Defaults to `{}`.

    Example:

    ```python
    print(tsp.export_litert(model, "fashion.tflite"))
    # fashion.tflite: 812,344 bytes (741,120 gzipped), outputs differ by at most
    # 4.1e-07 (relative), 41.7 µs per inference
    ```
    """

    path: pathlib.Path
    bytes: int
    gzip_bytes: int
    max_difference: float | None
    latency_us: float | None = None
    quantize: str | None = None
    sparse: bool = False
    batch_size: int | None = None
    compared: Compared = "answers"
    renamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        path: pathlib.Path,
        comparison: Comparison,
        latency_us: float | None = None,
        **details: Any,
    ) -> "ExportReport":
        """Make a report on a file or folder, measuring its size."""
        return cls(
            path,
            *sizes_of(path),
            comparison.difference,
            latency_us,
            compared=comparison.compared,
            **details,
        )

    def __str__(self) -> str:
        kinds = [self.quantize, "sparse" if self.sparse else None]
        if self.batch_size is not None:
            kinds.append(f"batch size {self.batch_size}")
        kind = ", ".join(filter(None, kinds))
        here = pathlib.Path.cwd()
        inside = self.path.is_relative_to(here)
        path = self.path.relative_to(here) if inside else self.path
        text = (
            f"{path}{kind and f' ({kind})'}: {self.bytes:,} bytes "
            f"({self.gzip_bytes:,} gzipped), {self._difference()}"
        )
        if self.renamed:
            names = [f"{old!r} is {new}" for old, new in self.renamed.items()]
            text += f", names: {', '.join(names)}"
        if self.latency_us is not None:
            text += f", {self.latency_us:,.1f} µs per inference"
        return text

    def _difference(self) -> str:
        if self.max_difference is None:
            return "outputs are random: their averages differ by no more than chance"
        if self.compared == "states":
            return (
                "outputs change from call to call: with the same state at the start "
                f"the relative difference is {self.max_difference:.1e}"
            )
        return f"outputs differ by at most {self.max_difference:.1e} (relative)"


def description(
    servable: Servable,
    signatures: Mapping[str, Any],
    comparison: Comparison,
    plan: PruningPlan | None,
    **details: Any,
) -> str:
    """Describe an exported model in JSON.

    Keys are sorted and there is no date, so that two exports can be compared.

    Args:
        servable: The model that was written.
        signatures: For each signature its inputs and outputs: shape and dtype by
            name.
        comparison: What came out of the comparison.
        plan: The plan that the model was pruned by, or `None`.
        **details: More entries.
    """
    model = servable.model
    content = {
        "tf_spline_prune": metadata.version("tf-spline-prune"),
        "tensorflow": metadata.version("tensorflow"),
        "keras": {"flavour": flavour_of(model), "version": keras_of(model).__version__},
        "model": {"name": servable.name, **_cost(model)},
        "signatures": {
            signature: {
                end: {n: {"shape": s, "dtype": d} for n, (s, d) in tensors.items()}
                for end, tensors in ends.items()
            }
            for signature, ends in signatures.items()
        },
        "max_difference": comparison.difference,
        "compared": comparison.compared,
        "renamed": servable.renamed,
        "plan": None if plan is None else plan.to_dict(),
        **details,
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_metadata(
    folder: pathlib.Path,
    servable: Servable,
    signatures: Mapping[str, Any],
    comparison: Comparison,
    plan: PruningPlan | None,
) -> None:
    """Write `assets.extra/metadata.json`, last of all files of a version.

    Args:
        folder: The version folder, complete but for this file.
        servable: As in `description`, like the others.
        signatures: Likewise.
        comparison: Likewise.
        plan: Likewise.
    """
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    text = description(servable, signatures, comparison, plan, sha256=digests)
    file = folder / "assets.extra" / "metadata.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _cost(model: Any) -> dict[str, int | None]:
    try:
        counted = cost(model)
    except (ModelError, RuleError):  # it can be served, but not counted
        return {"macs": None, "params": None}
    return {"macs": counted.macs, "params": counted.params}


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
    """Return whether a character is one that is obeyed, not shown."""
    return (
        unicodedata.category(letter) in _CONTROLS
        or unicodedata.bidirectional(letter) in _TURNS
    )
