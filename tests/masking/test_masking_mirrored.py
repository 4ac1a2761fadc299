"""Masks on the replicas of MirroredStrategy (T6)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def worker_environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": path}


@pytest.mark.parametrize(
    "policy",
    ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_T6_two_replicas_hold_one_mask(flavour, policy, tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "mirrored_training.py", flavour, policy, tmp_path],
        env=worker_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Every weight and mask has two copies, and they are looked at after each step.
    assert found["replicas"] == 2 and found["steps"] == 16
    assert found["copies"] == found["mask_copies"] == [2, 2, 2]
    assert found["broken"] == []
    # 192, 192 and 24 weights: three quarters are whole numbers.
    keys = ["first/kernel", "second/kernel", "head/kernel", "total"]
    assert found["sparsity"] == found["saved"] == dict.fromkeys(keys, 0.75)
    assert found["logged"][1:] == [0.75] * 3
    # The user's own constraint, and the detector beside the masks.
    assert 0.3 < found["norm"] <= 0.5 + 1e-5
    assert found["ticket_epoch"] == 2 and found["ticket"]
    assert found["loss"][-1] < found["loss"][0]
    assert found["worst_output_difference"] < (1e-6 if policy == "float32" else 0.05)
