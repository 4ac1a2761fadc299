"""`Servable`: a Keras model as one function from named to named tensors."""

import keyword
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, SEED, checked, received
from tf_spline_prune.compat import (
    CurrentWeights,
    Graph,
    check_finite,
    fixed_size,
    sample_inputs,
    trace,
    values_kept,
    with_dtype,
    with_plain_names,
)
from tf_spline_prune.errors import ExportError, ModelError


class Servable:
    """A model in float32 and inference mode, with names for what goes in and out.

    Both export formats are written from this one function, so that a client
    finds the same names in both. Inputs and outputs are named by the keys of a
    dictionary, or by the layers of a functional model (changed where they are
    not Python names: `conv.1` becomes `conv_1`). The layers of a subclassed model say
    nothing about its ends: they are `inputs` and `outputs`, numbered
    (`inputs_0`) when there are several.

    A model in another precision, mixed ones included, is rebuilt in float32, one with
    names that TensorFlow does not take, such as `größe` or `my layer`, under others.

    Layers that were told `training=True` when the model was built, such as a dropout
    that is to stay, do as they were told, as in Keras' own `model.export`.

    Args:
        model: A built model of either flavour.

    Attributes:
        model: The model, or its copy.
        name: The name of the model that was given.
        inputs: Shape (batch axis first, `None` where open) and dtype by name.
        outputs: The names of the outputs.
        renamed: The names of inputs and outputs that had to be changed, by those
            that they have in the model.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, takes strings, or has
            weights that are not finite.
        ExportError: If Keras runs on another backend than TensorFlow.

    Example:

    ```python
    servable = tsp.litert.Servable(model)
    servable.inputs["image"][0]                  # (None, 28, 28, 1)
    servable.predict(servable.random_inputs(4, seed=0))
    ```
    """

    def __init__(self, model: Any) -> None:
        graph = trace(model)
        if keras.config.backend() != "tensorflow":
            raise ExportError(
                "A model is exported through TensorFlow. Save it with `model.save`, "
                "set KERAS_BACKEND=tensorflow before the first import of keras, "
                f"load it there and export. Received: model {model.name!r} on the "
                f"backend {keras.config.backend()!r}."
            )
        for path, weights in CurrentWeights(graph).items():
            check_finite(path, weights)
        self.name = str(graph.model.name)
        self._graph = graph
        self.model = with_plain_names(_in_float32(graph))
        self.inputs = {
            name: (i.shape, "float32" if _is_float(i.dtype) else i.dtype)
            for name, i in zip(input_names(graph), graph.inputs, strict=True)
        }
        self.outputs = _plain(_outputs(graph))
        had = [*_inputs(graph), *_outputs(graph)]
        has = [*self.inputs, *self.outputs]
        self.renamed = {a: b for a, b in zip(had, has, strict=True) if a != b}
        # What a layer was told must not be overruled, as `training=False` does.
        self._mode = {} if graph.blueprint.trains() else {"training": False}
        self._variables: list[Any] | None = None
        self._structure = graph.blueprint.structure[0]
        for name, (_, dtype) in self.inputs.items():
            if dtype == "string":
                raise ModelError(
                    "A model that takes strings cannot be compared on random "
                    "inputs. Export the part after the text preprocessing. "
                    f"Received: model {model.name!r} with the string input {name!r}."
                )

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """Run the model on one tensor per input, in the order of `inputs`."""
        arguments = keras.tree.pack_sequence_as(self._structure, list(tensors))
        outputs = keras.tree.flatten(self.model(arguments, **self._mode))
        return dict(zip(self.outputs, outputs, strict=True))

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model eagerly on the CPU, whose float32 is not TF32; states stay.

        Args:
            inputs: Arrays by input name, batch axis first.

        Returns:
            Arrays by output name.

        Raises:
            ValueError: If names, shapes or dtypes are not those of the inputs.
        """
        return self.answers(inputs, 1)[0]

    @checked(count=COUNT)
    def answers(
        self, inputs: Mapping[str, np.ndarray], count: int
    ) -> list[dict[str, np.ndarray]]:
        """Run the model several times, one after the other, on the same inputs.

        The answers of a model with a state (of random numbers, of a stateful
        recurrent layer) differ. The state is afterwards what it was.

        Args:
            inputs: As in `predict`.
            count: How often to run.

        Returns:
            Arrays by output name, one dictionary for each run.

        Raises:
            ValueError: If names, shapes or dtypes are not those of the inputs.
        """
        import tensorflow as tf

        arrays = []
        for name, array in named_arrays(inputs, self.inputs).items():
            shape, dtype = self.inputs[name]
            arrays.append(fitting(name, array, (None, *shape[1:]), dtype))
        if self._variables is None:
            self.concrete_function()
        with tf.device("CPU:0"), values_kept(self._variables or ()):
            tensors = [tf.convert_to_tensor(array) for array in arrays]
            return [
                {name: np.asarray(y) for name, y in self(*tensors).items()}
                for _ in range(count)
            ]

    def varies(self) -> bool:
        """Return whether two answers to the same inputs differ."""
        first, second = self.answers(self.random_inputs(4, seed=0), 2)
        return any(
            not np.array_equal(first[name], second[name], equal_nan=True)
            for name in first
        )

    @checked(batch_size=[COUNT, None])
    def concrete_function(self, batch_size: int | None = None) -> tuple[Any, Any]:
        """Trace the model into a TensorFlow function.

        Args:
            batch_size: Size of the batch axis, where the model leaves it open. Defaults
                to `None`.

        Returns:
            The concrete function, and a `tf.Module` that holds its variables and
            nothing of Keras.
        """
        import tensorflow as tf

        specs = [
            tf.TensorSpec((shape[0] or batch_size, *shape[1:]), dtype, name)
            for name, (shape, dtype) in self.inputs.items()
        ]
        function = tf.function(self.__call__, autograph=False)
        concrete = function.get_concrete_function(*specs)
        self._variables = list(concrete.graph.variables)
        module = tf.Module()
        module.weights = list(concrete.graph.variables)
        return concrete, module

    @checked(batch=COUNT, seed=SEED)
    def random_inputs(self, batch: int, seed: int) -> dict[str, np.ndarray]:
        """Draw inputs that the model may be given: numbers, images or ids.

        Args:
            batch: Batch size, where the model leaves it open; other open sizes
                become such as the model can be run with, 32 if it takes that.
            seed: Seed of the numbers.

        Returns:
            Arrays by input name.
        """
        size = fixed_size(self._graph.inputs) or batch
        arrays = sample_inputs(self._graph, size, seed)
        return {
            name: array.astype(dtype)
            for (name, (_, dtype)), array in zip(
                self.inputs.items(), arrays, strict=True
            )
        }


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _in_float32(graph: Graph) -> Graph:
    dtypes = {
        str(getattr(call.layer, attribute, None))
        for call in graph.calls
        for attribute in ("compute_dtype", "variable_dtype")
    }
    if any(_is_float(dtype) and dtype != "float32" for dtype in dtypes):
        return trace(with_dtype(graph.model, "float32"))
    return graph


def input_names(graph: Graph) -> list[str]:
    """Return the names of a model's inputs as a client finds them.

    Args:
        graph: The model, traced.

    Returns:
        One Python name per input.
    """
    return _plain(_inputs(graph))


def _inputs(graph: Graph) -> list[str]:
    """Return the names of a model's inputs as it has them."""
    names = _numbered("inputs", len(graph.inputs))
    if _has_ends(graph):
        names = [i.name for i in graph.inputs]
    return _keys(graph.blueprint.structure[0], names)


def _outputs(graph: Graph) -> list[str]:
    names = _numbered("outputs", len(graph.output_tensors))
    if _has_ends(graph):
        names = [name for name, _ in graph.blueprint.ends()]
    return _keys(graph.blueprint.structure[1], names)


def _has_ends(graph: Graph) -> bool:
    """Whether the model itself, not only our trace of it, has input layers."""
    return bool(getattr(graph.model, "inputs", None))


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}_{i}" for i in range(count)]


def names_of(structure: Any, names: Iterable[str]) -> list[str]:
    """Return names of tensors: the keys of a dictionary of them, else as given.

    Args:
        structure: The tensors as the model takes or gives them.
        names: What to call them where the structure is no dictionary.

    Returns:
        Python names, no two of them the same.
    """
    return _plain(_keys(structure, names))


def _keys(structure: Any, names: Iterable[str]) -> list[str]:
    if not isinstance(structure, dict):
        return list(names)
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    return ["_".join(map(str, path)) for path in paths]


def _plain(names: Iterable[str]) -> list[str]:
    """Turn names into Python names of ASCII letters, no two of them the same."""
    found: list[str] = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")
        if not stem.isidentifier() or keyword.iskeyword(stem):
            stem = f"tensor_{stem}"
        name, count = stem, 1
        while name in found:
            name = f"{stem}_{count}"
            count += 1
        found.append(name)
    return found


def named_arrays(given: Any, names: Collection[str]) -> dict[str, np.ndarray]:
    """Return the arrays by name, and make sure that they are all there.

    Args:
        given: Arrays by name; of a model with one input also the array itself.
        names: The names of the inputs.

    Returns:
        Arrays, in the order of `names`.

    Raises:
        ValueError: If there are other names, or something is no array.
    """
    if not isinstance(given, Mapping):
        if len(names) != 1:
            raise ValueError(
                "The model has several inputs, so the arrays must be named. "
                f"Expected: a dictionary with the keys {list(names)}. "
                f"Received: {received(given)}"
            )
        given = {next(iter(names)): given}
    if set(given) != set(names):
        raise ValueError(
            "The names of the arrays are not those of the model's inputs. "
            f"Expected: {list(names)}. Received: {received(list(given))}"
        )
    return {name: _array(name, given[name]) for name in names}


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception:  # whatever a list of unequal lists, or a user's class, raises
        array = np.asarray(None)
    words = array.dtype.kind in "USO" and all(
        isinstance(item, (str, bytes)) for item in array.flat
    )
    if not words and array.dtype.kind not in "biufc":
        raise ValueError(
            f"The model's input {name!r} takes an array of numbers, or of texts. "
            f"Received: {received(value)}"
        )
    return array.astype(object) if words else array


def _castable(array: np.ndarray, dtype: str) -> bool:
    return array.dtype != object and np.can_cast(array.dtype, dtype, "same_kind")


def fitting(
    name: str, array: np.ndarray, shape: Sequence[int | None], dtype: str
) -> np.ndarray:
    """Make sure that an array fits an input.

    Args:
        name: The input's name.
        array: The array.
        shape: The input's shape, `None` where any positive size fits.
        dtype: Its dtype.

    Returns:
        The array in that dtype; its integers are the same ones. Texts are objects.

    Raises:
        ValueError: If it does not fit.
    """
    fits = len(shape) == array.ndim and all(
        size > 0 and want in (None, size)
        for want, size in zip(shape, array.shape, strict=True)
    )
    texts = dtype == "string"
    castable = array.dtype == object if texts else _castable(array, dtype)
    if not fits or not castable:
        raise ValueError(
            f"The array does not fit the model's input {name!r}. Expected: shape "
            f"{tuple(shape)}, where None is any positive size, dtype {dtype}. "
            f"Received: shape {array.shape}, dtype {array.dtype}"
        )
    if texts:
        return array
    if np.dtype(dtype).kind in "iu" and array.dtype.kind in "iu":
        limits, low, high = np.iinfo(dtype), int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"The array holds numbers beyond those of the model's input {name!r}. "
                f"Expected: from {limits.min} to {limits.max}, dtype {dtype}. "
                f"Received: numbers from {low} to {high}, dtype {array.dtype}"
            )
    return array.astype(dtype)
