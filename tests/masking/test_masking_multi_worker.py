"""Several workers take one decision and hold one mask; a run is cut off and resumes."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLE = ROOT / "examples" / "multi_worker.py"
# The whole of a killed run, of which the survivor's waiting is a part.
BOUND = 240


def environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": path}


def train(folder, *arguments):
    """Run the example; give its exit code, its output, and the workers' results."""
    command = [sys.executable, EXAMPLE, "--folder", folder, "--timeout", BOUND - 30]
    command += ["--epochs", 6, *arguments]
    done = subprocess.run(
        [str(part) for part in command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    paths = sorted(folder.glob("worker-*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    return done.returncode, done.stdout + done.stderr, found


def without(result, *keys):
    return {key: value for key, value in result.items() if key not in keys}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def undisturbed(folder):
    code, output, found = train(folder / "undisturbed")
    assert code == 0, output
    assert "The workers agree." in output
    return found


@pytest.mark.slow
def test_two_workers_agree(folder, undisturbed):
    first, second = undisturbed
    assert without(first, "worker") == without(second, "worker")
    assert first["first_epoch"] == 0
    # It is found in the midst of the run, so that a run can be cut off before.
    assert first["early_bird_epoch"] == 3
    assert first["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert first["accuracy"] > 0.8
    left = {path.name for path in (folder / "undisturbed").rglob("*")}
    assert "early_bird.keras" in left
    assert "spline_distance.npz" not in left and "checkpoint" not in left


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_resume(folder, undisturbed):
    place = folder / "killed"
    code, output, found = train(place, "--kill-after-epoch", 1)  # before the early bird
    assert code == 1 and not found
    assert "worker 1 ended with -9" in output
    # By itself and with an error, as TensorFlow documents: nobody ended it.
    assert "worker 0 ended with" in output and "worker 0 ended with 0" not in output
    with np.load(place / "bird" / "spline_distance.npz") as state:
        assert int(state["window"].max()) == 1

    code, output, found = train(place)
    assert code == 0, output
    assert [one["first_epoch"] for one in found] == [2, 2]
    for resumed, whole in zip(found, undisturbed, strict=True):
        assert without(resumed, "first_epoch") == without(whole, "first_epoch")


@pytest.mark.slow
def test_the_chief_decides_where_workers_see_different_data(tmp_path, monkeypatch):
    specification = importlib.util.spec_from_file_location("multi_worker", EXAMPLE)
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    script = HERE / "workers_that_differ.py"
    codes = example.finish(example.start(script, tmp_path, [str(tmp_path)]), 240, 60)
    logs = [(tmp_path / f"worker-{i}.log").read_text()[-3000:] for i in range(2)]
    assert codes == [0, 0], logs
    chief, other = (
        json.loads((tmp_path / f"worker-{i}.json").read_text()) for i in range(2)
    )
    assert (chief["chief"], other["chief"]) == (True, False)
    for one in (chief, other):
        # Bit by bit, whatever the bits stand for.
        assert one["numbers"] == ["nan", "0.1", "-0.0"]
        assert one["bytes"] == "odd" and one["nothing"] == ""
        assert "tf_keras" in one["keras"] and "MirroredStrategy" in one["keras"]
    # Each worker has a probe and a criterion of its own.
    assert all(map(math.isnan, chief["distances"][:2]))
    assert chief["distances"][2:] == other["distances"][2:]
    assert chief["early_bird_epoch"] == other["early_bird_epoch"] == 2
    assert chief["masks"] == other["masks"] and chief["weights"] == other["weights"]
    assert sum(sum(row) for row in chief["masks"][0]) == 36
    # Nothing is written twice, and what is kept on disk is the chief's.
    assert chief["files"] == ["backup-of-0", "model-of-0.h5", "ticket-of-0.keras"]
    assert other["files"] == ["backup-of-1"]
    assert not list((tmp_path / "backup-of-1").iterdir())
    assert chief["history"] == [4, 4] and "chief" in other["history"]
