"""A tf_keras model that was trained with masks is saved as any other."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "masking"))
from masked_nets import X, compiled, fit  # noqa: E402

import tf_spline_prune as tsp  # noqa: E402

TFMOT = tsp.compat.import_tfmot().sparsity.keras
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


def sequence():
    """Layers that know of training, and one that has a cell."""
    L = tf_keras.layers
    inputs = tf_keras.Input((12,))
    x = L.Reshape((4, 3))(inputs)
    x = L.Conv1D(4, 2, name="conv")(x)
    x = L.GRU(4, name="gru")(x)
    x = L.Dropout(0.5, name="drop")(x)
    return tf_keras.Model(inputs, L.Dense(5, name="head")(x))


def wrapped_by_tfmot():
    model = zoo.mlp(tf_keras)
    return TFMOT.prune_low_magnitude(model, TFMOT.ConstantSparsity(0.9, 0))


MODELS = {
    "ours": lambda: tsp.wrap_with_masks(zoo.mlp(tf_keras)),
    "sequence": lambda: tsp.wrap_with_masks(sequence()),
    "tfmot": wrapped_by_tfmot,
}


@pytest.fixture(params=list(MODELS))
def trained(request):
    model = compiled(tf_keras, MODELS[request.param]())
    fit(model, [tsp.MaskPruning(tsp.schedules.OneShot(0.5, step=2))], epochs=1)
    return model


def test_saved_model_after_mask_pruning(trained, tmp_path):
    want = trained.predict(X, verbose=0)
    trained.save(tmp_path / "folder", save_format="tf")
    with TFMOT.prune_scope():
        again = tf_keras.models.load_model(tmp_path / "folder")
    np.testing.assert_allclose(again.predict(X, verbose=0), want, atol=1e-6)
    signature = tf.saved_model.load(str(tmp_path / "folder"))
    (served,) = signature.signatures["serving_default"](tf.constant(X)).values()
    np.testing.assert_allclose(served, want, atol=1e-6)
    assert tsp.weight_sparsity(trained)["total"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "trained, name",
    [
        *(("ours", name) for name in ("m.keras", "m.h5")),
        *(("tfmot", name) for name in ("m.keras", "m.h5")),
        ("sequence", "m.keras"),  # in .h5, TFMOT cannot save two masks of a layer
    ],
    indirect=["trained"],
)
def test_files_after_mask_pruning(trained, tmp_path, name):
    want = trained.predict(X, verbose=0)
    trained.save(tmp_path / name)
    with TFMOT.prune_scope():
        again = tf_keras.models.load_model(tmp_path / name)
    np.testing.assert_allclose(again.predict(X, verbose=0), want, atol=1e-6)


@pytest.mark.parametrize("trained", ["sequence"], indirect=True)
def test_saved_model_of_what_is_stripped(trained, tmp_path):
    plain = tsp.strip_masks(trained)
    plain.save(tmp_path / "plain", save_format="tf")
    again = tf_keras.models.load_model(tmp_path / "plain")
    want = trained.predict(X, verbose=0)
    np.testing.assert_allclose(again.predict(X, verbose=0), want, atol=1e-6)


@pytest.mark.parametrize("trained", ["ours"], indirect=True)
def test_training_goes_on_after_saving(trained, tmp_path):
    trained.save(tmp_path / "folder", save_format="tf")
    before = trained.get_weights()
    fit(trained, [tsp.MaskPruning(tsp.schedules.OneShot(0.5, step=6))], epochs=1)
    moved = zip(before, trained.get_weights(), strict=True)
    assert any((a != b).any() for a, b in moved)
    assert tsp.weight_sparsity(trained)["total"] == pytest.approx(0.5, abs=0.01)
