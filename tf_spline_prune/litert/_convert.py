"""`convert`: a Keras model as the bytes of a `.tflite` file."""

import tempfile
import warnings
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, Flag, checked
from tf_spline_prune.compat import CurrentWeights, kind_of, plain_recurrence, trace
from tf_spline_prune.errors import ExportError
from tf_spline_prune.litert._quantization import QUANTIZE, Quantization, Quantize
from tf_spline_prune.litert._servable import Servable

SIGNATURE = "serving_default"
"""The name of the signature in every `.tflite` file."""
_LOOPS = {"While", "StatelessWhile"}


@checked(sparse=Flag(), integer_io=Flag(), batch_size=[COUNT, None], quantize=QUANTIZE)
def convert(
    model: Any,
    quantize: Quantize | None = None,
    *,
    representative_data: Any = None,
    sparse: bool = False,
    integer_io: bool = False,
    batch_size: int | None = None,
) -> bytes:
    """Convert a model to the bytes of a LiteRT model.

    Only LiteRT's own operations are used: the file needs neither TensorFlow nor
    custom objects. Models in other precisions than float32, mixed ones included,
    are rebuilt in float32 first. Nothing is compared here; `tsp.export_litert` does
    that.

    The batch axis stays open, so the result runs any batch size. Where LiteRT cannot
    do that (recurrent layers keep their outputs in a list of fixed size) it is 1.
    Loops cannot be calibrated: with `quantize="int8"` recurrent layers are unrolled.

    Args:
        model: A built model of either flavour, or a `Servable` made from one.
        quantize: `None`: float32. `"float16"`: weights of half the size. `"dynamic"`:
            weights of 8 bits, activations quantised as they come. `"int8"`: all of 8
            bits, with scales from `representative_data`. Defaults to `None`.
        representative_data: Inputs such as the model will see, without labels or with
            them: an array, a list or dict of arrays, or batches of these. At most 512
            of them are used. Needed for `"int8"`. Defaults to `None`.
        sparse: Store weights without their zeros where that saves room. Defaults to
            `False`.
        integer_io: With `"int8"`: take and give integers, not floats. Defaults to
            `False`.
        batch_size: Fix the batch axis to this size. Defaults to `None`.

    Returns:
        The bytes of a `.tflite` file with the signature `serving_default`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        CalibrationError: If the representative data are empty, misshapen or not
            finite.
        ValueError: If the arguments do not fit together.
        ExportError: If the converter has no LiteRT operation for a part of it, or
            the combination is known to give files that do not load or answer wrongly.

    Example:

    ```python
    content = tsp.litert.convert(model, "int8", representative_data=x_train[:200])
    tsp.litert.Runner(content).predict(x_test)
    ```

    Source: "Convert TensorFlow models" and "Post-training quantization", LiteRT
    documentation.
    """
    servable = model if isinstance(model, Servable) else Servable(model)
    how = Quantization.of(servable, quantize, representative_data, integer_io)
    fault = sparse_fault(servable.model, quantize) if sparse else None
    if fault:
        raise ExportError(fault)
    concrete, module = _traced(servable, quantize, batch_size)
    return _converted(servable, concrete, module, how, sparse)


def _traced(
    servable: Servable, quantize: Quantize | None, batch_size: int | None
) -> tuple[Any, Any]:
    """Trace the model so that LiteRT can take it."""

    def trace(batch_size: int | None, unroll: bool = False) -> tuple[Any, Any]:
        with plain_recurrence(servable.model, unroll):
            return servable.concrete_function(batch_size)

    concrete, module = trace(batch_size)
    kinds = _operations(concrete)
    if quantize == "int8" and kinds & _LOOPS:
        # Calibration of a loop ends the process.
        try:
            concrete, module = trace(batch_size, unroll=True)
        except ValueError:  # the number of timesteps is open
            pass
        if _operations(concrete) & _LOOPS:
            raise ExportError(
                "LiteRT cannot calibrate loops, and this one cannot be unrolled. Fix "
                'the number of timesteps of recurrent layers, or use "dynamic" or '
                f'"float16". Received: model {servable.name!r} with '
                'quantize="int8"'
            )
    elif batch_size is None and "TensorListReserve" in kinds:
        concrete, module = trace(1)
    return concrete, module


def _operations(concrete: Any) -> set[str]:
    graph = concrete.graph.as_graph_def()
    kinds = {node.op for node in graph.node}
    return kinds | {n.op for f in graph.library.function for n in f.node_def}


def _converted(
    servable: Servable, concrete: Any, module: Any, how: Quantization, sparse: bool
) -> bytes:
    import tensorflow as tf

    try:
        # Through a folder, for only so inputs are calibrated by name.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            tf.saved_model.save(module, folder, signatures={SIGNATURE: concrete})
            converter = tf.lite.TFLiteConverter.from_saved_model(
                folder, signature_keys=[SIGNATURE]
            )
            how.set_up(converter, concrete.inputs[0].shape[0] or 1)
            if sparse:
                converter.optimizations = [
                    *converter.optimizations,
                    tf.lite.Optimize.EXPERIMENTAL_SPARSITY,
                ]
            # It misses the ranges of inputs, and takes them from the data, with the
            # interpreter that it calls deprecated.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs")
            warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter")
            return bytes(converter.convert())
    except OSError:
        raise
    except Exception as error:  # the converter raises what it likes
        if servable.varies():
            raise ExportError(changing("LiteRT", servable, error)) from error
        lines = [line for line in str(error).splitlines() if "error:" in line]
        raise ExportError(
            "The LiteRT converter gave up on this model: a layer has no counterpart in "
            "LiteRT, or there is no space for temporary files. Replace the layers that "
            "it names, or use `export_saved_model`. Received: model "
            f"{servable.name!r}, for which it raised {type(error).__name__}: "
            f"{' '.join(lines) or error}"
        ) from error


def changing(format: str, servable: Servable, error: Exception) -> str:
    """Return why a format cannot hold a model that changes from call to call."""
    first = str(error).strip().partition("\n")[0]
    return (
        "The model answers the same inputs differently from call to call, and "
        f"{format} has no operation for its random numbers or its state. Use "
        "`export_saved_model`, or build the model without what changes "
        "(`training=True`, a layer that samples, `stateful=True`). Received: model "
        f"{servable.name!r}, for which the converter raised {type(error).__name__}: "
        f"{first[:500]}"
    )


_SPARSE = 0.3  # fraction of zeros from which the converter stores a kernel without them
_BLOCKS = {"float16": (4, 0.9), "int8": (16, 0.8)}  # fraction of zeros in whole blocks


def sparse_fault(model: Any, quantize: Quantize | None) -> str | None:
    """Return what is known to go wrong if a model is stored without its zeros.

    Measured with LiteRT 2.3.0 and its default kernels. What is not known here is
    caught when the written file is compared with the model.

    Args:
        model: A built model of either flavour.
        quantize: As in `convert`.

    Returns:
        The reason to refuse, or `None`.
    """
    if quantize == "dynamic":
        return (
            'LiteRT does not load files with `quantize="dynamic"` and `sparse=True`, '
            "or answers wrongly from them. Leave out `sparse` (compressed, such a file "
            'is the smaller one anyway), or use quantize="float16".'
        )
    if quantize is None:
        return None
    length, whole = _BLOCKS[quantize]
    found = []
    graph = trace(model)
    weights = CurrentWeights(graph)
    dense = {c.path for c in graph.calls if kind_of(c.layer) == "Dense"}
    for path in sorted(dense):
        kernel = weights[path]["kernel"]
        if np.mean(kernel == 0) < _SPARSE:
            continue
        in_blocks = _fraction_in_blocks(kernel, length) >= whole
        if in_blocks == (quantize == "float16"):
            found.append(path)
    if not found:
        return None
    if quantize == "float16":
        return (
            "LiteRT answers NaN from Dense layers whose zeros come in blocks of 4 "
            "inputs, stored sparse in float16. Leave out `sparse` or `quantize`. "
            f"Received: layers {found}"
        )
    return (
        "LiteRT does not load sparse Dense layers of 8 bits unless their zeros come in "
        "blocks of 16 inputs (`granularity=(16, 1)` in `MaskPruning`). Leave out "
        f"`sparse` or `quantize`. Received: layers {found}"
    )


def _fraction_in_blocks(kernel: np.ndarray, length: int) -> float:
    """Return the fraction of zeros in whole blocks of inputs of one output."""
    zero = kernel == 0
    missing = -len(zero) % length
    padded = np.pad(zero, ((0, missing), (0, 0)), constant_values=True)
    blocks = padded.reshape(-1, length, zero.shape[1]).all(1)
    whole = np.repeat(blocks, length, 0)[: len(zero)]
    return float(whole.sum() / zero.sum())
