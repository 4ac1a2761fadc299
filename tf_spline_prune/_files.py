"""Files and folders that appear whole or not at all.

An output is written into a folder `.partial-...` beside its destination, on the same
file system, and moved into place in one step. When anything fails on the way,
that folder is removed and the destination is as it was.

A process that is killed leaves its folder behind. It holds a lock in there, which
the kernel takes away with the process: so the next writer can tell what is left over
from what is being written, and removes it.
"""

import errno
import gzip
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

try:
    import fcntl
except ImportError:  # no locks of this kind: what is left over stays
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

_PREFIX = ".partial-"
_LOCK = "locked_by_tf_spline_prune"
_OLD = 3600.0  # seconds
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_destination(path: PathLike) -> pathlib.Path:
    """Make sure that an output can be written, before the work on it begins.

    Args:
        path: Destination file or folder. Missing parent folders are made.

    Returns:
        The absolute path; of a symbolic link, the path that it leads to.

    Raises:
        OSError: If the folder around it cannot be made or written to, or it is a
            link that leads to itself.
    """
    target = _followed(path)
    try:
        _real(target.parent).mkdir(parents=True, exist_ok=True)
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


def read_file(path: PathLike, expected: str) -> bytes:
    """Read a file whole.

    Args:
        path: The file.
        expected: What it should be, such as `"the file of a plan"`.

    Returns:
        Its content.

    Raises:
        OSError: Of the kind that the system raises, if it is not there, is a folder,
            or may not be read.
    """
    try:
        return pathlib.Path(path).expanduser().read_bytes()
    except OSError as error:
        raise type(error)(
            f"The file cannot be read: {error.strerror}. Expected: {expected}. "
            f"Received: {str(path)!r}"
        ) from error


def with_ending(path: PathLike, ending: str) -> pathlib.Path:
    """Make sure that a file bears the ending by which its readers know it.

    Args:
        path: The file.
        ending: Such as `".tflite"`.

    Returns:
        The absolute path.

    Raises:
        ValueError: If it ends otherwise.
        IsADirectoryError: If it is a folder.
    """
    target = pathlib.Path(path).expanduser().absolute()
    if target.suffix != ending:
        raise ValueError(
            f"The file must end in `{ending}`, by which programs recognise it. Name it "
            f"{target.with_suffix(ending).name!r}, for instance. Received: "
            f"{str(path)!r}"
        )
    _check_no_folder(target, path)
    return target


def _check_no_folder(target: pathlib.Path, path: PathLike) -> None:
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR,
            "The output is to be a file, and there is a folder of that name. Name a "
            f"file in it, or another one. Received: {str(path)!r}",
        )


@contextmanager
def atomic_file(path: PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path to write to; move it to `path` when all went well.

    The temporary name ends as `path` does, because Keras chooses its format by
    the ending. An existing file is replaced in one step; a symbolic link stays, and
    the file that it leads to is replaced.

    Args:
        path: Destination file. Missing parent folders are made.

    Yields:
        The temporary path.

    Raises:
        IsADirectoryError: If a folder is in its place.
        OSError: If the folder cannot be made or written to, or the disk is full.
    """
    _check_no_folder(_followed(path), path)
    with _destination(path) as target, _workplace(target.parent) as folder:
        temporary = folder / pathlib.Path(path).name
        yield temporary
        os.replace(temporary, target)


@dataclass
class NewFolder:
    """A folder that is being made.

    Attributes:
        temporary: Where to write.
        path: Where it will be. Final when `atomic_folder` has ended.
    """

    temporary: pathlib.Path
    path: pathlib.Path


@contextmanager
def atomic_folder(choose: Callable[[], PathLike]) -> Iterator[NewFolder]:
    """Yield a temporary folder to fill; move it to its place when all went well.

    Args:
        choose: Gives a path that does not exist, or raises. It is asked before the
            work begins and again after it, since others may write there too; all
            paths lie in the same folder.

    Yields:
        The temporary folder, and its place.

    Raises:
        OSError: If the parent folder cannot be made or written to, or the disk is
            full.
    """
    with _destination(choose()) as target, _workplace(target.parent) as folder:
        made = NewFolder(folder / "content", target)
        made.temporary.mkdir()
        yield made
        refused = None
        while True:
            made.path = check_destination(choose())
            try:
                made.temporary.rename(made.path)
                return
            except OSError as error:
                # Another writer was faster by a moment: choose again.
                if error.errno not in _TAKEN or made.path == refused:
                    raise
                refused = made.path


@contextmanager
def _destination(path: PathLike) -> Iterator[pathlib.Path]:
    """Make the folders around an output, and take them away again if it fails."""
    around = _real(_followed(path).parent)
    missing = [f for f in (around, *around.parents) if not f.exists()]
    target = check_destination(path)
    try:
        yield target
    except BaseException as error:
        for folder in missing:
            with suppress(OSError):  # someone else has put something there
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OSError(
                f"The output cannot be written: {error.strerror}. What was there is as "
                f"it was. Make room, or name another disk. Received: {str(path)!r}"
            ) from error
        raise


def _followed(path: PathLike) -> pathlib.Path:
    """Make a path absolute, and go where it leads if it is a symbolic link."""
    place = pathlib.Path(path).expanduser().absolute()
    try:
        place.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OSError(
                f"The path of the output is too long for the disk: {error.strerror}. "
                f"Choose a shorter one. Received: {str(path)!r}"
            ) from error
    if not place.is_symlink():
        return place
    end = _real(place)
    if end.is_symlink():
        raise OSError(
            errno.ELOOP,
            "The output is a symbolic link that leads back to itself, so nothing can "
            f"be written there. Remove the link. Received: {str(path)!r}",
        )
    return end


def _real(path: pathlib.Path) -> pathlib.Path:
    """Follow all links, also those that lead to what does not exist yet."""
    return pathlib.Path(os.path.realpath(path))


@contextmanager
def _workplace(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a folder for what is unfinished, locked as long as its process lives."""
    for leftover in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another user, or already gone
            _remove_leftover(leftover)
    try:
        workplace = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)
    except OSError as error:
        raise type(error)(
            f"Nothing can be written to the folder of the output: {error.strerror}. "
            f"Name a folder that you may write to. Received: {str(parent)!r}"
        ) from error
    with workplace as folder:
        lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    os.write(lock, _kernel())
            yield pathlib.Path(folder)
        finally:
            os.close(lock)


def _remove_leftover(folder: pathlib.Path) -> None:
    """Remove what a killed process has left; raise `OSError` if it is not that.

    The folder of a process that lives, of another machine, or of another program
    stays, and so does one that is less than an hour old.
    """
    young = time.time() - folder.lstat().st_mtime < _OLD
    if fcntl is None or young or folder.is_symlink():
        return
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        folder.rmdir()  # killed before it wrote anything; else it is not ours
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner, entries = os.read(lock, 100), list(folder.iterdir())
        # Killed before it wrote its name, it wrote nothing else.
        ours = owner == _kernel() or (not owner and len(entries) == 1)
        if ours and os.fstat(lock).st_nlink:
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != _LOCK:
                    entry.unlink()
            shutil.rmtree(folder)  # the lock last, for this may be killed, too
    finally:
        os.close(lock)


def _kernel() -> bytes:
    """Return an id of the running kernel, for no other one knows of its locks."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return platform.node().encode()[:100]


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
