"""Warm-up requests: parsed back as the server reads them, and replayed."""

import sys

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp


def requests(path):
    """Read the logged requests with TensorFlow's and the server's own code."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = path / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request


def replayed(path, model):
    """Answer the requests; give inputs and outputs by name, one pair a request."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    for request in requests(path):
        assert request.model_spec.name == model
        function = loaded.signatures[request.model_spec.signature_name]
        inputs = {n: tf.make_ndarray(x) for n, x in request.inputs.items()}
        outputs = function(**{n: tf.constant(x) for n, x in inputs.items()})
        yield inputs, {n: y.numpy() for n, y in outputs.items()}


def test_random_requests(K, tmp_path):
    model = zoo.mlp(K)
    path = tsp.export_saved_model(model, tmp_path / "net", warmup=3).path
    pairs = list(replayed(path, "net"))
    assert len(pairs) == 3
    for inputs, outputs in pairs:
        (x,), (y,) = inputs.values(), outputs.values()
        assert x.shape == (1, 12) and x.dtype == np.float32
        np.testing.assert_allclose(y, np.asarray(model(x)), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(*(next(iter(p[0].values())) for p in pairs[:2]))


def test_one_request_an_example(K, tmp_path):
    L = K.layers
    one, two = K.Input((4,), name="one"), K.Input((2, 2), name="two")
    model = K.Model([one, two], [L.Dense(3, name="a")(one), L.Flatten(name="b")(two)])
    rng = np.random.default_rng(0)
    given = {"two": rng.random((5, 2, 2)), "one": rng.integers(0, 9, (5, 4))}
    with pytest.raises(ValueError, match="different numbers"):
        tsp.export_saved_model(
            model, tmp_path, warmup={**given, "one": np.ones((4, 4), "float32")}
        )
    given["one"] = given["one"].astype("float32")
    path = tsp.export_saved_model(model, tmp_path / "net", warmup=given).path
    pairs = list(replayed(path, "net"))
    assert len(pairs) == 5
    for i, (inputs, outputs) in enumerate(pairs):
        np.testing.assert_array_equal(inputs["one"], given["one"][i : i + 1])
        expected = given["two"][i : i + 1].astype("float32")
        np.testing.assert_array_equal(inputs["two"], expected)
        np.testing.assert_array_equal(outputs["b"], expected.reshape(1, 4))


def test_a_model_that_fixes_its_batch(tmp_path):
    import keras

    i = keras.Input(batch_shape=(2, 4), name="x")
    model = keras.Model(i, keras.layers.Dense(3)(i))
    x = np.arange(24, dtype="float32").reshape(6, 4)
    path = tsp.export_saved_model(model, tmp_path / "net", warmup=x).path
    found = [inputs["x"] for inputs, _ in replayed(path, "net")]
    np.testing.assert_array_equal(found, x.reshape(3, 2, 4))
    with pytest.raises(ValueError, match="multiple of 2"):
        tsp.export_saved_model(model, tmp_path / "net", warmup=x[:5])


def test_the_package_that_it_needs(tmp_path, monkeypatch):
    import keras

    name = "tensorflow_serving.apis.prediction_log_pb2"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "tf-spline-prune\[serving\]"'):
        tsp.export_saved_model(zoo.mlp(keras), tmp_path / "new", warmup=1)
    assert not (tmp_path / "new").exists()
    tsp.export_saved_model(zoo.mlp(keras), tmp_path / "new", labels=list("abcde"))
