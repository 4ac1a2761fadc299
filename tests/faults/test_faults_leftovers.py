"""What killed writers leave, and links in the place of an output."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file, atomic_folder

WRITER = """
import sys, time
from tf_spline_prune._files import atomic_file, atomic_folder
kind, place = sys.argv[1:]
if kind == "file":
    with atomic_file(place) as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(600)
with atomic_folder(lambda: place) as made:
    (made.temporary / "deep").mkdir()
    (made.temporary / "deep" / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
LONG_AGO = time.time() - 7200


def writer(kind, place):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, place], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def partial(folder):
    return [p for p in folder.iterdir() if p.name.startswith(".partial-")]


def make_old(folder):
    for place in partial(folder):
        os.utime(place, (LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_the_dead_and_of_the_living(tmp_path, kind):
    dead, alive = (writer(kind, tmp_path / name) for name in ("dead", "alive"))
    try:
        kill(dead)
        assert len(partial(tmp_path)) == 2
        with atomic_file(tmp_path / "new") as temporary:
            temporary.write_text("whole")
        assert len(partial(tmp_path)) == 2  # both may be at work: they are young
        make_old(tmp_path)
        with atomic_file(tmp_path / "new") as temporary:
            temporary.write_text("whole")
        (left,) = partial(tmp_path)
        assert [f for f in left.rglob("*") if f.is_file() and f.read_text() == "half"]
    finally:
        kill(alive)
    make_old(tmp_path)
    with atomic_folder(lambda: tmp_path / "third") as made:
        (made.temporary / "whole").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "third"]


def test_of_others_and_of_other_machines(tmp_path):
    from tf_spline_prune import _files as files

    others = tmp_path / ".partial-download"  # of another program
    others.mkdir()
    (others / "film.mp4").touch()
    (tmp_path / ".partial-file").touch()
    far = tmp_path / ".partial-abcdefgh"
    far.mkdir()
    (far / files._LOCK).write_bytes(b"another kernel")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / files._LOCK).write_bytes(files._kernel())
    (elsewhere / "mine").touch()
    (tmp_path / ".partial-linked").symlink_to(elsewhere)
    killed_at_once = tmp_path / ".partial-abcdefgi"
    killed_at_once.mkdir()
    make_old(tmp_path)
    os.utime(tmp_path / ".partial-linked", (LONG_AGO,) * 2, follow_symlinks=False)
    with atomic_file(tmp_path / "new") as temporary:
        temporary.touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".partial-abcdefgh",
        ".partial-download",
        ".partial-file",
        ".partial-linked",
        "elsewhere",
        "new",
    ]
    assert (others / "film.mp4").exists() and (elsewhere / "mine").exists()


def test_many_cleaners_at_once(tmp_path):
    """Twenty leftovers, four processes: all go, and every output appears."""
    from tf_spline_prune import _files as files

    for i in range(20):
        place = tmp_path / f".partial-abcdef{i:02}"
        (place / "content" / "deep").mkdir(parents=True)
        (place / "content" / "deep" / "half").touch()
        (place / files._LOCK).write_bytes(files._kernel())
    make_old(tmp_path)
    program = (
        "import sys\n"
        "from tf_spline_prune._files import atomic_file\n"
        "sys.stdin.readline()\n"
        "with atomic_file(sys.argv[1]) as temporary: temporary.touch()\n"
    )
    cleaners = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / f"new{i}"],
            stdin=subprocess.PIPE,
        )
        for i in range(4)
    ]
    for cleaner in cleaners:
        cleaner.communicate(b"\n")
    assert [cleaner.returncode for cleaner in cleaners] == [0] * 4
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["new0", "new1", "new2", "new3"]


def small():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_link_to_a_file_stays_a_link(tmp_path):
    store, here = tmp_path / "store", tmp_path / "here"
    store.mkdir()
    here.mkdir()
    (store / "of_today").write_text("old")
    link = here / "model.tflite"
    link.symlink_to("../store/of_today")
    tsp.export_litert(small(), link)
    assert os.readlink(link) == "../store/of_today"
    assert len(tsp.litert.Runner(store / "of_today").run(np.ones((1, 3), "f"))) == 1
    assert [p.name for p in store.iterdir()] == ["of_today"]
    assert [p.name for p in here.iterdir()] == ["model.tflite"]


def test_a_link_that_leads_nowhere_yet(tmp_path):
    (tmp_path / "plan.json").symlink_to("new/plan.json")
    plan = tsp.plan(keras.Sequential([keras.Input((3,)), *dense(8, 2)]), sparsity=0.5)
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").is_symlink()
    assert tsp.PruningPlan.load(tmp_path / "new" / "plan.json").removed == plan.removed


def dense(*sizes):
    return [keras.layers.Dense(size) for size in sizes]


def test_links_that_lead_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "folder").symlink_to("folder")
    with pytest.raises(OSError, match="leads back to itself") as caught:
        with atomic_file(tmp_path / "a"):
            raise AssertionError
    assert "Received" in str(caught.value)
    for export in (tsp.export_saved_model,):
        with pytest.raises(OSError, match="folder of the output") as caught:
            export(small(), tmp_path / "folder")
        assert "Received" in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "folder"]


def test_links_to_folders(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "net").symlink_to("disk")
    report = tsp.export_saved_model(small(), tmp_path / "net")
    assert (tmp_path / "net").is_symlink() and report.path == tmp_path / "net" / "1"
    (tmp_path / "disk" / "2").symlink_to("nowhere")  # a version that will come
    report = tsp.export_saved_model(small(), tmp_path / "net")
    assert report.path.name == "3" and (tmp_path / "disk" / "2").is_symlink()
    (tmp_path / "later").symlink_to("soon/served")
    report = tsp.export_saved_model(small(), tmp_path / "later")
    assert (tmp_path / "later").is_symlink()
    assert (tmp_path / "soon" / "served" / "1" / "saved_model.pb").exists()


def test_a_link_ends_as_its_readers_know_it(tmp_path):
    """Keras chooses the format by the ending of the link, not of what it leads to."""
    from tf_spline_prune.compat import save_model

    (tmp_path / "ticket.keras").symlink_to("blob")
    save_model(small(), tmp_path / "ticket.keras")
    assert pathlib.Path(tmp_path / "ticket.keras").is_symlink()
    assert (tmp_path / "blob").read_bytes()[:2] == b"PK"
    assert keras.models.load_model(tmp_path / "ticket.keras").count_params() == 8


@pytest.mark.parametrize("kind", ["litert", "plan", "report", "picture"])
def test_a_folder_in_the_place_of_a_file_is_refused(kind, tmp_path):
    """The converted model was thrown away, with a raw error."""
    model = small()
    place = tmp_path / {"litert": "a.tflite", "plan": "p.json"}.get(kind, "a.html")
    place.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tsp.errors.NothingPrunedWarning)
        plan = tsp.plan(model, sparsity=0.5)
    writers = {
        "litert": lambda: tsp.export_litert(model, place),
        "plan": lambda: plan.save(place),
        "report": lambda: tsp.report(model, model).to_html(place),
        "picture": lambda: atomic_file(place).__enter__(),
    }
    with pytest.raises(IsADirectoryError, match="to be a file.*Received: '"):
        writers[kind]()
    assert place.is_dir() and not list(place.iterdir()) and not partial(tmp_path)
