"""`SnapshotHistory`: the snapshots of all epochs, on disk."""

import pathlib
import tempfile
import weakref
from collections.abc import Callable
from typing import IO

import numpy as np


class SnapshotHistory:
    """Appends snapshots of one size to a file and reads them back mapped.

    Args:
        path: The file, for runs that resume; `None` takes a temporary file that
            goes when the history does.

    Attributes:
        epochs: The epochs of the snapshots, in order. Shorten the list to forget
            the newest ones; the next snapshot overwrites them.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.epochs: list[int] = []
        self._path = path
        self._file: IO[bytes] | None = None

    def append(self, epoch: int, snapshot: np.ndarray) -> None:
        """Add the snapshot of an epoch: a flat uint8 array."""
        if self._file is None:
            self._file = self._open()
            weakref.finalize(self, self._file.close)
        self._file.seek(len(self.epochs) * snapshot.nbytes)
        self._file.write(snapshot.tobytes())
        self._file.truncate()
        self._file.flush()
        self.epochs.append(epoch)

    def distances(
        self, distance: Callable[[np.ndarray, np.ndarray], float]
    ) -> np.ndarray:
        """Measure the distances between all snapshots.

        Args:
            distance: Takes two snapshots.

        Returns:
            Array of shape `(epochs, epochs)`, symmetric, zero on the diagonal.

        Raises:
            ValueError: If there are no snapshots yet.
        """
        if self._file is None or not self.epochs:
            raise ValueError(
                "No epoch has been seen yet. Train with this callback; of several "
                "workers the chief alone keeps the history."
            )
        count = len(self.epochs)
        stored = np.memmap(self._file, np.uint8, "r").reshape(count, -1)
        matrix = np.zeros((count, count))
        for i in range(count):
            for j in range(i):
                matrix[i, j] = matrix[j, i] = distance(stored[i], stored[j])
        return matrix

    def _open(self) -> IO[bytes]:
        if self._path is None:
            return tempfile.TemporaryFile()
        resumed = self.epochs and self._path.exists()
        return self._path.open("r+b" if resumed else "w+b")
