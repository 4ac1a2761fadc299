"""`Preprocessed`: a servable model that takes the raw inputs of a client."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat import flavour_of, random_inputs, trace
from tf_spline_prune.litert import Servable
from tf_spline_prune.litert._servable import input_names, names_of


class Preprocessed(Servable):
    """A model with a function of the raw inputs before it.

    The raw inputs are described by `input_spec`. Without it, a Keras model that
    knows its inputs tells them itself, and any other function takes what the
    model takes. A single input is given as a bare tensor.

    Args:
        model: A built model of either flavour.
        preprocess: A Keras layer or model of either flavour, or a function made of
            TensorFlow or Keras operations. It gives what the model takes.
        input_spec: A `tf.TensorSpec`, batch axis first, or a list or dictionary of
            them, or `None`.

    Attributes:
        inputs: Shape (batch axis first, `None` where open) and dtype of the raw
            inputs, by name.

    Raises:
        TypeError: If `preprocess` cannot be called, or `input_spec` holds
            something without shape and dtype.
        ValueError: If `preprocess` cannot be run on the raw inputs, or does not
            give what the model takes.

    Example:

    ```python
    raw = tf.TensorSpec((None, 28, 28, 1), "uint8", name="image")
    served = Preprocessed(model, keras.layers.Rescaling(1 / 255), raw)
    served.inputs                                # {"image": (..., "uint8")}
    ```
    """

    def __init__(
        self, model: Any, preprocess: Callable[[Any], Any], input_spec: Any = None
    ) -> None:
        if not callable(preprocess):
            raise TypeError(
                "`preprocess` must be a Keras layer or model, or a function, of the "
                "raw inputs. Received: an object of type "
                f"{type(preprocess).__module__}.{type(preprocess).__qualname__}."
            )
        super().__init__(model)
        self._preprocess = preprocess
        self._takes, names = self.inputs, list(self.inputs)
        self._raw = _bare(self._structure)
        if input_spec is not None:
            self._raw = _bare(input_spec)
            self.inputs = _specs(self._raw, names)
        elif flavour_of(preprocess) and getattr(preprocess, "inputs", None):
            graph = trace(preprocess)
            self._raw = _bare(graph.blueprint.structure[0])
            raw = [(tuple(i.shape), i.dtype) for i in graph.inputs]
            self.inputs = dict(zip(input_names(graph), raw, strict=True))
        self._try()

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """Run the model on one raw tensor per input, in the order of `inputs`."""
        return super().__call__(*self._prepared(*tensors))

    def concrete_function(self, batch_size: int | None = None) -> tuple[Any, Any]:
        """Trace both into one TensorFlow function.

        Args:
            batch_size: Size of the batch axis, where the model leaves it open.

        Returns:
            The concrete function, and a `tf.Module` that holds its variables and
            lookup tables and nothing of Keras.
        """
        import tensorflow as tf

        concrete, module = super().concrete_function(batch_size)
        if flavour_of(self._preprocess) or isinstance(self._preprocess, tf.Module):
            module.tables = [
                part
                for part in tf.train.TrackableView(self._preprocess).descendants()
                if isinstance(part, tf.saved_model.experimental.TrackableResource)
            ]
        return concrete, module

    def random_inputs(self, batch: int, seed: int) -> dict[str, np.ndarray]:
        """Draw inputs as `Servable` does; bytes are pixels here, from 0 to 255."""
        drawn = random_inputs(self.inputs, batch, seed)
        rng = np.random.default_rng(seed)
        for name, array in drawn.items():
            if array.dtype == np.uint8:
                drawn[name] = rng.integers(0, 256, array.shape, "uint8")
        return drawn

    def _prepared(self, *tensors: Any) -> list[Any]:
        raw = keras.tree.pack_sequence_as(self._raw, list(tensors))
        made = self._preprocess(raw)
        if isinstance(made, dict) or isinstance(self._structure, dict):
            keras.tree.assert_same_structure(self._structure, made)
        return list(keras.tree.flatten(made))

    def _try(self) -> None:
        """Trace the preprocessing alone, and look at what comes out."""
        import tensorflow as tf

        specs = [tf.TensorSpec(shape, dtype) for shape, dtype in self.inputs.values()]
        function = tf.function(self._prepared, autograph=False)
        try:
            made = function.get_concrete_function(*specs).structured_outputs
        except Exception as error:  # whatever the user's function raises
            raise ValueError(
                "`preprocess` cannot be run on the raw inputs. It must be made of "
                "TensorFlow or Keras operations; describe what it takes with "
                '`input_spec=tf.TensorSpec((None, 28, 28, 1), "uint8")`, for '
                f"instance. Expected: something that takes {self.inputs}. Received: "
                f"one that raised {type(error).__name__}: {error}"
            ) from error
        found = [tuple(tensor.shape) for tensor in made]
        wanted = [shape for shape, _ in self._takes.values()]
        if len(found) != len(wanted) or not all(
            tf.TensorShape(a).is_compatible_with(b)
            for a, b in zip(found, wanted, strict=True)
        ):
            raise ValueError(
                "`preprocess` does not give what the model takes. Describe the raw "
                "inputs with `input_spec`, or correct the function. Expected: shapes "
                f"{wanted} for the inputs {list(self._takes)}. Received: {found}, made "
                f"of {self.inputs}."
            )


def _bare(structure: Any) -> Any:
    """Take a single tensor out of its list."""
    if isinstance(structure, (list, tuple)) and len(structure) == 1:
        return structure[0]
    return structure


def _specs(structure: Any, names: list[str]) -> dict[str, tuple[Any, str]]:
    """Read the raw inputs off an `input_spec`; nameless ones bear the model's."""
    import tensorflow as tf

    specs = keras.tree.flatten(structure)
    for spec in specs:
        if not hasattr(spec, "shape") or not hasattr(spec, "dtype"):
            raise TypeError(
                "`input_spec` must be a `tf.TensorSpec`, or a list or dictionary of "
                'them, such as `tf.TensorSpec((None, 28, 28, 1), "uint8")`. '
                f"Received: {structure!r}"
            )
    if len(specs) != len(names):
        names = [f"inputs_{i}" for i in range(len(specs))]
    given = [getattr(s, "name", None) or n for s, n in zip(specs, names, strict=True)]
    raw = [(tuple(spec.shape), tf.as_dtype(spec.dtype).name) for spec in specs]
    return dict(zip(names_of(structure, given), raw, strict=True))
