"""`Signatures`: what a server can be asked, written and compared."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tf_spline_prune.compat import values_kept
from tf_spline_prune.errors import ExportError
from tf_spline_prune.export.class_labels import class_names
from tf_spline_prune.export.comparison import Arrays, Comparison, compare
from tf_spline_prune.litert import SIGNATURE, Servable

_CLASSIFY = "classify"


class Signatures:
    """The functions of a SavedModel: `serving_default`, and `classify` with labels.

    Args:
        servable: The model.
        labels: The names of the classes, or `None`.

    Attributes:
        ends: For each signature its inputs and outputs, by name: shape (`None`
            where open) and dtype.

    Raises:
        ValueError: If the labels are not those of the model.

    Example:

    ```python
    signatures = Signatures(tsp.litert.Servable(model), ["cat", "dog"])
    signatures.write(folder)                     # 1.2e-07
    ```
    """

    def __init__(self, servable: Servable, labels: Sequence[str] | None = None) -> None:
        self._servable = servable
        with _explained(servable):
            self._serve, self._module = servable.concrete_function()
        inputs = {n: [list(s), dtype] for n, (s, dtype) in servable.inputs.items()}
        outputs = {
            name: [list(spec.shape), spec.dtype.name]
            for name, spec in self._serve.structured_outputs.items()
        }
        self.ends = {SIGNATURE: {"inputs": inputs, "outputs": outputs}}
        self._labels = None if labels is None else class_names(labels, outputs)
        if self._labels is None:
            return
        ((shape, dtype),) = outputs.values()
        classes = {"classes": [shape, "string"], "scores": [shape, dtype]}
        self.ends[_CLASSIFY] = {"inputs": inputs, "outputs": classes}

    def write(self, folder: pathlib.Path) -> Comparison:
        """Write a SavedModel, load it again and compare it with the model.

        Args:
            folder: An empty folder.

        Returns:
            The largest relative difference of all outputs of all signatures, and
            what it is one of.

        Raises:
            ExportError: If it cannot be written or loaded, or a difference is too
                large.
        """
        with _explained(self._servable):
            self._save(folder)
            return self._compare(folder)

    def _save(self, folder: pathlib.Path) -> None:
        import tensorflow as tf

        signatures = {SIGNATURE: self._serve}
        if self._labels is not None:
            file = folder / "assets" / "labels.txt"
            file.parent.mkdir()
            file.write_text("\n".join(self._labels) + "\n", encoding="utf-8")
            signatures[_CLASSIFY] = self._classify(file)
        tf.saved_model.save(self._module, str(folder), signatures=signatures)

    def _compare(self, folder: pathlib.Path) -> Comparison:
        import tensorflow as tf

        def run(signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
            tensors = {name: tf.convert_to_tensor(x) for name, x in inputs.items()}
            outputs = loaded.signatures[signature](**tensors)
            return {name: output.numpy() for name, output in outputs.items()}

        def classified(inputs: Arrays) -> dict[str, np.ndarray]:
            return {self._servable.outputs[0]: self._unsorted(run(_CLASSIFY, inputs))}

        answers: list[Callable[[Arrays], Arrays]] = [lambda x: run(SIGNATURE, x)]
        if self._labels is not None:
            answers.append(classified)
        with tf.device("CPU:0"):
            loaded = tf.saved_model.load(str(folder))
            comparisons = []
            for answer in answers:
                with values_kept(getattr(loaded, "weights", ())):
                    comparisons.append(compare(self._servable, answer))
        return max(comparisons, key=lambda one: one.difference or 0.0)

    def _classify(self, file: pathlib.Path) -> Any:
        """Make the signature that answers with names, read from the asset."""
        import tensorflow as tf

        lines = tf.lookup.TextFileInitializer(
            tf.saved_model.Asset(str(file)),
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
        )
        table = self._module.labels = tf.lookup.StaticHashTable(lines, "")

        def classify(*tensors: Any) -> dict[str, Any]:
            (scores,) = self._serve(*tensors).values()
            scores, order = tf.math.top_k(scores, len(self._labels or ()))
            return {"classes": table.lookup(tf.cast(order, tf.int64)), "scores": scores}

        specs = [
            tf.TensorSpec(shape, dtype, name)
            for name, (shape, dtype) in self._servable.inputs.items()
        ]
        return tf.function(classify, autograph=False).get_concrete_function(*specs)

    def _unsorted(self, found: Arrays) -> np.ndarray:
        """Bring the scores of `classify` back into the order of the labels."""
        places = {
            label.encode(): place for place, label in enumerate(self._labels or ())
        }
        order = np.vectorize(places.get, otypes=[int])(found["classes"])
        scores = np.take_along_axis(found["scores"], order.argsort(axis=1), axis=1)
        best_first = np.all(found["scores"][:, 1:] <= found["scores"][:, :-1])
        if not best_first and not np.isnan(scores).any():
            raise ExportError(
                "The signature `classify` does not give the best class first, and "
                f"was removed. Received: model {self._servable.name!r}."
            )
        return scores


@contextmanager
def _explained(servable: Servable) -> Iterator[None]:
    """Say what happened when TensorFlow raises; it raises what it likes."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system, not of TensorFlow
        raise ExportError(
            "TensorFlow could not write the model or load it again, and nothing "
            "was left behind. Look for space on the disk, for signs in the path that "
            "TensorFlow reads as a pattern (`[`, a backslash), or for the layer that "
            f"it names. Received: model {servable.name!r}, which raised "
            f"{type(error).__name__}: {error}"
        ) from error
