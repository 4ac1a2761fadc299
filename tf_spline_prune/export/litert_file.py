"""`export_litert`: a model as a `.tflite` file."""

import pathlib
from typing import Any

from tf_spline_prune.export.comparison import Arrays, compare
from tf_spline_prune.export.export_report import ExportReport
from tf_spline_prune.export.unmasking import unmasked
from tf_spline_prune.files import PathLike, atomic_file
from tf_spline_prune.litert import Runner, Servable, convert


def export_litert(model: Any, file: PathLike) -> ExportReport:
    """Write a model as a LiteRT (TensorFlow Lite) file, in float32.

    The file is written under a temporary name, read back, run by LiteRT and
    compared with the model in inference mode on random inputs; only then does it
    take its place, and an earlier file of that name is replaced. A model in
    another precision, mixed ones included, is rebuilt in float32 and compared
    with the rebuilt one. Masks are stripped. The batch axis stays open.

    Args:
        model: A built model of either flavour.
        file: Where to write; the name ends in `.tflite`. Missing folders are
            made.

    Returns:
        The path, the sizes, the largest difference and the latency.

    Raises:
        ValueError: If the name does not end in `.tflite`.
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        ExportError: If it cannot be converted, or its outputs differ by more
            than 1e-4, relative to the largest output. Nothing is left behind.
        OSError: If the file cannot be written. Nothing is left behind.

    Example:

    ```python
    small = tsp.prune(model, target_macs=0.5)
    print(tsp.export_litert(small, "fashion.tflite"))
    ```
    """
    target = pathlib.Path(file).expanduser().absolute()
    if target.suffix != ".tflite":
        raise ValueError(
            "A LiteRT file must end in `.tflite`; that is how its readers know it. "
            f"Name it {target.with_suffix('.tflite').name!r}, for instance. "
            f"Received: {str(file)!r}"
        )
    servable = Servable(unmasked(model))
    with atomic_file(target) as temporary:
        temporary.write_bytes(convert(servable))
        runner = Runner(temporary)

        def answer(inputs: Arrays) -> Arrays:
            return dict(zip(runner.output_names, runner.run(inputs), strict=True))

        difference = compare(servable, answer)
        latency = runner.measure_latency()
    return ExportReport.of(target, difference, latency)
