"""Files that a `.tflite` file carries with it.

A zip archive behind the model, as the LiteRT documentation has it: the runtime reads
from the front and any zip tool from the back, so `unzip -p model.tflite labels.txt`
shows the labels.
"""

import pathlib
import zipfile
from collections.abc import Mapping

from tf_spline_prune._checks import MapOf, Path, Text, checked
from tf_spline_prune.files import PathLike


@checked(
    path=Path(),
    texts=MapOf(Text("a name"), Text(), "a dictionary from names of files to texts"),
)
def attach(path: PathLike, texts: Mapping[str, str]) -> None:
    """Put texts behind a model.

    Args:
        path: A `.tflite` file without attachments.
        texts: The texts by file name.

    Raises:
        OSError: If the file cannot be read or written.

    Example:

    ```python
    tsp.litert.attach("digits.tflite", {"notes.txt": "the second ticket"})
    ```

    Source: "Adding metadata to models", LiteRT documentation.
    """
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name)  # of a fixed date: equal models, equal files
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)


@checked(path=Path())
def read_attachments(path: PathLike) -> dict[str, str]:
    """Read the texts behind a model.

    Args:
        path: A `.tflite` file.

    Returns:
        The texts by file name; those of `export_litert` are `metadata.json`, and
        `labels.txt` if there were labels. Nothing, if nothing was attached.

    Raises:
        OSError: If the file cannot be read.

    Example:

    ```python
    json.loads(tsp.litert.read_attachments("digits.tflite")["metadata.json"])
    ```
    """
    path = pathlib.Path(path).expanduser()
    if not zipfile.is_zipfile(path):
        with open(path, "rb"):  # is there at all
            return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}
