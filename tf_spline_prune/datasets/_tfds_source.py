"""Getting a prepared TFDS builder, with errors that say what to do."""

import difflib
import os
import pathlib
from typing import Any

from tf_spline_prune.errors import DatasetError

_OUR_BUILDERS = ("optical_digits", "x_quadrants")
_CONNECT_SECONDS = 10.0


def import_tfds() -> Any:
    """Import tensorflow_datasets and register the builders of this package.

    Returns:
        The module tensorflow_datasets.

    Raises:
        DatasetError: If it is not installed.
    """
    try:
        import tensorflow_datasets as tfds

        from tf_spline_prune.datasets import _optical_digits, _x_quadrants  # noqa: F401
    except ImportError as error:
        raise _not_installed(error) from error
    return tfds


def prepared_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Find a builder by name and make sure that its data set lies ready.

    Args:
        name: TFDS name, which may hold a configuration and a version.
        data_dir: Folder in which TFDS keeps its data sets; None is TFDS's own.

    Returns:
        A `tfds.core.DatasetBuilder` whose data can be read.

    Raises:
        ValueError: If no data set has this name, configuration or version.
        DatasetError: If the data set cannot be downloaded and prepared.
    """
    tfds = import_tfds()
    builder = _find_builder(tfds, name, data_dir)
    if pathlib.Path(builder.data_dir).exists():
        return builder
    try:
        _check_network(builder)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # Builders run any code, so they raise anything.
        raise DatasetError(
            f"The data set could not be downloaded and prepared in "
            f"{str(builder.data_dir_root)!r}: {error}. These need no network: "
            "'optical_digits', 'x_quadrants', and 'fashion_mnist' with Debian's "
            "package dataset-fashion-mnist. For another one, prepare it with TFDS on a "
            "machine with a network, copy the folder, and pass it as `data_dir`. "
            f"Received: name={name!r}"
        ) from error
    return builder


def _find_builder(tfds: Any, name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise _not_installed(error) from error
    except tfds.core.DatasetNotFoundError as error:
        known = {*tfds.list_builders(with_community_datasets=False), *_OUR_BUILDERS}
        near = difflib.get_close_matches(name, sorted(known), n=3) or _OUR_BUILDERS
        raise ValueError(
            "TFDS knows no data set of this name. The nearest names are "
            f"{', '.join(map(repr, near))}. Received: name={name!r}"
        ) from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(
            "TFDS has no such configuration or version of the data set. Give a name "
            "such as 'mnist', 'mnist_corrupted/identity' or 'mnist:3.*.*'. "
            f"TFDS says: {error}. Received: name={name!r}"
        ) from error


def _check_network(builder: Any) -> None:
    """Ask the first server once, because TFDS tries for minutes when it is offline."""
    url = next((url for url in builder.url_infos or () if url.startswith("http")), None)
    if url is None or _has_downloads(builder):
        return
    import requests

    try:
        requests.head(url, timeout=_CONNECT_SECONDS).close()
    except requests.ConnectionError as error:
        raise DatasetError(f"no connection to {url}") from error
    except requests.RequestException:
        pass  # The server is there; what it has to say, TFDS will hear.


def _has_downloads(builder: Any) -> bool:
    # TFDS puts a file *.INFO beside every finished download, in a folder a data set
    # or, in earlier releases, in one for all; files got by hand lie in "manual".
    downloads = pathlib.Path(builder.data_dir_root) / "downloads"
    return (
        (downloads / "manual").exists()
        or any(downloads.glob("*.INFO"))
        or any((downloads / builder.name).rglob("*.INFO"))
    )


def _not_installed(error: ImportError) -> DatasetError:
    return DatasetError(
        f"Reading data sets needs a module that is not installed: {error}. Run: "
        'pip install "tf-spline-prune[datasets]", and install that module if it is '
        "still missing."
    )
