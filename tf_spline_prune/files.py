"""Files and folders that appear whole or not at all.

An output is written under a temporary name beside its destination, on the same
file system, and moved into place in one step. When anything fails on the way,
the temporary name is removed and the destination is as it was.
"""

import gzip
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PathLike = str | os.PathLike[str]


def check_folder(path: PathLike, argument: str) -> PathLike:
    """Refuse a folder without a name, which would be the current one unasked.

    Args:
        path: The folder.
        argument: The argument that names it, for the message.

    Returns:
        The folder.

    Raises:
        ValueError: If it is an empty text.
    """
    if not os.fspath(path):
        raise ValueError(
            f"`{argument}` must name a folder; '.' is the current one. Received: "
            f"{argument}={path!r}"
        )
    return path


def check_destination(path: PathLike) -> pathlib.Path:
    """Make sure that an output can be written, before the work on it begins.

    Args:
        path: Destination file or folder. Missing parent folders are made.

    Returns:
        The absolute path.

    Raises:
        OSError: If the folder around it cannot be made or written to.
    """
    target = pathlib.Path(path).expanduser().absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The folder of the output cannot be made: {error}. Name a folder that "
            f"you may write to. Received: {str(path)!r}"
        ) from error
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            "The folder of the output cannot be written to. Name a folder that you "
            f"may write to. Received: {str(path)!r}"
        )
    return target


def with_ending(path: PathLike, ending: str) -> pathlib.Path:
    """Make sure that a file bears the ending by which its readers know it.

    Args:
        path: The file.
        ending: Such as `".tflite"`.

    Returns:
        The absolute path.

    Raises:
        ValueError: If it ends otherwise.
    """
    target = pathlib.Path(path).expanduser().absolute()
    if target.suffix != ending:
        raise ValueError(
            f"The file must end in `{ending}`; that is how its readers know it. Name "
            f"it {target.with_suffix(ending).name!r}, for instance. Received: "
            f"{str(path)!r}"
        )
    return target


@contextmanager
def atomic_file(path: PathLike) -> Iterator[pathlib.Path]:
    """Give a temporary path to write to; move it to `path` when all went well.

    The temporary name ends as `path` does, because Keras chooses its format by
    the ending. An existing file is replaced in one step.

    Args:
        path: Destination file. Missing parent folders are made.

    Yields:
        The temporary path.

    Raises:
        OSError: If the folder cannot be made or written to.
    """
    with _destination(path) as target:
        parent = target.parent
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=parent) as folder:
            temporary = pathlib.Path(folder) / target.name
            yield temporary
            os.replace(temporary, target)


@contextmanager
def atomic_folder(path: PathLike) -> Iterator[pathlib.Path]:
    """Give a temporary folder to fill; move it to `path` when all went well.

    Args:
        path: Destination folder, which must not exist or be empty.

    Yields:
        The temporary folder.

    Raises:
        FileExistsError: If `path` exists and is not an empty folder.
        OSError: If the parent folder cannot be made or written to.
    """
    with _destination(path) as target:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(
                "The output folder already holds something, and two runs do not mix. "
                f"Name a new folder or empty this one. Received: {str(path)!r}"
            )
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=".partial-", dir=target.parent)
        )
        try:
            # mkdtemp makes a private folder; the result should be as readable as
            # any folder the user makes.
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def _destination(path: PathLike) -> Iterator[pathlib.Path]:
    """Make the folders around an output, and take them away again if it fails."""
    wanted = pathlib.Path(path).expanduser().absolute()
    missing = [folder for folder in wanted.parents if not folder.exists()]
    target = check_destination(path)
    try:
        yield target
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # someone else has put something there
                folder.rmdir()
        raise


def sizes_of(path: PathLike) -> tuple[int, int]:
    """Measure a file, or all files of a folder.

    Args:
        path: The file or folder.

    Returns:
        The bytes, and the bytes with each file compressed by gzip at level 9, which
        is about what a download costs.
    """
    place = pathlib.Path(path).expanduser()
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    contents = [file.read_bytes() for file in files if file.is_file()]
    packed = [len(gzip.compress(content, 9, mtime=0)) for content in contents]
    return sum(map(len, contents)), sum(packed)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
