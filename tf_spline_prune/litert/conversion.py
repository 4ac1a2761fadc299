"""`convert`: a Keras model as the bytes of a `.tflite` file."""

from typing import Any

from tf_spline_prune.errors import ExportError
from tf_spline_prune.litert.servable import Servable


def convert(model: Any) -> bytes:
    """Convert a model for LiteRT, in float32.

    The batch axis stays open, so the result runs any batch size. Only LiteRT's
    own operations are used: the file needs neither TensorFlow nor custom
    objects. Models in other precisions, mixed ones included, are rebuilt in
    float32 first. Nothing is compared here; `tsp.export_litert` does that.

    Args:
        model: A built model of either flavour, or a `Servable` made from one.

    Returns:
        The bytes of a `.tflite` file with the signature `serving_default`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        ExportError: If the converter has no LiteRT operation for a part of it
            (recurrent layers, with an open batch axis, are such a part).

    Example:

    ```python
    content = tsp.litert.convert(model)
    tsp.litert.Runner(content).run(x)
    ```

    Source: "Convert TensorFlow models", LiteRT documentation.
    """
    import tensorflow as tf

    servable = model if isinstance(model, Servable) else Servable(model)
    concrete, module = servable.concrete_function()
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        return bytes(converter.convert())
    except OSError:
        raise
    except Exception as error:  # the converter raises what it likes
        lines = [line for line in str(error).splitlines() if "error:" in line]
        raise ExportError(
            "The LiteRT converter gave up on this model: a layer has no counterpart "
            "in LiteRT, or there is no space for temporary files. Exchange the "
            "layers that it names, or use `export_saved_model`. Received: model "
            f"{servable.model.name!r}, for which it raised "
            f"{type(error).__name__}: {' '.join(lines) or error}"
        ) from error
