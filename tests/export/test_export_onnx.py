"""`export_onnx`: answers of ONNX Runtime, names, metadata, failures."""

import json
import sys

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ExportError, ModelError


def run(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [end.name for end in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_onnx_answers_as_keras_does(K, tmp_path):
    import onnx

    z, a = K.Input((4,), name="z"), K.Input((6, 3), name="a")
    L = K.layers
    wide = L.Dense(12, activation="relu", name="wide")(z)
    outputs = [L.Dense(3, name="zz")(wide), L.GRU(5, name="aa")(a)]
    model = zoo.settle(K.Model([z, a], outputs))
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    small = plan.apply(model)
    report = tsp.export_onnx(small, tmp_path / "new" / "x.onnx", plan=plan)
    assert report.max_difference < 1e-5
    rng = np.random.default_rng(0)
    given = {
        "a": rng.standard_normal((5, 6, 3)).astype("float32"),
        "z": rng.standard_normal((5, 4)).astype("float32"),
    }
    found = run(report.path, given)
    zz, aa = (np.asarray(y) for y in small([given["z"], given["a"]]))
    np.testing.assert_allclose(found["zz"], zz, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["aa"], aa, rtol=1e-4, atol=1e-5)
    (entry,) = onnx.load(report.path).metadata_props
    known = json.loads(entry.value)
    assert known["plan"] == json.loads(json.dumps(plan.to_dict()))
    outputs = known["signatures"]["serving_default"]["outputs"]
    assert outputs["aa"] == {"shape": [None, aa.shape[1]], "dtype": "float"}


def test_masks_and_mixed_precision_do_not_reach_onnx(K, tmp_path):
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = zoo.resnet(K)
    finally:
        K.mixed_precision.set_global_policy("float32")
    masked = tsp.prune_once(model, 0.5)
    report = tsp.export_onnx(masked, tmp_path / "x.onnx")
    (end,) = tsp.litert.Servable(model).inputs
    x = np.random.default_rng(0).standard_normal((3, *zoo.SHAPE)).astype("float32")
    (found,) = run(report.path, {end: x}).values()
    plain = tsp.litert.Servable(tsp.strip_masks(masked))
    (expected,) = plain.predict({end: x}).values()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_onnx_lacks_is_named_and_nothing_stays(K, tmp_path):
    with pytest.raises(ExportError, match="BesselI0e"):
        tsp.export_onnx(zoo.without_counterpart(K), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_input(tmp_path, monkeypatch):
    import keras

    with pytest.raises(ValueError, match="end in `.onnx`"):
        tsp.export_onnx(zoo.mlp(keras), tmp_path / "x.tflite")
    with pytest.raises(ModelError):
        tsp.export_onnx(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "x.onnx")
    with pytest.raises(TypeError, match="PruningPlan"):
        tsp.export_onnx(zoo.mlp(keras), tmp_path / "x.onnx", plan="plan.json")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"tf-spline-prune\[onnx\]"):
        tsp.export_onnx(zoo.mlp(keras), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
