"""Whatever happens to a writer: nothing is half-written, lost, or left behind."""

import contextlib
import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune import _files as files
from tf_spline_prune._files import atomic_file
from tf_spline_prune.compat import load_model, save_model
from tf_spline_prune.errors import ExportError

# Writes one long text after the other, each of a single letter.
WRITER = """
import itertools, sys
from tf_spline_prune._files import atomic_file
print("ready", flush=True)
for letter in itertools.cycle(sys.argv[2]):
    with atomic_file(sys.argv[1]) as temporary:
        with open(temporary, "w") as file:
            for _ in range(200):
                file.write(letter * 1000)
                file.flush()
"""
LENGTH = 200_000
LONG_AGO = time.time() - 7200


def writer(place, letters):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, place, letters],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def is_whole(place):
    text = place.read_text()
    return len(text) == LENGTH and len(set(text)) == 1


def leftovers(folder):
    return [p for p in folder.iterdir() if p.name.startswith(".partial-")]


def test_killed_in_the_middle_and_two_at_a_time(tmp_path):
    """Ten kills while another process writes the same file."""
    rng = random.Random(0)
    place = tmp_path / "out.txt"
    place.write_text("a" * LENGTH)
    survivor = writer(place, "abc")
    try:
        for _ in range(10):
            victim = writer(place, "xyz")
            for _ in range(10):
                assert is_whole(place)
                time.sleep(rng.uniform(0, 0.003))
            kill(victim)
            assert is_whole(place)
        assert 1 < len(leftovers(tmp_path)) <= 11
    finally:
        kill(survivor)
    for left in leftovers(tmp_path):
        os.utime(left, (LONG_AGO, LONG_AGO))
    with atomic_file(place) as temporary:
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    assert place.read_text() == "new"


@pytest.mark.parametrize("more", [[], ["mine"]])
def test_killed_before_its_lock_had_a_name(more, tmp_path):
    left = tmp_path / ".partial-abcdefgh"
    left.mkdir()
    for name in (files._LOCK, *more):
        (left / name).touch()
    os.utime(left, (LONG_AGO, LONG_AGO))
    with atomic_file(tmp_path / "new") as temporary:
        temporary.touch()
    assert left.exists() == bool(more)  # what holds more is of someone else


def small(K=keras):
    layers = [K.layers.Dense(64, activation="relu"), K.layers.Dense(3)]
    return K.Sequential([K.Input((4,)), *layers])


def write_plan(path):
    tsp.plan(small(), sparsity=0.5).save(path)


def write_model(path):
    save_model(small(), path)


def write_page(path):
    model = small()
    tsp.report(model, tsp.prune(model, sparsity=0.5)).to_html(path)


def write_texts(path):
    if not path.exists():
        path.touch()
    tsp.litert.attach(path, {"a.txt": "".join(map(str, range(2000)))})


def write_picture(path):
    tsp.visualize.plot_plan(tsp.plan(small(), sparsity=0.5), path)


def write_export(path):
    tsp.export_litert(small(), path)


WRITERS = {
    "plan.json": write_plan,
    "m.keras": write_model,
    "page.html": write_page,
    "m.tflite": write_texts,
    "plan.png": write_picture,
}


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond a size; to the writer this is a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(name, tmp_path):
    place = tmp_path / name
    place.write_text("before")
    with full_disk(500), pytest.raises(OSError, match="as it was.*Make room.*Received"):
        WRITERS[name](place)
    assert place.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("K", ["keras", "tf_keras"], indirect=True)
def test_a_full_disk_at_exports(K, tmp_path):
    with full_disk(500), pytest.raises(ExportError, match="[Ss]pace.*Received"):
        tsp.export_saved_model(small(K), tmp_path / "served")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_as_the_system_says_it(tmp_path):
    with pytest.raises(OSError, match="No space left on device.*Make room.*Received"):
        with atomic_file(tmp_path / "new" / "out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*WRITERS, "export.tflite"])
def test_a_folder_in_the_place_of_a_file(name, tmp_path):
    place = tmp_path / name
    place.mkdir()
    (place / "mine").touch()
    with pytest.raises(IsADirectoryError, match="(?i)a (folder|directory).*Received"):
        WRITERS.get(name, write_export)(place)
    assert [p.name for p in tmp_path.rglob("*")] == [name, "mine"]


def test_a_folder_that_nothing_can_be_written_to(tmp_path, monkeypatch):
    """As the superuser sees a disk that is mounted to be read only."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", refuse)
    for write in (write_plan, write_model):
        with pytest.raises(OSError, match="Read-only file system.*Received"):
            write(tmp_path / "new" / "m.keras")
    assert not list(tmp_path.iterdir())


NAMES = [
    "new\nline",
    "quote'\"",
    "ümläut ß",
    "-dash",
    "pct%20#",
    "~tilde",
    "😀:",
    "\udcff",
]


@pytest.mark.parametrize("stem", [*NAMES, "back\\slash", "star*?[a]", "x" * 245])
def test_any_name(stem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that one begins with its own sign
    for ending, write in ((".json", write_plan), (".keras", write_model)):
        name = f"{stem}{ending}"
        write(pathlib.Path(name) if stem != "~tilde" else tmp_path / name)
        assert [p.name for p in tmp_path.iterdir()] == [name]
        if ending == ".keras":
            assert load_model(tmp_path / name).count_params() == 515
        else:
            assert json.loads((tmp_path / name).read_bytes())
        (tmp_path / name).unlink()


@pytest.mark.parametrize("write", [write_plan, write_model])
def test_a_name_that_is_too_long(write, tmp_path):
    for place in (tmp_path / f"{'x' * 300}.keras", tmp_path / ("x" * 300) / "m.keras"):
        with pytest.raises(OSError, match="too long.*Received"):
            write(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["with space", "new\nline", "ümläut", "'\"", "-d", "*?%20#"]
)
def test_folders_of_any_name(name, tmp_path):
    report = tsp.export_saved_model(small(), tmp_path / name)
    assert report.path == tmp_path / name / "1"


@pytest.mark.parametrize("name", ["back\\slash", "a[b]", "\udcff"])
def test_folders_that_tensorflow_takes_for_patterns(name, tmp_path):
    with pytest.raises(ExportError, match="(?s)path.*Received"):
        tsp.export_saved_model(small(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_is_attached_appears_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    write_export(path)
    before = path.read_bytes()

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        tsp.litert.attach(path, {"a.txt": "a"})
    monkeypatch.undo()
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    tsp.litert.attach(path, {"a.txt": "a"})
    assert tsp.litert.read_attachments(path)["a.txt"] == "a"
    x = np.ones((1, 4), "float32")
    runs = [tsp.litert.Runner(m).run(x)[0] for m in (before, path)]
    np.testing.assert_array_equal(*runs)
