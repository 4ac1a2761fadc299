"""Files that a `.tflite` file carries with it.

A zip archive behind the model, as the LiteRT documentation has it: the runtime reads
from the front and any zip tool from the back, so `unzip -p model.tflite labels.txt`
shows the labels.
"""

import io
import zipfile
from collections.abc import Mapping

from tf_spline_prune._checks import MapOf, Path, Text, checked
from tf_spline_prune._files import PathLike, atomic_file, read_file


@checked(
    path=Path(),
    texts=MapOf(Text("a name"), Text(), "a dictionary from names of files to texts"),
)
def attach(path: PathLike, texts: Mapping[str, str]) -> None:
    """Append texts to a LiteRT model.

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
    content = io.BytesIO(read_file(path, "a .tflite file"))
    with zipfile.ZipFile(
        content, "a", zipfile.ZIP_DEFLATED, compresslevel=9
    ) as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name)  # of a fixed date: equal models, equal files
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.getvalue())


@checked(path=Path())
def read_attachments(path: PathLike) -> dict[str, str]:
    """Return the texts that are appended to a LiteRT model.

    Args:
        path: A `.tflite` file.

    Returns:
        The texts by file name; those of `export_litert` are `metadata.json`, and
        `labels.txt` if there were labels. Nothing, if nothing was attached.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If what is attached is broken.

    Example:

    ```python
    json.loads(tsp.litert.read_attachments("digits.tflite")["metadata.json"])
    ```
    """
    content = io.BytesIO(read_file(path, "a .tflite file"))
    if not zipfile.is_zipfile(content):
        return {}
    try:
        with zipfile.ZipFile(content) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}
    except Exception as error:  # a broken archive raises almost anything
        raise ValueError(
            "The texts behind the model are broken. Expected: a ZIP archive of texts, "
            "as `attach` writes it. Export the model again. Received: "
            f"{str(path)!r}, for which it raised {type(error).__name__}: {error}"
        ) from error
