"""Files that appear whole or not at all, and paths that begin at home."""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file, atomic_folder


def new_folder(path):
    return atomic_folder(lambda: path)


@pytest.mark.parametrize("place", [atomic_file, new_folder])
def test_what_fails_leaves_nothing_behind(tmp_path, place):
    with pytest.raises(RuntimeError), place(tmp_path / "new" / "newer" / "out.txt"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError), place(tmp_path / "there" / "a" / "out.txt"):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    with pytest.raises(RuntimeError), place(tmp_path / "shared" / "out.txt"):
        (tmp_path / "shared" / "of another").touch()
        raise RuntimeError
    assert (tmp_path / "shared" / "of another").exists()


def test_an_old_file_stays_as_it_was(tmp_path):
    file = tmp_path / "out.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with atomic_file(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_paths_that_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = zoo.mlp(keras)
    plan = tsp.plan(model, sparsity=0.5)
    plan.save("~/plan.json")
    assert tsp.PruningPlan.load("~/plan.json").removed == plan.removed
    tsp.export_litert(model, "~/model.tflite")
    assert "metadata.json" in tsp.litert.read_attachments("~/model.tflite")
    model.save_weights(str(tmp_path / "plain.weights.h5"))
    tsp.load_weights(tsp.wrap_with_masks(model), "~/plain.weights.h5")
    x = np.random.default_rng(0).normal(size=(32, 12)).astype("float32")
    labels = np.arange(32) % 5
    found = []
    for epochs in (2, 4):
        model.compile("sgd", "sparse_categorical_crossentropy")
        settings = {"threshold": 1e-9, "stop": False, "keep_history": True}
        bird = tsp.SplineEarlyBird(x, backup_dir="~/bird", verbose=0, **settings)
        if epochs == 2:  # cut off
            bird.on_train_end = lambda logs=None: None
        fit = {"epochs": epochs, "initial_epoch": epochs - 2, "verbose": 0}
        model.fit(x, labels, callbacks=[bird], **fit)
        found.append(sorted(bird.records))
    assert found == [[1], [1, 2, 3]]  # distances to earlier epochs
    assert not (tmp_path / "bird" / "spline_distance.npz").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"{", b"{}"])
def test_a_broken_plan_is_named(tmp_path, content):
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    with pytest.raises(tsp.errors.PlanError, match=r"broken\.json"):
        tsp.PruningPlan.load(file)


def test_an_output_with_the_name_of_an_input(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, [x, keras.layers.Dense(2, name="y")(x)])
    with pytest.raises(tsp.errors.ExportError, match="name of an input"):
        tsp.export_onnx(model, tmp_path / "new" / "model.onnx")
    assert not list(tmp_path.iterdir())
