"""Fashion-MNIST from the IDX files of Debian's package dataset-fashion-mnist."""

import dataclasses
import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from tf_spline_prune.errors import DatasetError

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
_PREFIXES = {"train": "train", "test": "t10k"}


def find_idx_files(folder: pathlib.Path) -> "FashionMnistFiles | None":
    """Look for the four IDX files, each packed with gzip or not.

    Args:
        folder: Folder to look into.

    Returns:
        The files, or None if any of the four is missing.
    """
    images: dict[str, pathlib.Path] = {}
    labels: dict[str, pathlib.Path] = {}
    for split, prefix in _PREFIXES.items():
        for found, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            plain = folder / f"{prefix}-{kind}-ubyte"
            packed = plain.with_name(plain.name + ".gz")
            file = next((path for path in (plain, packed) if path.is_file()), None)
            if file is None:
                return None
            found[split] = file
    return FashionMnistFiles(images, labels)


@dataclasses.dataclass(frozen=True)
class FashionMnistFiles:
    """Files of 28 x 28 grey images and of their labels, by split.

    Args:
        images: File of images of every split.
        labels: File of labels of every split.
    """

    images: dict[str, pathlib.Path]
    labels: dict[str, pathlib.Path]

    input_shape = (28, 28, 1)
    num_classes = 10

    def read_labels(self, split: str) -> np.ndarray:
        """Read the labels of a split.

        Args:
            split: `"train"` or `"test"`.

        Returns:
            int64 array of shape (examples,), values 0 to 9.

        Raises:
            DatasetError: If the file is broken or holds other labels.
        """
        labels = read_idx(self.labels[split], num_axes=1)
        if labels.size and labels.max() >= self.num_classes:
            raise DatasetError(
                f"A label of Fashion-MNIST is {labels.max()}, and there are "
                f"{self.num_classes} classes. Install the files again. "
                f"Received: {str(self.labels[split])!r}"
            )
        return labels.astype(np.int64)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the images and labels of a split.

        Args:
            split: `"train"` or `"test"`.

        Returns:
            uint8 images of shape (examples, 28, 28, 1), and int64 labels of shape
            (examples,).

        Raises:
            DatasetError: If a file is broken or the two do not belong together.
        """
        images = read_idx(self.images[split], num_axes=3)[..., np.newaxis]
        labels = self.read_labels(split)
        expected = (len(labels), *self.input_shape)
        if images.shape != expected:
            raise DatasetError(
                f"The images of Fashion-MNIST have shape {images.shape}, and their "
                f"labels ask for {expected}. Install the files again. "
                f"Received: {str(self.images[split])!r}"
            )
        return images, labels


_UNSIGNED_BYTE = 0x08


def read_idx(path: pathlib.Path, num_axes: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, packed with gzip or not.

    Args:
        path: File to read. A name that ends in `.gz` is unpacked.
        num_axes: Number of axes that the array must have: 1 for labels, 3 for images.

    Returns:
        A read-only uint8 array of the shape that the file states.

    Raises:
        DatasetError: If the file cannot be read, is no IDX file of unsigned bytes, has
            another number of axes, or is shorter or longer than its header says.

    Example:
        >>> read_idx(pathlib.Path("t10k-labels-idx1-ubyte.gz"), num_axes=1).shape
        (10000,)
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, f"it cannot be read ({error})") from error
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_axes])
    if content[:4] != magic:
        raise _broken(path, f"it starts with {content[:4]!r} instead of {magic!r}")
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise _broken(path, f"its header has {len(content)} of {start} bytes")
    shape = struct.unpack_from(f">{num_axes}I", content, 4)
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise _broken(
            path,
            f"its header says shape {shape}, which makes {expected} bytes, and it has "
            f"{len(content)}",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _broken(path: pathlib.Path, reason: str) -> DatasetError:
    return DatasetError(
        f"An IDX file of the data set is broken: {reason}. Install or copy the file "
        f"again. Received: {str(path)!r}"
    )
