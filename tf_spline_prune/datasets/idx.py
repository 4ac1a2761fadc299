"""A strict reader of IDX files, the format of MNIST and Fashion-MNIST.

An IDX file is two zero bytes, one byte for the type of the numbers, one byte for the
number of axes, the length of every axis as a big-endian 32-bit integer, and then the
numbers, nothing else. See http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from tf_spline_prune.errors import DatasetError

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
