"""Models come back in the flavour that saved them, or an error says why not."""

import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import load_model, mask_slots, model_format
from tf_spline_prune.errors import ModelError

pytestmark = pytest.mark.both_flavours

X = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")


def small(K, *layers):
    return K.Sequential([K.Input((12,)), *layers, K.layers.Dense(3, name="head")])


def functional(K, layer):
    x = K.Input((12,))
    return K.Model(x, K.layers.Dense(3)(layer(x)))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_model_comes_back_in_its_flavour(K, ending, tmp_path):
    model = zoo.mlp(K)
    path = tmp_path / f"model{ending}"
    model.save(path)
    loaded = load_model(path)
    assert isinstance(loaded, K.Model)
    np.testing.assert_array_equal(np.asarray(loaded(X)), np.asarray(model(X)))


def test_a_saved_model_of_tf_keras_comes_back(tmp_path):
    import tf_keras

    model = zoo.mlp(tf_keras)
    model.save(tmp_path / "folder", save_format="tf")
    assert model_format(tmp_path / "folder") == "keras_folder"
    loaded = load_model(tmp_path / "folder")
    assert isinstance(loaded, tf_keras.Model)
    np.testing.assert_array_equal(np.asarray(loaded(X)), np.asarray(model(X)))


def test_masks_come_back(K, tmp_path):
    masked = tsp.wrap_with_masks(zoo.mlp(K))
    masked.save(tmp_path / "masked.keras")
    loaded = load_model(tmp_path / "masked.keras")
    keys = [slot.key for slot in mask_slots(loaded)]
    assert keys == ["first/kernel", "second/kernel", "head/kernel"]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("build", [small, functional])
def test_own_classes_are_named_and_taken(K, build, ending, tmp_path):
    class Twice(K.layers.Layer):
        def call(self, x):
            return 2 * x

    path = tmp_path / f"own{ending}"
    own = build(K, Twice())
    own.save(path)
    with pytest.raises(ModelError, match="needs 'Twice'.*--import"):
        load_model(path)
    loaded = load_model(path, {"Twice": Twice})
    assert isinstance(loaded.layers[-2], Twice)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_code_in_a_file_is_refused(K, ending, tmp_path):
    path = tmp_path / f"lambda{ending}"
    small(K, K.layers.Lambda(lambda x: 2 * x, output_shape=(12,))).save(path)
    with pytest.raises(ModelError, match="Python code that the file carries.*--unsafe"):
        load_model(path)
    assert isinstance(load_model(path, safe_mode=False), K.Model)


def test_code_in_a_folder_is_refused(tmp_path):
    import tf_keras

    model = small(tf_keras, tf_keras.layers.Lambda(lambda x: 2 * x))
    model.save(tmp_path / "folder", save_format="tf")
    with pytest.raises(ModelError, match="Python code that the file carries"):
        load_model(tmp_path / "folder")


def test_weights_alone_are_no_model(K, tmp_path):
    path = tmp_path / "only.weights.h5"
    zoo.mlp(K).save_weights(path)
    with pytest.raises(ModelError, match="holds weights only"):
        load_model(path)


def test_broken_files_say_so(tmp_path):
    import keras

    whole = tmp_path / "whole.keras"
    zoo.mlp(keras).save(whole)
    half = tmp_path / "half.keras"
    half.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ModelError, match="The file is broken"):
        load_model(half)

    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(ModelError, match="broken, or no HDF5 file"):
        load_model(text)

    lacking = tmp_path / "lacking.keras"
    with zipfile.ZipFile(lacking, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelError, match="`keras` cannot load the model"):
        load_model(lacking)


def test_a_keras_that_is_not_known_is_named(tmp_path):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version="1.2.2", model_config="{}")
    with pytest.raises(ModelError, match="not known here.*'1.2.2'"):
        load_model(path)


def test_what_is_no_model_is_told_apart(tmp_path):
    import keras

    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ModelError, match="This is no model"):
        load_model(tmp_path / "notes.txt")

    tsp.export_saved_model(zoo.mlp(keras), tmp_path / "served")
    shutil.copytree(tmp_path / "served" / "1", tmp_path / "served" / "10")
    with pytest.raises(ModelError, match="give one of them: .*served/10'"):
        load_model(tmp_path / "served")
    assert model_format(tmp_path / "served" / "1") == "saved_model"
    with pytest.raises(ModelError, match="computation only"):
        load_model(tmp_path / "served" / "1")
    (tmp_path / "model.tflite").write_bytes(b"any")
    assert model_format(tmp_path / "model.tflite") == "tflite"
    with pytest.raises(ModelError, match="Give the .keras file"):
        load_model(tmp_path / "model.tflite")
