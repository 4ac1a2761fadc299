"""`export_saved_model`: a model as TensorFlow Serving wants it."""

import pathlib
from typing import Any

from tf_spline_prune.errors import ExportError
from tf_spline_prune.export.comparison import Arrays, compare
from tf_spline_prune.export.export_report import ExportReport
from tf_spline_prune.export.unmasking import unmasked
from tf_spline_prune.files import PathLike, atomic_folder
from tf_spline_prune.litert import Servable

_SIGNATURE = "serving_default"


def export_saved_model(
    model: Any, folder: PathLike, version: int | None = None
) -> ExportReport:
    """Write a model as `folder/<version>/saved_model.pb`, for TensorFlow Serving.

    The signature `serving_default` takes and gives named tensors with a batch
    axis. The inputs bear the names of the model's inputs, the outputs those of
    its last layers (or the keys, where these are dictionaries; `inputs` and
    `outputs` for a subclassed model). Neither Keras nor custom objects are
    needed to load it.

    The version is written under a temporary name, which TensorFlow Serving
    overlooks, loaded again and compared with the model in inference mode on
    random inputs; only then does it take its place. A model in another
    precision, mixed ones included, is rebuilt in float32 and compared with the
    rebuilt one. Masks are stripped.

    Args:
        model: A built model of either flavour.
        folder: The folder of all versions of the model; made if missing.
        version: A version that does not exist yet, at least 0; `None` takes the
            number after the highest one there, or 1.

    Returns:
        The version folder, its sizes and the largest difference.

    Raises:
        ValueError: If `version` is not a number from 0 on.
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
    report = tsp.export_saved_model(small, "served/fashion")
    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    serve(image=x)["scores"]
    ```

    Source: "SavedModel" and "Serving a TensorFlow model", TensorFlow
    documentation.
    """
    target = _version_folder(folder, version)
    servable = Servable(unmasked(model))
    with atomic_folder(target) as temporary:
        try:
            _write(servable, temporary)
            difference = compare(servable, lambda x: _answer(temporary, x))
        except (OSError, ExportError):
            raise
        except Exception as error:  # TensorFlow raises what it likes
            raise ExportError(
                "TensorFlow could not write the model or load it again, and nothing "
                "was left behind. Look for space on the disk, or for the layer that "
                f"it names. Received: model {servable.model.name!r}, which raised "
                f"{type(error).__name__}: {error}"
            ) from error
    return ExportReport.of(target, difference)


def _version_folder(folder: PathLike, version: int | None) -> pathlib.Path:
    parent = pathlib.Path(folder).expanduser().absolute()
    entries = parent.iterdir() if parent.is_dir() else ()
    taken = {int(entry.name) for entry in entries if entry.name.isdecimal()}
    if version is None:
        version = max(taken, default=0) + 1
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ValueError(
            "TensorFlow Serving knows a version by its number. Expected: an integer "
            f"from 0 on, or None for the next free one. Received: {version!r}"
        )
    if version in taken:
        raise FileExistsError(
            "This version exists already, and a server may be using it. Leave "
            "`version` out to get the next free one, or remove the folder. "
            f"Received: version {version} in {str(folder)!r}"
        )
    return parent / str(version)


def _write(servable: Servable, folder: pathlib.Path) -> None:
    import tensorflow as tf

    concrete, module = servable.concrete_function()
    tf.saved_model.save(module, str(folder), signatures={_SIGNATURE: concrete})


def _answer(folder: pathlib.Path, inputs: Arrays) -> Arrays:
    import tensorflow as tf

    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(folder))
        tensors = {name: tf.convert_to_tensor(x) for name, x in inputs.items()}
        outputs = loaded.signatures[_SIGNATURE](**tensors)
        return {name: output.numpy() for name, output in outputs.items()}
