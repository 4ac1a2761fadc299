"""`write_serving_config`: what TensorFlow Serving is started with."""

import pathlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from tf_spline_prune._checks import (
    COUNT,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Path,
    Text,
    checked,
)
from tf_spline_prune._files import PathLike, atomic_file


@checked(
    folder=Path(),
    models=MapOf(
        Text("the name of a model"),
        Path(),
        "a dictionary from names of models to folders",
    ),
    versions=[
        MapOf(
            Text("the name of a model"),
            ListOf(Integer(0, 2**63 - 1), "version numbers"),
            "a dictionary from names of models to version numbers",
            0,
        ),
        None,
    ],
    max_batch_size=COUNT,
    batch_timeout_micros=Integer(0, 2**31 - 1),
    max_enqueued_batches=[COUNT, None],
    num_batch_threads=[COUNT, None],
    overwrite=Flag(),
)
def write_serving_config(
    folder: PathLike,
    models: Mapping[str, PathLike],
    *,
    versions: Mapping[str, Sequence[int]] | None = None,
    max_batch_size: int = 32,
    batch_timeout_micros: int = 1000,
    max_enqueued_batches: int | None = None,
    num_batch_threads: int | None = None,
    overwrite: bool = False,
) -> tuple[pathlib.Path, pathlib.Path]:
    """Write `models.config` and `batching.config` for `tensorflow_model_server`.

    The server collects requests until a batch is full or its first request has
    waited long enough, and runs them at once. Both files appear, or neither.

    Args:
        folder: Where to write; made if missing.
        models: For each model's name, under which clients ask for it, the folder
            of its versions as the server sees it: in Docker `/models/fashion`.
        versions: For the models named, the only versions to be served; others serve the
            newest one. Defaults to `None`.
        max_batch_size: Number of examples in a full batch. Defaults to `32`.
        batch_timeout_micros: How long a request waits for others at most, in
            microseconds. Defaults to `1000`.
        max_enqueued_batches: Number of batches that may wait before requests are
            refused. Defaults to `None`, which leaves it to the server.
        num_batch_threads: Number of batches run at a time. Defaults to `None`, which
            leaves it to the server.
        overwrite: Whether earlier files are replaced, as for a rollback. Defaults to
            `False`.

    Returns:
        The paths of `models.config` and of `batching.config`.

    Raises:
        ValueError: If there are no models, a name cannot stand in an address, a
            folder is not absolute, or a number is out of range.
        FileExistsError: If a file exists and `overwrite` is false.
        OSError: If the files cannot be written.

    Example:

    ```python
    tsp.write_serving_config("config", {"fashion": "/models/fashion"})
    # tensorflow_model_server --rest_api_port=8501 --enable_batching
    #   --model_config_file=config/models.config
    #   --batching_parameters_file=config/batching.config
    ```

    Source: "TensorFlow Serving Configuration" and "TensorFlow Serving Batching
    Guide".
    """
    batching = {
        "max_batch_size": max_batch_size,
        "batch_timeout_micros": batch_timeout_micros,
        "max_enqueued_batches": max_enqueued_batches,
        "num_batch_threads": num_batch_threads,
    }
    parent = pathlib.Path(folder).expanduser().absolute()
    texts = {
        parent / "models.config": _models(models, versions or {}),
        parent / "batching.config": _batching(batching),
    }
    there = [str(path) for path in texts if path.exists()]
    if there and not overwrite:
        raise FileExistsError(
            "The configuration exists already, and a server may be using it. Name "
            f"another folder or give `overwrite=True`. Received: {there}"
        )
    with ExitStack() as stack:
        for path, text in texts.items():
            temporary = stack.enter_context(atomic_file(path))
            temporary.write_text(text, encoding="utf-8")
    one, two = texts
    return one, two


def _models(
    models: Mapping[str, PathLike], versions: Mapping[str, Sequence[int]]
) -> str:
    if not models or not set(versions) <= set(models):
        raise ValueError(
            "Name at least one model, and give `versions` only to models that are "
            f"named. Received: models {list(models)}, versions {dict(versions)}."
        )
    lines = ["model_config_list {"]
    for name, base in models.items():
        path = str(base)
        if not name or set(name) & set("/:") or not _is_absolute(path):
            raise ValueError(
                "A model needs a name without `/` and `:`, which end it in an "
                "address, and the absolute folder of its versions as the server sees "
                f"it, such as '/models/fashion'. Received: {name!r}: {path!r}"
            )
        lines += [
            "  config {",
            f"    name: {_quoted(name)}",
            f"    base_path: {_quoted(path)}",
            '    model_platform: "tensorflow"',
        ]
        if name in versions:
            numbers = "".join(f" versions: {v}" for v in versions[name])
            lines.append(f"    model_version_policy {{ specific {{{numbers} }} }}")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _batching(values: Mapping[str, int | None]) -> str:
    lines = []
    for name, value in values.items():
        if value is None:
            continue
        lines.append(f"{name} {{ value: {value} }}\n")
    return "".join(lines)


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _quoted(text: str) -> str:
    """Quote a string as protocol buffers' text format does, in UTF-8."""
    plain = set(range(32, 127)) - set(b'"\\')
    escaped = (chr(b) if b in plain else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'
