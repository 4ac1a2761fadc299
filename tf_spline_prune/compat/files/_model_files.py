"""What stands in the file or folder of a model, read without making anything of it.

Every part that Keras reads a description from is parsed as Keras parses it, into
plain dicts, lists and strings. What cannot be read whole is an error.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tf_spline_prune._files import PathLike
from tf_spline_prune.compat._flavour import Flavour
from tf_spline_prune.compat.files._pure_operations import impure_operations
from tf_spline_prune.errors import ModelError

Format = Literal["keras", "h5", "keras_folder", "saved_model", "tflite"]

_FORMATS: dict[str, Format] = {
    ".keras": "keras",
    ".h5": "h5",
    ".hdf5": "h5",
    ".tflite": "tflite",
}
_KERAS_PART = "keras_metadata.pb"


def model_format(path: PathLike) -> Format:
    """Return what kind of model a path holds.

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


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a saved model says of itself.

    Attributes:
        flavour: Which Keras wrote it.
        configs: The descriptions of models, layers and training, parsed.
        revivable: Whether layers of classes that are not known are made of the
            graph that lies beside their description.
        operations: Those of that graph that may do more than compute.
        links: Places in other files that its weights point to.
    """

    flavour: Flavour
    configs: tuple[Any, ...]
    revivable: bool = False
    operations: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


@contextlib.contextmanager
def held(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """Copy a model to where nobody else writes, for what is checked to be what is read.

    Args:
        place: The file or folder.

    Yields:
        The copy.
    """
    with tempfile.TemporaryDirectory(prefix="tf_spline_prune-") as folder:
        copy = pathlib.Path(folder, f"model{place.suffix}")
        if place.is_dir():
            _check_parts(place)
            shutil.copytree(place, copy)
        else:
            shutil.copyfile(place, copy)
        yield copy


def _check_parts(folder: pathlib.Path) -> None:
    """Raise `ModelError` unless a folder holds folders and files, and no more.

    A link to another folder may lead to the whole disk, a device never ends. Links
    to files are taken: download caches are made of them.
    """
    for around, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = pathlib.Path(around, name)
            if not (entry.is_file() or (entry.is_dir() and not entry.is_symlink())):
                raise ModelError(
                    "A folder of a model holds files and folders, and no links to "
                    "other folders, devices or pipes. Expected: the folder as it was "
                    f"saved. Received: {str(folder)!r} with {str(entry)!r}"
                )


def read_model_file(place: pathlib.Path, form: Format, path: PathLike) -> ModelFile:
    """Read what a saved model says of itself.

    Args:
        place: Where it lies.
        form: Its format, of a Keras model.
        path: What errors call it.

    Returns:
        What it says.

    Raises:
        ModelError: If it is broken, or holds weights only.
        OSError: If it cannot be read.
    """
    try:
        file = _READERS[form](place)
        if not nested_within(file.configs, _DEEPEST):
            raise ValueError("nested more deeply than any model")
        return file
    except ModelError as error:
        raise ModelError(f"{error} Received: {str(path)!r}") from error.__cause__
    except _BROKEN as error:
        raise ModelError(
            f"The file is broken, or {_EXPECTED[form]}. Save or copy it again. "
            f"Received: {str(path)!r} ({type(error).__name__}: {error})"
        ) from error


def nested_within(value: Any, levels: int) -> bool:
    """Return whether lists and dicts are nested no more deeply than so.

    Args:
        value: Plain values, lists and dicts.
        levels: How many levels there may be.

    Returns:
        Whether it is so.
    """
    level = [value]
    for _ in range(levels):
        holders = [item for item in level if isinstance(item, (Mapping, list, tuple))]
        level = [
            item
            for holder in holders
            for item in (holder.values() if isinstance(holder, Mapping) else holder)
        ]
    return not level


_DEEPEST = 200
# What parsers raise for what they cannot parse.
_BROKEN = (
    *(zipfile.BadZipFile, LookupError, ValueError, TypeError, RuntimeError),
    *(EOFError, OSError),
)
_EXPECTED = {
    "keras": "no model: a .keras file is a zip archive with metadata.json, "
    "config.json and weights, each once",
    "h5": "no HDF5 file with the description of a model",
    "keras_folder": "no model: a SavedModel of tf_keras has a saved_model.pb and a "
    f"{_KERAS_PART}",
}


def _read_zip(place: pathlib.Path) -> ModelFile:
    with zipfile.ZipFile(place) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError("a part is there twice")
        flavour = _flavour(json.loads(archive.read("metadata.json"))["keras_version"])
        config = json.loads(archive.read("config.json"))
        links: list[str] = []
        for name in names:
            if name.endswith(".h5"):
                links += _links(io.BytesIO(archive.read(name)))
    return ModelFile(flavour, (config,), links=tuple(links))


def _read_h5(place: pathlib.Path) -> ModelFile:
    import h5py

    with h5py.File(place) as file:
        version = file.attrs.get("keras_version")
        found = [file.attrs.get(n) for n in ("model_config", "training_config")]
    if version is None or found[0] is None:
        raise ModelError(
            "The file holds weights only, and no architecture. Build the model, load "
            "them with `model.load_weights`, and save the whole with "
            "`model.save('model.keras')`."
        )
    configs = tuple(json.loads(_text(part)) for part in found if part is not None)
    return ModelFile(_flavour(_text(version)), configs, links=tuple(_links(place)))


def _read_folder(place: pathlib.Path) -> ModelFile:
    # Which of several graphs is read is up to the reader.
    for other in ("saved_model.cpb", "saved_model.pbtxt"):
        if (place / other).exists():
            raise ValueError(f"beside saved_model.pb there is another graph, {other}")
    home = "tf_keras.protobuf.saved_metadata_pb2"
    metadata = importlib.import_module(home).SavedMetadata()
    try:
        metadata.ParseFromString((place / _KERAS_PART).read_bytes())
        operations = impure_operations(place)
    except Exception as error:  # protobuf has errors of its own
        raise ValueError(str(error)) from error
    if not metadata.nodes:  # tf_keras would make no model of it
        raise ValueError(f"{_KERAS_PART} describes nothing")
    configs = tuple(json.loads(node.metadata) for node in metadata.nodes)
    return ModelFile("tf_keras", configs, revivable=True, operations=tuple(operations))


_READERS = {"keras": _read_zip, "h5": _read_h5, "keras_folder": _read_folder}


def _links(file: Any) -> list[str]:
    """Collect the places in other files that an HDF5 file points to."""
    import h5py

    found: list[str] = []

    def look(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(str(link.filename))

    def look_in(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found.extend(str(entry[0]) for entry in thing.external or ())
            if thing.is_virtual:
                found.extend(s.file_name for s in thing.virtual_sources())

    with h5py.File(file) as opened:
        opened.visititems_links(look)
        opened.visititems(look_in)
    return [name for name in found if name != "."]


def _text(value: Any) -> str:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value.decode() if isinstance(value, bytes) else value


def _flavour(version: Any) -> Flavour:
    major = str(version).partition(".")[0]
    if major not in ("2", "3"):
        raise ModelError(
            "The model was saved by a Keras that is not known here. Expected: version "
            f"2 (tf_keras) or 3. Received: {version!r}."
        )
    return "keras" if major == "3" else "tf_keras"
