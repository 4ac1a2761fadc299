"""`Runner`: runs a `.tflite` file and measures how long it takes."""

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_spline_prune._checks import Having, Instance, Integer, Path, checked, received
from tf_spline_prune._files import PathLike, read_file
from tf_spline_prune.compat import random_inputs
from tf_spline_prune.litert._servable import fitting, named_arrays


class Runner:
    """Run a LiteRT model on the CPU.

    `ai-edge-litert` is the runtime; without it, TensorFlow's own deprecated
    interpreter, which says so in a warning.

    Args:
        model: The bytes of a `.tflite` file, or its path.
        num_threads: Number of CPU threads. Defaults to `1`.

    Attributes:
        input_names: The names of the inputs, in the order of the alphabet (of the
            file, if it has no signature).
        output_names: The names of the outputs, likewise.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the bytes are no LiteRT model.

    Example:

    ```python
    runner = tsp.litert.Runner("fashion.tflite")
    (scores,) = runner.run(x_test[:8])
    scores.shape                 # (8, 10)
    runner.measure_latency()     # in microseconds
    ```
    """

    @checked(
        model=[Instance(bytes, what="the bytes of a model"), Path()],
        num_threads=Integer(1, 1024),
    )
    def __init__(self, model: bytes | PathLike, num_threads: int = 1) -> None:
        content = model
        if isinstance(model, (str, os.PathLike)):
            content = read_file(model, "a .tflite file")
        try:
            self._interpreter = _interpreter_class()(
                model_content=content, num_threads=num_threads
            )
        except ValueError as error:
            raise ValueError(
                f"These bytes are no LiteRT model: {error} Received: {received(model)}"
            ) from error
        self._inputs, self._outputs = _ends(self._interpreter)
        self.input_names = tuple(self._inputs)
        self.output_names = tuple(self._outputs)

    def run(self, inputs: np.ndarray | Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the model on one batch.

        Args:
            inputs: The array of a model with one input, batch axis first;
                otherwise one array per input, by name. (A list is not taken: the
                file does not keep the order of the Keras model's inputs.)

        Returns:
            One array per output, in the order of `output_names`.

        Raises:
            ValueError: If names, shapes or dtypes are not those of the inputs.
        """
        named = named_arrays(inputs, self._inputs)
        specs = self.input_specs
        self._set({name: fitting(name, x, *specs[name]) for name, x in named.items()})
        self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(detail["index"])
            for detail in self._outputs.values()
        ]

    def predict(self, inputs: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Run the model on inputs as its Keras model takes them.

        Of a file that takes and gives integers, floats are quantised on the way in
        and restored on the way out. A file of fixed batch size is run as often as
        needed.

        Args:
            inputs: As in `run`, of any number of examples from 1 on.

        Returns:
            Arrays by output name.

        Raises:
            ValueError: If names, shapes or dtypes are not those of the inputs, or
                they hold different numbers of examples, or none.
        """
        named = named_arrays(inputs, self._inputs)
        arrays = {name: np.atleast_1d(x) for name, x in named.items()}
        counts = {len(x) for x in arrays.values()}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                "Every input needs the same number of examples, at least one. "
                f"Received: { {name: len(x) for name, x in arrays.items()} }"
            )
        count = counts.pop()
        size = self.batch_size or count
        parts = []
        for start in range(0, count, size):
            stop = min(start + size, count)
            # The last ones fill up a fixed batch and are cut off again.
            places = np.resize(np.arange(start, stop), size)
            outputs = self.run(
                {n: self._quantised(n, x[places]) for n, x in arrays.items()}
            )
            parts.append([y[: stop - start] for y in outputs])
        joined = [np.concatenate(y) for y in zip(*parts, strict=True)]
        return {
            name: _restored(y, detail)
            for y, (name, detail) in zip(joined, self._outputs.items(), strict=True)
        }

    @property
    def input_specs(self) -> dict[str, tuple[list[int | None], str]]:
        """Shape (`None` where open) and dtype of each input, by name."""
        return _specs(self._inputs)

    @property
    def output_specs(self) -> dict[str, tuple[list[int | None], str]]:
        """The same of each output."""
        return _specs(self._outputs)

    @property
    def batch_size(self) -> int | None:
        """The fixed size of the batch axis; `None` where it is open."""
        sizes = [shape[0] for shape, _ in self.input_specs.values() if shape]
        return None if None in sizes else max(filter(None, sizes), default=None)

    @checked(runs=Integer(1, 1_000_000), warmup=Integer(0, 1_000_000))
    def measure_latency(self, runs: int = 50, warmup: int = 10) -> float:
        """Measure how long one inference takes at batch size 1.

        Setting the inputs and reading the outputs is not counted. Open sizes
        other than the batch are 32.

        Args:
            runs: Number of timed inferences. Defaults to `50`.
            warmup: Number of inferences before them that are not timed. Defaults to
                `10`.

        Returns:
            The median, in microseconds.

        Raises:
            ValueError: If `runs` is not positive or `warmup` is negative.
        """
        self._set(random_inputs(self.input_specs, batch=1, seed=0))
        times = []
        for _ in range(warmup + runs):
            start = time.perf_counter_ns()
            self._interpreter.invoke()
            times.append(time.perf_counter_ns() - start)
        return float(np.median(times[warmup:]) / 1000)

    def _quantised(self, name: str, values: np.ndarray) -> np.ndarray:
        """Turn floats into the integers that stand for them, if the input has any."""
        detail = self._inputs.get(name, {})
        scale, zero = detail.get("quantization", (0, 0))
        if not scale or values.dtype.kind != "f":
            return values
        if np.isnan(values).any():
            raise ValueError(
                f"No integer of the model's input {name!r} stands for NaN. Received: "
                f"{np.isnan(values).sum()} of {values.size} values that are NaN"
            )
        limits = np.iinfo(detail["dtype"])
        steps = np.round(values / scale) + zero
        return np.clip(steps, limits.min, limits.max).astype(detail["dtype"])

    def _set(self, inputs: Mapping[str, np.ndarray]) -> None:
        for name, array in inputs.items():
            index = self._inputs[name]["index"]
            self._interpreter.resize_tensor_input(index, array.shape)
        self._interpreter.allocate_tensors()
        for name, array in inputs.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)


def _specs(ends: Mapping[str, Any]) -> dict[str, tuple[list[int | None], str]]:
    return {
        name: (
            [None if size < 0 else int(size) for size in detail["shape_signature"]],
            np.dtype(detail["dtype"]).name,
        )
        for name, detail in ends.items()
    }


def _restored(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Turn integers into the floats that they stand for, if the output has any."""
    scale, zero = detail["quantization"]
    if not scale:
        return values
    return (values.astype("float32") - zero) * np.float32(scale)


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter


def _ends(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the details of inputs and outputs by name.

    The names are those of the signature; files without one have tensor names.
    """
    keys = list(interpreter.get_signature_list())
    if keys:
        signature = interpreter.get_signature_runner(keys[0])
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
        return dict(sorted(inputs.items())), dict(sorted(outputs.items()))
    return (
        {detail["name"]: detail for detail in interpreter.get_input_details()},
        {detail["name"]: detail for detail in interpreter.get_output_details()},
    )


_ROUNDS = 25
_LEAST_ROUNDS = 5
_PATIENCE = 2.0  # seconds


@checked(runners=Having("measure_latency", what="a `Runner` or the like"))
def interleaved_latencies(*runners: Runner) -> tuple[float, ...]:
    """Measure the latencies of models in turns, on one input each.

    A machine slows down and speeds up from second to second. In turns all models
    meet the same moments, so that their ratios hold where each number alone
    would not.

    Args:
        runners: The models.

    Returns:
        For each the median over up to 25 turns, in microseconds; fewer, five at
        least, where a turn takes long.

    Example:

    ```python
    runners = [tsp.litert.Runner(tsp.litert.convert(m)) for m in (model, small)]
    before, after = tsp.litert.interleaved_latencies(*runners)
    ```
    """
    times = []
    start = time.monotonic()
    for turn in range(_ROUNDS):
        if turn >= _LEAST_ROUNDS and time.monotonic() - start > _PATIENCE:
            break
        times.append([r.measure_latency(runs=5, warmup=1) for r in runners])
    return tuple(np.median(times, axis=0).tolist())
