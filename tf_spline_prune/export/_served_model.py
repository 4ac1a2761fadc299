"""`ServedModel`: an exported SavedModel, run as a server runs it."""

from typing import Any

from tf_spline_prune._files import PathLike
from tf_spline_prune.errors import ModelError
from tf_spline_prune.export._comparison import Arrays
from tf_spline_prune.litert import SIGNATURE


class ServedModel:
    """Runs the signature `serving_default` of a SavedModel on the CPU.

    Args:
        folder: The version folder, the one with `saved_model.pb`.

    Attributes:
        inputs: Shape (batch axis first, `None` where open) and dtype by name.
        outputs: The same of the outputs.

    Raises:
        ModelError: If TensorFlow cannot load the folder, or it has no such signature.

    Example:

    ```python
    ServedModel("served/fashion/1").run({"image": x})["scores"]
    ```
    """

    def __init__(self, folder: PathLike) -> None:
        import tensorflow as tf

        try:
            with tf.device("CPU:0"):
                loaded = tf.saved_model.load(str(folder))
        except Exception as error:  # of TensorFlow, protobuf and Python
            raise ModelError(
                "TensorFlow cannot load the SavedModel; export it again. Received: "
                f"{str(folder)!r}, for which it raised {type(error).__name__}: {error}"
            ) from error
        if SIGNATURE not in loaded.signatures:
            raise ModelError(
                f"The SavedModel has no signature {SIGNATURE!r}, which is what servers "
                "ask for. Export the model with `tsp.export_saved_model`. Received: "
                f"{str(folder)!r} with the signatures {sorted(loaded.signatures)}"
            )
        self._loaded = loaded  # whose variables would else be gone
        self._function = loaded.signatures[SIGNATURE]
        self.inputs = _specs(self._function.structured_input_signature[1])
        self.outputs = _specs(self._function.structured_outputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Run the signature on one batch.

        Args:
            inputs: Arrays by input name, batch axis first.

        Returns:
            Arrays by output name.
        """
        import tensorflow as tf

        with tf.device("CPU:0"):
            tensors = {
                name: tf.convert_to_tensor(inputs[name], dtype)
                for name, (_, dtype) in self.inputs.items()
            }
            outputs = self._function(**tensors)
            return {name: output.numpy() for name, output in outputs.items()}


def _specs(tensors: Any) -> dict[str, tuple[tuple[int | None, ...], str]]:
    return {
        name: (tuple(tensor.shape), tensor.dtype.name)
        for name, tensor in sorted(tensors.items())
    }
