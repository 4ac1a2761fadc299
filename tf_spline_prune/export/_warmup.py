"""Warm-up requests: what TensorFlow Serving runs before a version goes live."""

import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_spline_prune.export._comparison import SEED, Arrays
from tf_spline_prune.litert import SIGNATURE, Servable

Warmup = int | np.ndarray | Mapping[str, np.ndarray] | None

_MOST = 1000  # TensorFlow Serving refuses a version with more


def warmup_requests(servable: Servable, warmup: Warmup) -> list[dict[str, np.ndarray]]:
    """Make the inputs of the requests, or say why they cannot be.

    Args:
        servable: The model that is to be asked.
        warmup: As `export_saved_model` takes it.

    Returns:
        One dictionary of arrays a request, by input name.

    Raises:
        ImportError: If `tensorflow-serving-api` is not installed.
        TypeError: If `warmup` is neither a number nor arrays.
        ValueError: If there are none or more than 1000 requests, or the arrays
            are not those of the inputs.
    """
    if warmup is None:
        return []
    _log_module()
    if isinstance(warmup, int) and not isinstance(warmup, bool):
        _check_number(warmup)
        return [servable.random_inputs(1, SEED + i) for i in range(warmup)]
    if not isinstance(warmup, (np.ndarray, Mapping)):
        raise TypeError(
            "`warmup` must be a number of random requests, the array of a model with "
            "one input, or a dictionary of arrays by input name. Received: an object "
            f"of type {type(warmup).__name__}."
        )
    if not isinstance(warmup, Mapping):
        warmup = dict.fromkeys(list(servable.inputs)[:1], warmup)
    if set(warmup) != set(servable.inputs):
        raise ValueError(
            "The warm-up arrays do not match those of the model's inputs. Expected: a "
            f"dictionary with the keys {list(servable.inputs)}. Received: "
            f"{list(warmup)}."
        )
    sizes = {shape[0] or 1 for shape, _ in servable.inputs.values()}
    size = max(sizes)
    arrays = {
        name: _fitting(name, np.asarray(warmup[name]), spec, size)
        for name, spec in servable.inputs.items()
    }
    counts = {len(array) for array in arrays.values()}
    if len(counts) > 1:
        raise ValueError(
            "The warm-up arrays hold different numbers of examples. Received: "
            f"{ {name: len(array) for name, array in arrays.items()} }."
        )
    count = counts.pop()
    _check_number(count // size)
    return [
        {name: array[i : i + size] for name, array in arrays.items()}
        for i in range(0, count, size)
    ]


def write_warmup(folder: pathlib.Path, model: str, requests: Sequence[Arrays]) -> None:
    """Write requests to the file that TensorFlow Serving looks for.

    Args:
        folder: The version folder.
        model: The name of the model.
        requests: Arrays by input name, one dictionary a request.
    """
    import tensorflow as tf

    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for inputs in requests:
            log = _log_module().PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = SIGNATURE
            for name, array in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            writer.write(log.SerializeToString(deterministic=True))


def _log_module() -> Any:
    try:
        return importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need tensorflow-serving-api. Install it with "
            '`pip install "tf-spline-prune[serving]"`, or leave `warmup` out.'
        ) from error


def _check_number(count: int) -> None:
    if not 1 <= count <= _MOST:
        raise ValueError(
            "TensorFlow Serving refuses a version with too many warm-up requests, and "
            f"no request warms nothing up. Expected: 1 to {_MOST}; one example is one "
            f"request. Received: {count}."
        )


def _fitting(
    name: str, array: np.ndarray, spec: tuple[Sequence[int | None], str], size: int
) -> np.ndarray:
    shape, dtype = tuple(spec[0]), spec[1]
    text = dtype == "string"
    fits = array.ndim == len(shape) and all(
        want in (None, have)
        for want, have in zip(shape[1:], array.shape[1:], strict=True)
    )
    casts = (
        array.dtype.kind in "OSU"
        if text
        else np.can_cast(array.dtype, dtype, "same_kind")
    )
    if not fits or not casts or len(array) % size:
        raise ValueError(
            f"The warm-up array does not fit the input {name!r}. Expected: shape "
            f"{(None, *shape[1:])}, dtype {dtype}, a multiple of {size} examples. "
            f"Received: shape {array.shape}, dtype {array.dtype}."
        )
    return array.astype(object if text else dtype)
