"""`export_saved_model`: a model as TensorFlow Serving wants it."""

import importlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tf_spline_prune._checks import FOLDER, Function, Integer, check, checked, received
from tf_spline_prune._files import PathLike, atomic_folder
from tf_spline_prune.compat import values_kept
from tf_spline_prune.errors import ExportError
from tf_spline_prune.export._comparison import (
    SEED,
    Arrays,
    Comparison,
    compare,
    unmasked,
)
from tf_spline_prune.export._export_report import (
    LABELS,
    ExportReport,
    class_names,
    write_metadata,
)
from tf_spline_prune.export._preprocessed import Preprocessed
from tf_spline_prune.litert import SIGNATURE, Servable
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning._remove_units import PLAN

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


# What TensorFlow Serving takes.
VERSION = Integer(0, 2**63 - 1)


@checked(
    folder=FOLDER,
    version=[VERSION, None],
    preprocess=[Function("a function, a layer or a model", layers=True), None],
    labels=LABELS,
    plan=[PLAN, None],
)
def export_saved_model(
    model: Any,
    folder: PathLike,
    version: int | None = None,
    *,
    preprocess: Callable[[Any], Any] | None = None,
    input_spec: Any = None,
    labels: Sequence[str] | None = None,
    warmup: Warmup = None,
    plan: PruningPlan | None = None,
) -> ExportReport:
    """Export a model as `folder/<version>/saved_model.pb` for TensorFlow Serving.

    The signature `serving_default` takes and gives named tensors with a batch
    axis. The inputs bear the names of the model's inputs, the outputs those of
    its last layers (or the keys, where these are dictionaries; `inputs` and
    `outputs` for a subclassed model). Neither Keras nor custom objects are
    needed to load it.

    With `labels` a second signature, `classify`, takes the same inputs and gives
    the `classes` by name, best first, and their `scores` in the same order. It
    reads the names from `assets/labels.txt` when it is loaded.

    The version is written under a temporary name, which TensorFlow Serving
    overlooks, loaded again and compared with the model in inference mode on
    random inputs, in all signatures; only then does it take its place. What is
    random in the model, such as a layer that was told `training=True`, stays so; the
    report says what was compared. A model in
    another precision, mixed ones included, is rebuilt in float32 and compared
    with the rebuilt one. Masks are stripped. `assets.extra/metadata.json` says
    what was written, by which versions, and gives the SHA-256 of every other file.

    Args:
        model: A built model of either flavour.
        folder: The folder of all versions of the model; made if missing. Its name
            is the model's name in warm-up requests.
        version: A version that does not exist yet, at least 0; `None` takes the number
            after the highest one there, or 1. Of several exports at once each gets a
            number of its own. Defaults to `None`.
        preprocess: What makes the model's inputs from those that are served, such as
            `keras.layers.Rescaling(1 / 255)`: a layer, a model, or a function of
            TensorFlow or Keras operations. It becomes part of the signatures. Defaults
            to `None`.
        input_spec: What is served to `preprocess`: a `tf.TensorSpec`, batch axis first,
            or a list or dictionary of them. Defaults to `None`, which takes the inputs
            of `preprocess`, where it is a Keras model that knows them, else those of
            the model.
        labels: The names of the classes, in the order of the model's scores. Defaults
            to `None`.
        warmup: A number of requests of one random example, or examples: the array of
            the one input, or a dictionary by input name. Each example is a request of
            its own (a batch, if the model fixes its size); at most 1000. A server runs
            them before a version goes live. Needs the extra `serving`. Defaults to
            `None`.
        plan: The plan that the model was pruned by, to be kept in the metadata.
            Defaults to `None`.

    Returns:
        The version folder, its sizes and the largest difference.

    Raises:
        ValueError: If `version` is not a number from 0 on; if `preprocess` cannot
            be run or does not give what the model takes; if the model does not
            give one score per label; if the warm-up arrays are not those of the
            inputs.
        TypeError: If an argument is of another kind.
        ImportError: If `warmup` is asked for without tensorflow-serving-api.
        FileExistsError: If the version exists.
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        ExportError: If it cannot be written or loaded, or its outputs differ by
            more than 1e-4, relative to the largest output. No version is left
            behind.
        OSError: If the folder cannot be written to.

    Example:

    ```python
    report = tsp.export_saved_model(
        small,
        "served/fashion",
        preprocess=keras.layers.Rescaling(1 / 255),
        input_spec=tf.TensorSpec((None, 28, 28, 1), "uint8", name="image"),
        labels=class_names,
        warmup=10,
    )
    classify = tf.saved_model.load(str(report.path)).signatures["classify"]
    classify(image=tf.constant(images))["classes"][:, 0]
    ```

    Source: "SavedModel", "Serving a TensorFlow model" and "SavedModel Warmup",
    TensorFlow documentation.
    """
    _version_folder(folder, version)  # what is known to fail, fails before the work
    servable = _servable(unmasked(model), preprocess, input_spec)
    requests = warmup_requests(servable, warmup)
    signatures = Signatures(servable, labels)
    with atomic_folder(lambda: _version_folder(folder, version)) as made:
        comparison = signatures.write(made.temporary)
        if requests:
            write_warmup(made.temporary, made.path.parent.name, requests)
        write_metadata(made.temporary, servable, signatures.ends, comparison, plan)
    return ExportReport.of(made.path, comparison, renamed=servable.renamed)


def _servable(model: Any, preprocess: Any, input_spec: Any) -> Servable:
    if preprocess is not None:
        return Preprocessed(model, preprocess, input_spec)
    if input_spec is not None:
        raise ValueError(
            "`input_spec` describes what `preprocess` takes; without one the model's "
            "own inputs are served. Give both or neither. Received: "
            f"input_spec={received(input_spec)}, preprocess=None."
        )
    return Servable(model)


def _version_folder(folder: PathLike, version: int | None) -> pathlib.Path:
    parent = pathlib.Path(folder).expanduser().absolute()
    entries = parent.iterdir() if parent.is_dir() else ()
    taken = {int(entry.name) for entry in entries if entry.name.isdecimal()}
    if version is None:
        version = max(taken, default=0) + 1
        check("version", version, VERSION)
    if version in taken:
        raise FileExistsError(
            "This version exists already, and a server may be using it. Leave "
            "`version` out to get the next free one, or remove the folder. "
            f"Received: version {version} in {str(folder)!r}"
        )
    return parent / str(version)


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
    """Turn whatever TensorFlow raises into an error that says what happened."""
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
