"""`metadata_of`: what a `.tflite` file says of itself."""

import io
import zipfile


def metadata_of(content: bytes) -> dict[str, str]:
    """Read the metadata of a `.tflite` file, and the files packed with it.

    Args:
        content: The bytes of the file.

    Returns:
        By name the text of each entry, or its number of bytes where it is no text.

    Example:

    ```python
    metadata_of(tsp.litert.convert(model))     # {"min_runtime_version": "1.5.0", ...}
    ```
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    found = {}
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        buffer = model.Buffers(entry.Buffer())
        data = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
        found[entry.Name().decode()] = _text(data)
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):  # files are packed behind the model
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                found[name] = _text(archive.read(name))
    return found


def _text(data: bytes) -> str:
    try:
        text = data.decode().strip("\0 \n")
    except UnicodeDecodeError:
        text = ""
    readable = text and all(c.isprintable() or c.isspace() for c in text)
    return text if readable else f"{len(data):,} bytes"
