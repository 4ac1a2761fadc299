"""How the numbers of a `.tflite` file are stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import OneOf, Options
from tf_spline_prune.compat import Calibration, trace
from tf_spline_prune.errors import CalibrationWarning, warn
from tf_spline_prune.litert._servable import Servable

Quantize = Literal["float16", "dynamic", "int8"]
"""How `convert` stores weights, other than as float32; `"int8"` also computes so."""
QUANTIZE: Options = [OneOf(*get_args(Quantize)), None]

_MOST_SAMPLES = 512
_FEW_SAMPLES = 100


@dataclass(frozen=True)
class Quantization:
    """A way to store numbers, and the data that tell the ranges of activations.

    Attributes:
        kind: `None` for float32, or what `convert` takes.
        names: The names of the inputs.
        samples: Representative inputs; `None` without any.
        integer_io: Whether inputs and outputs are integers.
    """

    kind: Quantize | None
    names: tuple[str, ...]
    samples: Calibration | None = None
    integer_io: bool = False

    @classmethod
    def of(
        cls,
        servable: Servable,
        kind: Quantize | None,
        data: Any = None,
        integer_io: bool = False,
    ) -> "Quantization":
        """Check what a user asks for.

        Args:
            servable: The model.
            kind: As in `convert`.
            data: As `representative_data` of `convert`.
            integer_io: As in `convert`.

        Raises:
            CalibrationError: If the data are empty, misshapen or not finite.
            ValueError: If the arguments do not fit together.
        """
        if integer_io and kind != "int8":
            raise ValueError(
                "Only a model of 8-bit integers can take and give integers: use "
                '`quantize="int8"` with `integer_io=True`. '
                f"Received: quantize={kind!r}"
            )
        if kind == "int8" and data is None:
            raise ValueError(
                'With `quantize="int8"` the ranges of activations are read from '
                "`representative_data`: a few hundred inputs such as the model will "
                'see. Without any, `quantize="dynamic"` is the next best. '
                "Received: representative_data=None"
            )
        names = tuple(servable.inputs)
        if data is None:
            return cls(kind, names, None, integer_io)
        samples = Calibration.of(data, trace(servable.model))
        if kind == "int8" and len(samples) < _FEW_SAMPLES:
            warn(
                "The ranges of activations come from few inputs, and others may fall "
                f"outside of them. Give {_FEW_SAMPLES} to {_MOST_SAMPLES}. Received: "
                f"{len(samples)} representative inputs",
                CalibrationWarning,
            )
        return cls(kind, names, samples.drawn(_MOST_SAMPLES, seed=0), integer_io)

    def set_up(self, converter: Any, batch: int) -> None:
        """Set the options of TensorFlow's converter.

        Args:
            converter: A `TFLiteConverter`.
            batch: How many inputs it is shown at a time.
        """
        import tensorflow as tf

        if self.kind is None:
            return
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if self.kind == "int8":
            converter.representative_dataset = lambda: self._batches(batch)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if self.integer_io:
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8

    def _batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        if self.samples is None:
            return
        for arrays, _ in self.samples.batches(size):
            # The last ones fill up a fixed batch.
            filled = [np.resize(x, (size, *x.shape[1:])) for x in arrays]
            yield dict(zip(self.names, filled, strict=True))
