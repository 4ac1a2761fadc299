"""`EarlyBird`: what the early-bird detectors share."""

import hashlib
import math
import pathlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_spline_prune._checks import (
    COUNT,
    FOLDER,
    Flag,
    Function,
    OneOf,
    Options,
    Path,
    checked,
)
from tf_spline_prune._files import PathLike, check_destination
from tf_spline_prune.callbacks._bird_state import (
    BirdState,
    SnapshotHistory,
    model_fingerprint,
    warn_of_rate_drop,
)
from tf_spline_prune.compat import (
    Callback,
    Workers,
    learning_rate,
    optimizer_steps,
    save_model,
    say,
)
from tf_spline_prune.errors import BackupWarning, warn

_ENDINGS = (".keras", ".h5")
VERBOSE: Options = [Flag(), OneOf(0, 1, 2)]
# Two snapshots of one model may differ by what its sums round.
_SAME = 0.01


class EarlyBird(Callback):
    """Take a snapshot after each epoch, and stop training when snapshots settle.

    A subclass says what a snapshot is, how far apart two are, and when the
    distances of a window mean that the early bird is found. Of several workers the
    chief's distances decide for all; it alone writes files and keeps the history.

    Args:
        lookback: Number of earlier snapshots that the newest is compared with.
        stop: Whether training stops when the early bird is found.
        filepath: File for the ticket: `*.keras` or `*.h5` for the model,
            `*.weights.h5` for its weights. It appears whole or not at all.
        keep_history: Whether all snapshots are kept, on disk, for
            `distance_matrix`.
        backup_dir: Folder in which the detector's state is kept after each epoch,
            for runs that resume, as `BackupAndRestore` resumes them. A finished
            run removes the state. That of another model, or of another run of the
            same one, is not used.
        verbose: 1 prints a line when the early bird is found.

    Attributes:
        log_name: The name under which its number is in the logs. Of several detectors
            of one kind in one `fit` the second has a `_2` behind it, and so on; the
            files in `backup_dir` are named alike.
        ticket_epoch: The epoch (counted from 0) after which the early bird was
            found, or `None`.
        ticket_step: The number of optimizer steps done by then, or `None`.
        records: For each epoch, the distances of its snapshot to those of the
            last `lookback` epochs, the nearest first.

    Raises:
        ValueError: If an argument is out of range.
    """

    log_name = ""
    _from_start = False

    @checked(
        lookback=COUNT,
        stop=Flag(),
        filepath=[Path(), None],
        keep_history=Flag(),
        backup_dir=[FOLDER, None],
        verbose=VERBOSE,
    )
    def __init__(
        self,
        lookback: int,
        stop: bool,
        filepath: PathLike | None,
        keep_history: bool,
        backup_dir: PathLike | None,
        verbose: int,
    ) -> None:
        super().__init__()
        if filepath is not None and not str(filepath).endswith(_ENDINGS):
            raise ValueError(
                f"`filepath` must end in one of {_ENDINGS}. Received: {filepath!r}"
            )
        self.lookback = lookback
        self.stop = stop
        self.filepath = filepath
        self.keep_history = keep_history
        self.backup_dir = backup_dir
        self.verbose = verbose
        self._listeners: list[Callable[[int], Any]] = []
        self._workers = Workers()
        self._reset()

    @abstractmethod
    def _snapshot(self) -> np.ndarray:
        """Take a snapshot of the model: a flat uint8 array."""

    @abstractmethod
    def _distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """Measure how far apart two snapshots are, in [0, 1]."""

    @abstractmethod
    def _value(self, recent: list[list[float]]) -> float:
        """Draw the number that decides from the records up to the newest.

        Returns:
            NaN while there are too few records.
        """

    @abstractmethod
    def _settled(self, value: float) -> bool:
        """Decide on that number; it is not NaN."""

    def _decide(self, recent: list[list[float]]) -> tuple[float, bool]:
        """Draw the number that is logged from the records, and decide."""
        value = self._value(recent)
        return value, not math.isnan(value) and self._settled(value)

    def _key(self) -> str:
        """Return what the detector's backup depends on."""
        return f"{type(self).__name__} lookback={self.lookback}"

    def _reset(self) -> None:
        self.ticket_epoch: int | None = None
        self.ticket_step: int | None = None
        self.records: dict[int, list[float]] = {}
        self._window: dict[int, np.ndarray] = {}
        self._rates: dict[int, float] = {}
        self._steps: dict[int, int] = {}
        self._fingerprint = ""
        self._model_of_backup: str | None = None
        backup = self._backup_file()
        self._history = SnapshotHistory(backup and backup.with_suffix(".bin"))
        self._resumed = False
        self._started = False

    @checked(listener=Function("a function of the number of steps"))
    def when_found(self, listener: Callable[[int], Any]) -> None:
        """Register a function that is called when the early bird is found.

        A run that resumes after the early bird was found calls it again, with the
        same number. Functions stay registered for all runs.

        Args:
            listener: Called with the number of optimizer steps done by then.

        Example:

        ```python
        bird.when_found(lambda steps: print(f"found after {steps} steps"))
        ```
        """
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.ticket_step or 0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew, or from the backup of a run that was cut off."""
        self._workers = Workers(self.model)
        self.log_name = self._named_in_fit(type(self).log_name)
        self._reset()
        for path in (self.filepath, self._backup_file()):
            if path is not None and check_destination(path).is_dir():
                raise IsADirectoryError(
                    "A folder is in the place of an output file. Name another file "
                    f"or remove the folder. Received: {str(path)!r}"
                )
        self._check_model()
        self._load()

    def _check_model(self) -> None:
        """Raise early what can be known before the first epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Bring a restored state in line with the epoch that training resumes at."""
        if self._started:
            return
        self._started = True
        if self._resumed:
            self._rewind(epoch)
        if self._from_start and not self._window:
            self._take(epoch - 1)
        if self.ticket_epoch is not None and self.stop:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take a snapshot, compare, decide, and log."""
        value = self._judge(epoch)
        if logs is not None:
            logs[self.log_name] = value

    def _judge(self, epoch: int) -> float:
        self._take(epoch)
        value, found = self._decide([self.records[e] for e in sorted(self.records)])
        if self.ticket_epoch is None and found:
            self.ticket_epoch = epoch
            self.ticket_step = optimizer_steps(self.model)
            self._tell()
            rates = [self._rates[e] for e in sorted(self._rates)]
            warn_of_rate_drop(type(self).__name__, epoch, rates[-self.lookback - 1 :])
            if self.filepath is not None:
                save_model(self.model, self.filepath)
            if self.verbose:
                say(f"\nEpoch {epoch + 1}: early bird, {self.log_name} {value:.4f}.")
            if self.stop:
                self.model.stop_training = True
        self._save()
        return value

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Remove the backup of a run that came to its end."""
        if (backup := self._backup_file()) and self._workers.is_chief:
            backup.unlink(missing_ok=True)

    def _take(self, epoch: int) -> None:
        snapshot = self._snapshot()
        if self._is_of_another_model(snapshot):
            self._refuse("it belongs to another model")
        earlier = sorted(self._window, reverse=True)[: self.lookback]
        distances = [self._distance(snapshot, self._window[e]) for e in earlier]
        if distances:
            self.records[epoch] = self._workers.of_chief(np.array(distances)).tolist()
        self._window[epoch] = snapshot
        self._rates[epoch] = learning_rate(self.model)
        self._steps[epoch] = optimizer_steps(self.model)
        for old in sorted(self._window)[: -self._held()]:
            del self._window[old]
        if self.keep_history and self._workers.is_chief:
            self._history.append(epoch, snapshot)

    def _held(self) -> int:
        """Count the snapshots to hold; one more lets a resumed run step back."""
        return self.lookback + (self.backup_dir is not None)

    def distance_matrix(self) -> np.ndarray:
        """Compute the distances between the snapshots of all epochs.

        Returns:
            Array of shape `(epochs, epochs)`, symmetric, zero on the diagonal.

        Raises:
            ValueError: If the history was not kept, or there is none yet.
        """
        if not self.keep_history:
            raise ValueError(
                "The snapshots of all epochs are needed, and they were not kept. "
                "Give `keep_history=True`, which keeps them on disk. Received: "
                "keep_history=False"
            )
        return self._history.distances(self._distance)

    def _backup_file(self) -> pathlib.Path | None:
        if self.backup_dir is None:
            return None
        return pathlib.Path(self.backup_dir).expanduser() / f"{self.log_name}.npz"

    def _digest(self) -> str:
        return hashlib.sha256(self._key().encode()).hexdigest()

    def _save(self) -> None:
        backup = self._backup_file()
        if backup is not None and self._workers.is_chief:
            state = BirdState(
                window=self._window,
                rates=self._rates,
                steps=self._steps,
                records=self.records,
                history=self._history.epochs,
                ticket_epoch=self.ticket_epoch,
                ticket_step=self.ticket_step,
                model=self._known_by(),
            )
            state.write(backup, self._digest())

    def _load(self) -> None:
        backup = self._backup_file()
        if backup is None:
            return
        try:
            state = BirdState.read(backup, self._digest(), self._workers)
        except ValueError as error:
            self._refuse(str(error))
            return
        if state is None:
            return
        self._window, self._rates, self._steps = state.window, state.rates, state.steps
        self.records, self._history.epochs = state.records, state.history
        self.ticket_epoch, self.ticket_step = state.ticket_epoch, state.ticket_step
        self._model_of_backup = state.model
        self._resumed = True

    def _known_by(self) -> str:
        """Return the fingerprint of the model, which is made once in a training."""
        self._fingerprint = self._fingerprint or model_fingerprint(self.model)
        return self._fingerprint

    def _is_of_another_model(self, snapshot: np.ndarray) -> bool:
        """Return whether the snapshots, from a backup, are not of this model."""
        if any(old.size != snapshot.size for old in self._window.values()):
            return True
        known = self._model_of_backup
        return known is not None and known != self._known_by()

    def _is_of_another_run(self, snapshot: np.ndarray, epoch: int) -> bool:
        """Return whether the model of now is not the one after `epoch` in the backup.

        A model that has been trained further, as one that was saved in the midst of an
        epoch, cannot be compared.
        """
        if optimizer_steps(self.model) > self._steps[epoch]:
            return False
        apart = np.array([self._distance(snapshot, self._window[epoch])])
        return float(self._workers.of_chief(apart)[0]) > _SAME

    def _rewind(self, epoch: int) -> None:
        """Forget what a resumed run will do again."""
        for kept in (self._window, self._rates, self._steps, self.records):
            for later in [e for e in kept if e >= epoch]:
                del kept[later]
        self._history.epochs = [e for e in self._history.epochs if e < epoch]
        if self.ticket_epoch is not None and self.ticket_epoch >= epoch:
            self.ticket_epoch = self.ticket_step = None
        ticket = self.ticket_epoch
        newest = max(self._window, default=-1)
        if epoch and self._window and self.model.built:
            snapshot = self._snapshot()
            if self._is_of_another_model(snapshot):
                return self._refuse("it belongs to another model")
            if newest == epoch - 1 and self._is_of_another_run(snapshot, newest):
                return self._refuse("it belongs to another run of this model")
        if epoch and newest == epoch - 2:
            # Cut off between two backups: the model is that of the last epoch.
            self._judge(epoch - 1)
        elif epoch and newest != epoch - 1:
            self._refuse(f"it does not reach epoch {epoch}")
        if not epoch:
            self._forget()
        if ticket is not None and self.ticket_epoch == ticket:
            self._tell()

    def _refuse(self, why: str) -> None:
        warn(
            f"The detector's backup is not used, because {why}; its window starts "
            f"anew. Received: {str(self._backup_file())!r}",
            BackupWarning,
        )
        self._forget()

    def _forget(self) -> None:
        started = self._started
        self._reset()
        self._started = started
