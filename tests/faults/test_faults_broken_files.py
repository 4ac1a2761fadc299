"""A file that is broken, or none, is an error of ours that names it."""

import io
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.cli._entry import main
from tf_spline_prune.compat import load_model
from tf_spline_prune.errors import ModelError, PlanError

SAVED = "ignore:You are saving your model as an HDF5:UserWarning"


def small(K):
    layers = [K.layers.Dense(8, activation="relu"), K.layers.Dense(3)]
    return K.Sequential([K.Input((4,)), *layers])


def halves(content):
    """The ways in which any file can be broken."""
    return {
        "nothing": b"",
        "text": b"hello",
        "half": content[: len(content) // 2],
        "most": content[:-12],
    }


@pytest.fixture
def refused(capsys):
    """Assert that a command refuses a file, in a sentence and not with a traceback."""

    def run(path, *arguments, code=2):
        assert main([str(a) for a in arguments]) == code
        error = capsys.readouterr().err
        assert error.startswith("tf-spline-prune: error: ") and error.count("\n") == 1
        assert "Received" in error and str(path) in error
        first = error.removeprefix("tf-spline-prune: error: ").split()[0]
        assert not first.endswith((":", "]"))  # the name of a class, or a number
        return error

    return run


def packed(parts, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_models(K, ending, tmp_path, refused):
    whole, broken = tmp_path / f"whole{ending}", tmp_path / f"broken{ending}"
    small(K).save(whole)
    for content in halves(whole.read_bytes()).values():
        broken.write_bytes(content)
        with pytest.raises(ModelError, match="Received"):
            load_model(broken)
        refused(broken, "inspect", broken)
    refused(broken, "report", whole, broken)
    broken.unlink()
    broken.mkdir()
    refused(broken, "inspect", broken)


TEXTS = ["[]", "null", '"a"', "1", "{", '{"a": NaN}', "{}", '{"class_name": "Dense"}']


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("part", ["config.json", "metadata.json", "model.weights.h5"])
def test_parts_of_models(K, part, text, tmp_path):
    path = tmp_path / "m.keras"
    small(K).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    packed({**parts, part: text}, path)
    with pytest.raises(ModelError, match="Received"):
        load_model(path)
    packed({n: c for n, c in parts.items() if n != part}, path)
    with pytest.raises(ModelError, match="Received"):
        load_model(path)


def test_without_safe_mode_it_is_no_model_either(tmp_path):
    import tf_keras

    path = tmp_path / "m.keras"
    small(tf_keras).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    packed({**parts, "config.json": "[1]"}, path)
    for safe in (True, False):
        with pytest.raises(ModelError, match="describes no model.*'list' in it"):
            load_model(path, safe_mode=safe)


def test_folders(tmp_path, refused):
    import tf_keras

    whole, reference = tmp_path / "whole", tmp_path / "m.keras"
    small(tf_keras).save(whole, save_format="tf")
    small(keras).save(reference)
    served = tsp.export_saved_model(small(keras), tmp_path / "served").path
    index = "variables/variables.index"
    for part in (
        "saved_model.pb",
        index,
        index.replace("index", "data-00000-of-00001"),
    ):
        for content in (b"", b"hello", b"\xff" * 60):
            for folder, command in (whole, "inspect"), (served, "compare"):
                broken = tmp_path / "broken"
                shutil.copytree(folder, broken)
                (broken / part).write_bytes(content)
                more = [reference] if command == "compare" else []
                refused(broken, command, broken, *more)
                shutil.rmtree(broken)


def array(value):
    content = io.BytesIO()
    np.save(content, value, allow_pickle=True)
    return content.getvalue()


def headed(header):
    """A `.npy` file with a header of one's own and no numbers."""
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archived():
    content = io.BytesIO()
    np.savez(content, a=np.ones(3), b=np.ones(3))
    return content.getvalue()


ARRAYS = {
    **halves(array(np.ones((3, 4)))),
    "zip": archived(),
    "half a zip": archived()[:80],
    "most of a zip": archived()[:-5],
    "the start of a zip": b"PK\x03\x04",
    "objects": array(np.array([{}], object)),
    "words": array(np.array(["a", "b", "c"])),
    "no number": array(np.full((3, 4), np.nan)),
    "two": array(np.ones((2, 4))),
    "far too many": headed(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 4)}"
    ),
    "half a header": headed("{'descr': (((((("),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_anchors(kind, tmp_path, capsys):
    small(keras).save(tmp_path / "m.keras")
    (tmp_path / "a.npy").write_bytes(ARRAYS[kind])
    arguments = [str(tmp_path / "m.keras"), "--anchors", str(tmp_path / "a.npy")]
    assert main(["slice", *arguments]) == 2
    error = capsys.readouterr().err
    assert "anchors" in error and "Received" in error and error.count("\n") == 1


def test_folders_in_the_place_of_files(tmp_path, refused):
    model, folder = tmp_path / "m.keras", tmp_path / "folder"
    small(keras).save(model)
    folder.mkdir()
    refused(folder, "slice", model, "--anchors", folder)
    out = ["--litert", tmp_path / "m.tflite"]
    refused(folder, "export", model, *out, "--labels", folder)
    refused(folder, "export", model, *out, "--plan", folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "m.keras"]
    for read in (tsp.PruningPlan.load, tsp.litert.Runner, tsp.litert.read_attachments):
        with pytest.raises(IsADirectoryError, match="Is a directory.*Received"):
            read(folder)
        with pytest.raises(FileNotFoundError, match="No such file.*Received"):
            read(tmp_path / "none")


def test_plans(tmp_path):
    path = tmp_path / "plan.json"
    tsp.plan(small(keras), sparsity=0.5).save(path)
    for content in (*halves(path.read_bytes()).values(), archived(), b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(PlanError, match="broken.*Received"):
            tsp.PruningPlan.load(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a\0b\nc\nd", archived()])
def test_labels(content, tmp_path, refused):
    small(keras).save(tmp_path / "m.keras")
    (tmp_path / "labels.txt").write_bytes(content)
    arguments = [tmp_path / "m.keras", "--litert", tmp_path / "m.tflite"]
    assert main(["export", *map(str, arguments), "--labels", str(tmp_path / "l")]) == 2
    assert main(["export", *map(str, arguments), "--labels", ""]) == 2
    labels = tmp_path / "labels.txt"
    assert main(["export", *map(str, arguments), "--labels", str(labels)]) == 2
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize("ending", [".weights.h5", ".h5", ".keras", ".npz", ".npy", ""])
def test_weights(K, ending, tmp_path):
    masked = tsp.wrap_with_masks(small(K))
    before = [np.array(w) for w in masked.get_weights()]
    whole = tmp_path / "whole.weights.h5"
    small(K).save_weights(whole)
    path = tmp_path / f"broken{ending}"
    for content in (*halves(whole.read_bytes()).values(), archived(), ARRAYS["two"]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="(?s)no weights of this model.*Received"):
            tsp.load_weights(masked, path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ValueError, match="(?s)no weights of this model.*Received"):
        tsp.load_weights(masked, path)
    for one, other in zip(before, masked.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    if ending:  # else TensorFlow looks for a checkpoint
        with pytest.raises((FileNotFoundError, ValueError), match="Received"):
            tsp.load_weights(masked, tmp_path / f"none{ending}")


def test_texts_behind_a_model(tmp_path, refused):
    path = tmp_path / "m.tflite"
    tsp.export_litert(small(keras), path)
    tsp.litert.attach(path, {"a.txt": "x" * 50})
    whole = path.read_bytes()
    place = whole.rfind(b"PK\x01\x02")
    path.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
    with pytest.raises(ValueError, match="texts behind the model are broken.*Received"):
        tsp.litert.read_attachments(path)
    refused(path, "inspect", path)
    for content in halves(whole).values():
        path.write_bytes(content)
        refused(path, "inspect", path) if len(content) < place / 2 else None


EMPTY = ["--data", "--split", "--labels", "--plan", "--import", "--litert"]


@pytest.mark.parametrize("option", EMPTY)
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_no_option_left_out(option, text, tmp_path, capsys):
    small(keras).save(tmp_path / "m.keras")
    out = [] if option == "--litert" else ["--litert", str(tmp_path / "m.tflite")]
    assert main(["export", str(tmp_path / "m.keras"), *out, option, text]) == 2
    assert f"empty text stands for {option}" in capsys.readouterr().err
    assert main(["inspect", text]) == 2
    assert "empty text stands for model" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["def (", "1 / 0", "raise SystemExit(0)"])
def test_a_module_that_fails_is_no_success(content, tmp_path, refused):
    small(keras).save(tmp_path / "m.keras")
    module = tmp_path / "failing_layers.py"
    module.write_text(content)
    for name in (module, "failing_layers"):  # nothing of it stays
        refused(name, "inspect", tmp_path / "m.keras", "--import", name)
