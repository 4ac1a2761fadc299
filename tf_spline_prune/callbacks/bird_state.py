"""`BirdState`: what an early-bird detector keeps for a run that resumes."""

import dataclasses
import io
import math
import pathlib

import numpy as np

from tf_spline_prune.compat import Workers
from tf_spline_prune.files import atomic_file


@dataclasses.dataclass(frozen=True)
class BirdState:
    """The state of a detector after an epoch, and its file.

    Args:
        window: The snapshots held, by epoch: flat uint8 arrays of one size.
        rates: The learning rates at those epochs.
        records: By epoch, the distances of its snapshot to earlier ones.
        history: The epochs whose snapshots are in the history file.
        ticket_epoch: The epoch of the ticket, or `None`.
        ticket_step: Optimizer steps done by then, or `None`.
    """

    window: dict[int, np.ndarray]
    rates: dict[int, float]
    records: dict[int, list[float]]
    history: list[int]
    ticket_epoch: int | None
    ticket_step: int | None

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
                records=np.array(records, int),
                lags=lags,
                history=np.array(self.history, int),
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
                ticket = [None if n < 0 else n for n in stored["ticket"].tolist()]
                state = cls(
                    dict(zip(window, stored["snapshots"], strict=True)),
                    dict(zip(window, stored["rates"].tolist(), strict=True)),
                    {
                        epoch: [d for d in row if not math.isnan(d)]
                        for epoch, row in zip(epochs, lags, strict=True)
                    },
                    stored["history"].tolist(),
                    *ticket,
                )
        except Exception as error:  # a broken archive raises almost anything
            raise ValueError(f"it cannot be read ({error})") from error
        if found != digest:
            raise ValueError("it was made by a detector of other settings")
        return state
