"""`BirdState`: what an early-bird detector keeps for a run that resumes."""

import dataclasses
import hashlib
import io
import math
import pathlib
import re
import tempfile
import weakref
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from tf_spline_prune._files import atomic_file
from tf_spline_prune.compat import CurrentWeights, Workers, config_of, trace
from tf_spline_prune.errors import LearningRateDropWarning, warn

_TOLD_OTHERWISE = ("name", "function", "code")


@dataclasses.dataclass(frozen=True)
class BirdState:
    """The state of a detector after an epoch, and its file.

    Args:
        window: The snapshots held, by epoch: flat uint8 arrays of one size.
        rates: The learning rates at those epochs.
        steps: The numbers of optimizer steps done by then.
        records: By epoch, the distances of its snapshot to earlier ones.
        history: The epochs whose snapshots are in the history file.
        ticket_epoch: The epoch of the ticket, or `None`.
        ticket_step: Optimizer steps done by then, or `None`.
        model: The fingerprint of the model, see `model_fingerprint`.
    """

    window: dict[int, np.ndarray]
    rates: dict[int, float]
    steps: dict[int, int]
    records: dict[int, list[float]]
    history: list[int]
    ticket_epoch: int | None
    ticket_step: int | None
    model: str

    def write(self, path: pathlib.Path, digest: str) -> None:
        """Write the state to a file that appears whole or not at all.

        Args:
            path: The `.npz` file.
            digest: What the state depends on; `read` compares it.
        """
        window, records = sorted(self.window), sorted(self.records)
        width = max((len(self.records[epoch]) for epoch in records), default=0)
        lags = np.full((len(records), width), np.nan)
        for row, epoch in zip(lags, records, strict=True):
            row[: len(self.records[epoch])] = self.records[epoch]
        with atomic_file(path) as temporary:
            np.savez(
                temporary,
                digest=digest,
                window=np.array(window, int),
                snapshots=np.stack([self.window[e] for e in window]),
                rates=np.array([self.rates[e] for e in window]),
                steps=np.array([self.steps[e] for e in window], int),
                records=np.array(records, int),
                lags=lags,
                history=np.array(self.history, int),
                model=self.model,
                ticket=[
                    -1 if number is None else number
                    for number in (self.ticket_epoch, self.ticket_step)
                ],
            )

    @classmethod
    def read(
        cls, path: pathlib.Path, digest: str, workers: Workers
    ) -> "BirdState | None":
        """Read a state back; of several workers all get what the chief reads.

        Args:
            path: The `.npz` file.
            digest: What the state must depend on.
            workers: Who trains the model.

        Returns:
            The state, or `None` if there is no file.

        Raises:
            ValueError: If it cannot be used; the message says why.
        """
        try:
            mine = workers.is_chief and path.exists()
            data = workers.bytes_of_chief(b"+" + path.read_bytes() if mine else b"")
            if not data:
                return None
            with np.load(io.BytesIO(data[1:])) as stored:
                found = str(stored["digest"])
                window = stored["window"].tolist()
                epochs, lags = stored["records"].tolist(), stored["lags"].tolist()
                epoch, step = (None if n < 0 else n for n in stored["ticket"].tolist())
                state = cls(
                    dict(zip(window, stored["snapshots"], strict=True)),
                    dict(zip(window, stored["rates"].tolist(), strict=True)),
                    dict(zip(window, stored["steps"].tolist(), strict=True)),
                    {
                        e: [d for d in row if not math.isnan(d)]
                        for e, row in zip(epochs, lags, strict=True)
                    },
                    stored["history"].tolist(),
                    epoch,
                    step,
                    str(stored["model"]),
                )
        except Exception as error:  # a broken archive raises almost anything
            raise ValueError(f"it cannot be read ({error})") from error
        if found != digest:
            raise ValueError("it was made by a detector of other settings")
        return state


def model_fingerprint(model: Any) -> str:
    """Return what tells models of the same shapes apart: layers, configs and names.

    Numbers that Keras puts behind names (`dense_3`) do not count, for the same lines
    of code give others when they run again.

    Args:
        model: A built model of either flavour.
    """
    graph = trace(model)
    weights = CurrentWeights(graph)
    layers = [
        (
            call.kind,
            re.sub(r"_\d+(?=/|$)", "", call.path),
            _plain(_config(call.layer)),
            sorted(weights.shapes(call.path).items()),
        )
        for call in graph.calls
    ]
    return hashlib.sha256(repr(layers).encode()).hexdigest()


def _config(layer: Any) -> dict[str, Any]:
    try:
        return config_of(layer)
    except (AttributeError, NotImplementedError):  # an operation, or a user's layer
        return {}


def _plain(value: Any) -> Any:
    """Keep of a config what is the same in the next process."""
    if isinstance(value, dict):
        # A function may be told by its code, which knows its file and its lines.
        left = {str(k): v for k, v in value.items() if k not in _TOLD_OTHERWISE}
        return [(key, _plain(left[key])) for key in sorted(left)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return type(value).__name__


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


# A drop of the learning rate to less than this fraction makes distances fall.
_LR_DROP = 0.5


def warn_of_rate_drop(detector: str, epoch: int, rates: list[float]) -> None:
    """Warn if the learning rate fell within the window of a detector that hit.

    Args:
        detector: Name of the detector's class.
        epoch: The epoch of the hit, counted from 0.
        rates: The learning rates of the window's epochs, the newest last.
    """
    if rates[-1] < _LR_DROP * max(rates):
        warn(
            f"{detector} found its early bird after epoch {epoch + 1}, "
            f"while the learning rate fell from {max(rates):g} to {rates[-1]:g} "
            "within its window. A smaller rate moves the network less, settled or "
            "not, so this says little. Let the detector run at a constant rate.",
            LearningRateDropWarning,
        )
