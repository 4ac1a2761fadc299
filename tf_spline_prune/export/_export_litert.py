"""`export_litert`: a model as a `.tflite` file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, POSITIVE, Flag, Path, checked
from tf_spline_prune._files import PathLike, atomic_file, with_ending
from tf_spline_prune.compat import Calibration, trace
from tf_spline_prune.errors import ExportError
from tf_spline_prune.export._comparison import TOLERANCES, Arrays, compare, unmasked
from tf_spline_prune.export._export_report import (
    LABELS,
    ExportReport,
    class_names,
    description,
)
from tf_spline_prune.litert import (
    SIGNATURE,
    Quantize,
    Runner,
    Servable,
    attach,
    convert,
)
from tf_spline_prune.litert._quantization import QUANTIZE
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning._remove_units import PLAN

_COMPARED = 64  # representative inputs


@checked(
    quantize=QUANTIZE,
    file=Path(),
    sparse=Flag(),
    integer_io=Flag(),
    batch_size=[COUNT, None],
    tolerance=[POSITIVE, None],
    labels=LABELS,
    plan=[PLAN, None],
)
def export_litert(
    model: Any,
    file: PathLike,
    quantize: Quantize | None = None,
    *,
    representative_data: Any = None,
    sparse: bool = False,
    integer_io: bool = False,
    batch_size: int | None = None,
    tolerance: float | None = None,
    labels: Sequence[str] | None = None,
    plan: PruningPlan | None = None,
) -> ExportReport:
    """Export a model as a LiteRT (TensorFlow Lite) file.

    The file is written under a temporary name, read back, run by LiteRT with its
    default kernels and compared with the model in inference mode; only then does it
    take its place, and an earlier file of that name is replaced. A model in another
    precision, mixed ones included, is rebuilt in float32 and compared with the
    rebuilt one. Masks are stripped.

    The batch axis stays open where LiteRT can do that; recurrent layers need a fixed
    one, and get the size 1. With `"int8"` they are unrolled.

    Args:
        model: A built model of either flavour.
        file: Where to write; the name ends in `.tflite`. Missing folders are
            made.
        quantize: `None`: float32. `"float16"`: half the size; computed in float32 on
            most CPUs. `"dynamic"`: weights of 8 bits, activations quantised as they
            come. `"int8"`: all of 8 bits, for the edge. Defaults to `None`.
        representative_data: 100 to 512 inputs such as the model will see: an array, a
            list or dict of arrays, or batches of these; labels are overlooked. They
            give the ranges of activations to `"int8"`, which needs them, and are what
            the file is compared on. Defaults to `None`.
        sparse: Store weights without their zeros, if that makes the file smaller; for
            models with at least a third of zeros that are shipped uncompressed.
            Defaults to `False`.
        integer_io: With `"int8"`: take and give integers, not floats. Defaults to
            `False`.
        batch_size: Fix the batch axis to this size. Defaults to `None`.
        tolerance: The largest relative difference from the model that is accepted;
            `None`: 1e-4 for float32, 0.01 for float16, 0.1 for dynamic and 0.2 for
            int8. Defaults to `None`.
        labels: The names of the classes, in the order of the model's scores. They
            travel with the file, see `tsp.litert.read_attachments`, together with what
            was written, by which versions, and how well it answers. Defaults to `None`.
        plan: The plan that the model was pruned by, to be told there too. Defaults to
            `None`.

    Returns:
        The path, the sizes, the largest difference and the latency.

    Raises:
        ValueError: If the name does not end in `.tflite`, or arguments do not fit
            together.
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        CalibrationError: If the representative data are empty, misshapen or not
            finite.
        ExportError: If it cannot be converted, if LiteRT cannot load it, or its
            outputs differ by more than the tolerance, relative to the largest
            output; also at once, where that is known beforehand. Also if the model
            is random or has a state, and the file cannot be. Nothing is left behind.
        OSError: If the file cannot be written. Nothing is left behind.

    Example:

    ```python
    small = tsp.prune(model, target_macs=0.5)
    print(tsp.export_litert(small, "fashion.tflite"))
    tsp.export_litert(small, "int8.tflite", "int8", representative_data=x_train[:200])
    ```

    Source: "Convert TensorFlow models" and "Post-training quantization", LiteRT
    documentation.
    """
    target = with_ending(file, ".tflite")
    servable = Servable(unmasked(model))
    texts = {}
    if labels is not None:
        texts["labels.txt"] = "\n".join([*_names(labels, servable), ""])
    data = representative_data
    if data is not None:
        data = Calibration.of(data, trace(servable.model))

    def converted(sparse: bool) -> bytes:
        return convert(
            servable,
            quantize,
            representative_data=data,
            sparse=sparse,
            integer_io=integer_io,
            batch_size=batch_size,
        )

    content = converted(sparse)
    if sparse:
        dense = converted(False)
        sparse = len(content) < len(dense)
        content = content if sparse else dense
    with atomic_file(target) as temporary:
        temporary.write_bytes(content)
        runner = Runner(temporary)
        comparison = compare(
            servable,
            lambda inputs: _answer(runner, inputs),
            None if data is None else _compared(servable, data),
            TOLERANCES[quantize] if tolerance is None else tolerance,
        )
        latency = runner.measure_latency()
        details = {
            "quantize": quantize,
            "sparse": sparse,
            "batch_size": runner.batch_size,
        }
        ends = {"inputs": runner.input_specs, "outputs": runner.output_specs}
        texts["metadata.json"] = description(
            servable, {SIGNATURE: ends}, comparison, plan, **details
        )
        attach(temporary, texts)
    return ExportReport.of(
        target, comparison, latency, renamed=servable.renamed, **details
    )


def _names(labels: Sequence[str], servable: Servable) -> list[str]:
    answer = servable.predict(servable.random_inputs(1, seed=0))
    outputs = {name: ([None, *y.shape[1:]], y.dtype) for name, y in answer.items()}
    return class_names(labels, outputs)


def _compared(servable: Servable, data: Calibration) -> Arrays:
    """Choose the representative inputs on which file and model are compared."""
    chosen = data.drawn(_COMPARED, seed=0).inputs
    inputs = {}
    for (name, (shape, dtype)), x in zip(servable.inputs.items(), chosen, strict=True):
        size = shape[0] or len(x)  # some models fix their batch size
        inputs[name] = np.resize(x, (size, *x.shape[1:])).astype(dtype)
    return inputs


def _answer(runner: Runner, inputs: Arrays) -> Arrays:
    try:
        return runner.predict(inputs)
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            "LiteRT cannot run the file that was written, and it was removed. "
            "Another way to store numbers may do: see `quantize` and `sparse`. "
            f"Received: {error}"
        ) from error
