"""`ExportReport`: what was written, how large it is and how well it answers."""

import gzip
import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        path: The file, or the version folder, that was written.
        bytes: Its size; of a folder, the sum over its files.
        gzip_bytes: The same with each file compressed by gzip at level 9, which
            is about what a download costs.
        max_difference: The largest relative difference from the model's outputs,
            `max|a - b| / max|b|`, on random inputs.
        latency_us: Median time of one inference at batch size 1 on one CPU
            thread, in microseconds; `None` where it is not measured.

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
    max_difference: float
    latency_us: float | None = None

    @classmethod
    def of(
        cls,
        path: pathlib.Path,
        max_difference: float,
        latency_us: float | None = None,
    ) -> "ExportReport":
        """Make a report on a file or folder, measuring its size."""
        files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        contents = [file.read_bytes() for file in files if file.is_file()]
        return cls(
            path=path,
            bytes=sum(map(len, contents)),
            gzip_bytes=sum(len(gzip.compress(c, 9, mtime=0)) for c in contents),
            max_difference=max_difference,
            latency_us=latency_us,
        )

    def __str__(self) -> str:
        text = (
            f"{self.path}: {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped), "
            f"outputs differ by at most {self.max_difference:.1e} (relative)"
        )
        if self.latency_us is not None:
            text += f", {self.latency_us:,.1f} µs per inference"
        return text
