"""Loading a saved model in the flavour that wrote it.

A file tells which Keras wrote it: its version stands in `metadata.json` of a
`.keras` file and in the attributes of an `.h5` file; a SavedModel that a Keras
model can be made of is one of tf_keras.
"""

import contextlib
import importlib
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tf_spline_prune.compat.flavour import Flavour
from tf_spline_prune.compat.tfmot import import_tfmot
from tf_spline_prune.errors import ModelError
from tf_spline_prune.files import PathLike

Format = Literal["keras", "h5", "keras_folder", "saved_model", "tflite"]

_FORMATS: dict[str, Format] = {
    ".keras": "keras",
    ".h5": "h5",
    ".hdf5": "h5",
    ".tflite": "tflite",
}
_KERAS_PART = "keras_metadata.pb"
# What either flavour says of a class in an .h5 file that it does not know.
_UNKNOWN = re.compile(r"Unknown [\w ]+: '?([\w>.]+)")


def model_format(path: PathLike) -> Format:
    """Tell what kind of model a path holds.

    Args:
        path: A `.keras`, `.h5` or `.tflite` file, or the folder of a SavedModel.

    Returns:
        `"keras"`, `"h5"`, `"keras_folder"` (a SavedModel of tf_keras, which a model
        can be made of), `"saved_model"` (the computation only), or `"tflite"`.

    Raises:
        FileNotFoundError: If nothing is there.
        ModelError: If it is no model.
    """
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(
            "There is no such file or folder. Expected: a model. Received: "
            f"{str(path)!r}"
        )
    if place.is_file() and place.suffix in _FORMATS:
        return _FORMATS[place.suffix]
    if (place / "saved_model.pb").is_file():
        return "keras_folder" if (place / _KERAS_PART).is_file() else "saved_model"
    advice = ""
    if place.is_dir():
        versions = [entry for entry in place.iterdir() if entry.name.isdecimal()]
        if versions:
            newest = max(versions, key=lambda entry: int(entry.name))
            advice = f" It holds versions; give one of them: {str(newest)!r}."
    raise ModelError(
        "This is no model. Expected: a file that ends in .keras, .h5 or .tflite, or "
        f"a folder with a saved_model.pb.{advice} Received: {str(path)!r}"
    )


def load_model(
    path: PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> Any:
    """Load a model in the flavour that it was saved in.

    Args:
        path: A `.keras` or `.h5` file, or the folder of a SavedModel of tf_keras.
        custom_objects: Classes and functions of one's own, by name; registered
            ones are known without. So are TFMOT's wrappers.
        safe_mode: Whether to refuse layers that carry Python code, which would be
            run.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If nothing is there.
        ModelError: If it is no model, holds weights only or the computation only,
            is broken, or needs a class that is not known or code that is refused.
        OSError: If it cannot be read.
    """
    form = model_format(path)
    place = pathlib.Path(path).expanduser()
    if form in ("saved_model", "tflite"):
        raise ModelError(
            "A Keras model is needed here, and this export holds the computation "
            "only. Give the .keras file that it was made from. Received: "
            f"{str(path)!r}"
        )
    flavour, config = _READERS[form](place)
    if safe_mode and flavour == "tf_keras" and '"function_type": "lambda"' in config:
        raise _unsafe(path)  # tf_keras itself asks in .keras files only
    # A folder's safety was looked at above; its loader has no such argument.
    kwargs = {} if form == "keras_folder" else {"safe_mode": safe_mode}
    loading = importlib.import_module(flavour).models.load_model
    with _tfmot_known(config):
        try:
            return loading(
                str(place), custom_objects=dict(custom_objects or {}), **kwargs
            )
        except Exception as error:  # Keras raises what it likes
            unknown = _unknown(config, flavour, custom_objects or {})
            raise _explained(error, path, flavour, unknown) from error


def _read_zip(place: pathlib.Path) -> tuple[Flavour, str]:
    try:
        with zipfile.ZipFile(place) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
            config = archive.read("config.json").decode()
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            "The file is broken, or no model: a .keras file is a zip archive with "
            "metadata.json, config.json and weights. Save or copy it again. Received: "
            f"{str(place)!r} ({type(error).__name__}: {error})"
        ) from error
    return _flavour(version, place), config


def _read_h5(place: pathlib.Path) -> tuple[Flavour, str]:
    import h5py

    try:
        with h5py.File(place) as file:
            version = file.attrs.get("keras_version")
            config = file.attrs.get("model_config")
    except OSError as error:
        raise ModelError(
            "The file is broken, or no HDF5 file. Save or copy it again. Received: "
            f"{str(place)!r} ({error})"
        ) from error
    if version is None or config is None:
        raise ModelError(
            "The file holds weights only, and no architecture. Build the model, load "
            "them with `model.load_weights`, and save the whole with "
            f"`model.save('model.keras')`. Received: {str(place)!r}"
        )
    return _flavour(_text(version), place), _text(config)


def _read_folder(place: pathlib.Path) -> tuple[Flavour, str]:
    return "tf_keras", (place / _KERAS_PART).read_bytes().decode("utf-8", "ignore")


_READERS = {"keras": _read_zip, "h5": _read_h5, "keras_folder": _read_folder}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _flavour(version: Any, place: pathlib.Path) -> Flavour:
    major = str(version).partition(".")[0]
    if major not in ("2", "3"):
        raise ModelError(
            "The model was saved by a Keras that is not known here. Expected: version "
            f"2 (tf_keras) or 3. Received: {version!r} in {str(place)!r}"
        )
    return "keras" if major == "3" else "tf_keras"


@contextlib.contextmanager
def _tfmot_known(config: str) -> Iterator[None]:
    """Make TFMOT's wrappers known where a model has some."""
    if "PruneLowMagnitude" not in config:
        yield
        return
    with import_tfmot().sparsity.keras.prune_scope():
        yield


def _unsafe(path: PathLike) -> ModelError:
    return ModelError(
        "A Lambda layer of the model carries Python code, which loading would run "
        "with all your rights. Only if you trust where the file comes from: "
        f"`safe_mode=False`, or --unsafe on the command line. Received: {str(path)!r}"
    )


def _unknown(config: str, flavour: Flavour, own: Mapping[str, Any]) -> str | None:
    """Find the first class of a `.keras` file that is not known here.

    The errors of Keras do not always name it.
    """
    find = importlib.import_module(flavour).saving.get_registered_object
    try:
        for name in _own_classes(json.loads(config)):
            if name not in own and find(name) is None:
                return name
    except ValueError:  # the metadata of a folder are no JSON
        pass
    return None


def _own_classes(entry: Any) -> Iterator[str]:
    """Yield the names of classes in a config that are not Keras' own."""
    if isinstance(entry, dict):
        root = str(entry.get("module")).partition(".")[0]
        name = entry.get("registered_name")
        if name and root not in ("keras", "tf_keras", "builtins"):
            yield name
        entry = list(entry.values())
    for item in entry if isinstance(entry, list) else ():
        yield from _own_classes(item)


def _explained(
    error: Exception, path: PathLike, flavour: Flavour, unknown: str | None
) -> Exception:
    """Say in our words what went wrong."""
    text = " ".join(str(error).split())
    if "safe_mode" in text or "unsafe_deserialization" in text:
        return _unsafe(path)
    found = _UNKNOWN.search(text)
    unknown = found[1] if found else unknown
    if unknown:
        return ModelError(
            f"The model needs {unknown!r}, which is not known here. Import the Python "
            "file that defines it, or pass `custom_objects`; on the command line: "
            f"--import FILE.py. Received: {str(path)!r}"
        )
    if len(text) > 400:
        text = f"{text[:200]} ... {text[-200:]}"
    return ModelError(
        f"`{flavour}` cannot load the model; perhaps another version wrote it, or the "
        f"file is broken. Received: {str(path)!r}, for which it raised "
        f"{type(error).__name__}: {text}"
    )
