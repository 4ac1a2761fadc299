"""Measuring in a process of its own, and how much more memory it holds meanwhile."""

import ctypes
import gc
import json
import os
import pathlib
import subprocess
import sys
import threading

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def each_alone(script, whats, threads, more=()):
    """Run `script --one WHAT` for each, in a process of its own; yield what it prints.

    Args:
        script: Path of a benchmark that prints one line of JSON.
        whats: What it is to measure.
        threads: Variables of the environment that set the number of threads.
        more: Further arguments of the script.

    Yields:
        The name, and the object that was printed.
    """
    for what in whats:
        done = subprocess.run(
            [sys.executable, script, "--one", what, *more],
            env={**os.environ, **threads},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        yield what, json.loads(done.stdout.splitlines()[-1])


class PeakMemory:
    """Samples the resident memory of this process while its block runs.

    What the process no longer needs is given back to the system first, so that
    the block cannot hide behind it. Linux only.

    Attributes:
        extra: The highest sample less what was resident before, in bytes.
    """

    def __init__(self, interval: float = 0.002) -> None:
        self.interval = interval
        self.extra = 0

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._before = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _look(self) -> None:
        self.extra = max(self.extra, resident() - self._before)

    def _sample(self) -> None:
        while not self._done.wait(self.interval):
            self._look()
