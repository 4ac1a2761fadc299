"""Two exporters in one folder: each gets a version, none is lost or mixed."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_folder


def number_after(folder):
    taken = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    return folder / str(max(taken, default=0) + 1)


def test_threads_that_choose_the_same_number(tmp_path):
    """All have chosen before any is done; each is moved at the same moment."""
    count, together = 8, threading.Barrier(8)
    places = [None] * count

    def write(index):
        with atomic_folder(lambda: number_after(tmp_path)) as made:
            (made.temporary / "mark").write_text(str(index))
            together.wait()
        places[index] = made.path

    threads = [threading.Thread(target=write, args=(i,)) for i in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(int(p.name) for p in places) == list(range(1, count + 1))
    assert [(p / "mark").read_text() for p in places] == [str(i) for i in range(count)]
    assert len(list(tmp_path.iterdir())) == count


def test_the_loser_of_the_race_takes_the_next_number(K, tmp_path, monkeypatch):
    """Another exporter takes the number while this one writes."""
    from tf_spline_prune.export import _export_saved_model as signatures

    model = K.Sequential([K.Input((3,)), K.layers.Dense(2)])
    write = signatures.Signatures.write

    def slow(self, folder):
        difference = write(self, folder)
        (tmp_path / "net" / "1").mkdir()
        (tmp_path / "net" / "1" / "saved_model.pb").write_text("of another")
        return difference

    monkeypatch.setattr(signatures.Signatures, "write", slow)
    report = tsp.export_saved_model(model, tmp_path / "net")
    assert report.path == tmp_path / "net" / "2"
    assert (report.path / "saved_model.pb").stat().st_size > 100
    assert (tmp_path / "net" / "1" / "saved_model.pb").read_text() == "of another"
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == ["1", "2"]


def test_a_version_that_was_asked_for_is_not_exchanged(K, tmp_path, monkeypatch):
    from tf_spline_prune.export import _export_saved_model as signatures

    model = K.Sequential([K.Input((3,)), K.layers.Dense(2)])
    write = signatures.Signatures.write

    def slow(self, folder):
        difference = write(self, folder)
        (tmp_path / "net" / "7").mkdir()
        (tmp_path / "net" / "7" / "saved_model.pb").write_text("of another")
        return difference

    monkeypatch.setattr(signatures.Signatures, "write", slow)
    with pytest.raises(FileExistsError, match="version 7"):
        tsp.export_saved_model(model, tmp_path / "net", version=7)
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["7"]


PROGRAM = """
import sys, time, keras, numpy as np
import tf_spline_prune as tsp
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.set_weights([np.full((3, 2), float(sys.argv[2])), np.zeros(2)])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2):
    print(tsp.export_saved_model(model, sys.argv[1]).path.name, flush=True)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    """They start together and export twice each."""
    import tensorflow as tf

    folder = tmp_path / "net"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder, str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        for i in (1, 2)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=300)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted(map(int, told[0] + told[1])) == [1, 2, 3, 4]
    for i, names in enumerate(told, 1):
        for name in names:
            serve = tf.saved_model.load(str(folder / name)).signatures[
                "serving_default"
            ]
            (scores,) = serve(tf.ones((1, 3))).values()
            np.testing.assert_allclose(scores, [[3.0 * i, 3.0 * i]])
    assert len(list(folder.iterdir())) == 4


def test_the_largest_number_that_a_server_knows(K, tmp_path):
    model = K.Sequential([K.Input((3,)), K.layers.Dense(2)])
    with pytest.raises(ValueError, match="at most"):
        tsp.export_saved_model(model, tmp_path / "net", version=2**63)
    (tmp_path / "net" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(ValueError, match="at most"):
        tsp.export_saved_model(model, tmp_path / "net")
    assert len(list((tmp_path / "net").iterdir())) == 1
