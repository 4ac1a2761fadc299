"""Running scripts as a newcomer runs them: a process and a folder of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def run(arguments, folder, check=True):
    """Run Python in a folder that also takes the data sets; give what it did."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TFDS_DATA_DIR": str(folder / "tfds"),
        },
        capture_output=True,
        text=True,
    )
    assert not (check and done.returncode), done.stdout[-2000:] + done.stderr[-6000:]
    return done
