"""`ExportReport`: what was written, how large it is and how well it answers."""

import pathlib
from dataclasses import dataclass, field
from typing import Any

from tf_spline_prune.export.comparison import Compared, Comparison
from tf_spline_prune.files import sizes_of


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
            chance and rounding.
        latency_us: Median time of one inference at batch size 1 on one CPU
            thread, in microseconds; `None` where it is not measured.
        quantize: How a LiteRT file stores numbers; `None`: in float32.
        sparse: Whether a LiteRT file leaves out zeros.
        batch_size: The fixed batch size of a LiteRT file; `None`: any.
        renamed: The names of inputs and outputs that are others than in the model, by
            those in the model.

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
