"""A version appears whole or not at all, whenever its process is killed."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

KILLS = 20
UNSAFE = 77


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads uncounted")
def test_killed_at_any_moment(tmp_path):
    import tensorflow as tf

    folder = tmp_path / "net"
    program = pathlib.Path(__file__).with_name("killed_exports.py")
    done = subprocess.run(
        [sys.executable, program, folder, str(KILLS)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode == UNSAFE:  # a build of TensorFlow that starts threads
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr
    versions = [p for p in folder.iterdir() if p.name.isdecimal()]
    partial = [p for p in folder.iterdir() if p.name.startswith(".partial-")]
    assert len(versions) + len(partial) == len(list(folder.iterdir()))
    # Each was killed after two exports; some while they were writing the next.
    assert len(versions) >= 2 * KILLS and 0 < len(partial) <= KILLS
    x = np.array([[1, 0, 0, 2], [0, -1, 0, 0]], "float32")
    expected = x @ np.arange(12).reshape(4, 3)
    for version in versions:
        loaded = tf.saved_model.load(str(version)).signatures
        scores = loaded["serving_default"](x=tf.constant(x))["scores"]
        np.testing.assert_array_equal(scores, expected)
        classes = loaded["classify"](x=tf.constant(x))["classes"]
        assert classes.numpy().tolist() == [[b"c", b"b", b"a"], [b"a", b"b", b"c"]]
        text = (version / "assets.extra" / "metadata.json").read_text("utf-8")
        for name, digest in json.loads(text)["sha256"].items():
            content = (version / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
