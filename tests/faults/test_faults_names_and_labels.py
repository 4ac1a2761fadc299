"""Names that TensorFlow does not take, and labels that a terminal would obey."""

import json

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.cli import main

X = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
NAMES = ["my größe", 'x"y', "日本", "_p"]


def odd(K, name):
    """A model with such a name where Keras takes it: tf_keras only for models."""
    layer = name if K.__name__ == "keras" else None
    x = K.Input((6,), name=name)
    inner = K.Sequential(
        [K.Input((6,)), K.layers.Dense(5, name=layer and f"{layer} inside")]
    )
    y = inner(x)
    y = K.layers.Dense(4, activation="relu", name=layer and f"{layer} 1")(y)
    return K.Model(x, K.layers.Dense(3, name=layer and f"{layer} 2")(y), name=name)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_exports(K, tmp_path, name):
    import tensorflow as tf

    model = odd(K, name)
    expected = np.asarray(model(X))
    report = tsp.export_saved_model(model, tmp_path / "net", labels=list("abc"))
    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    (given,) = serve.structured_input_signature[1]
    (found,) = serve(**{given: tf.constant(X)}).values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # What a client has to say instead is told.
    assert given.isascii() and given.isidentifier()
    assert report.renamed[name] == given and given in str(report)
    text = (report.path / "assets.extra" / "metadata.json").read_text("utf-8")
    known = json.loads(text)
    assert known["renamed"] == report.renamed and known["model"]["name"] == name
    # The user's model bears its names as before.
    assert model.name == name and np.array_equal(model(X), expected)


@pytest.mark.parametrize("name", ["my größe"])
def test_files_too(K, tmp_path, name):
    model = odd(K, name)
    expected = np.asarray(model(X))
    for quantize in (None, "int8"):
        report = tsp.export_litert(
            model,
            tmp_path / "net.tflite",
            quantize,
            representative_data={name: np.resize(X, (100, 6))},
        )
        (found,) = tsp.litert.Runner(tmp_path / "net.tflite").run(X)
        most = 0.2 if quantize else 1e-5
        assert np.abs(found - expected).max() <= most * np.abs(expected).max()
        assert name in report.renamed
    import onnxruntime

    report = tsp.export_onnx(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {report.renamed[name]: X})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_names_that_become_the_same(tmp_path):
    import keras

    x = keras.Input((6,), name="x")
    layers = [keras.layers.Dense(2, name=n) for n in ("a b", "a_b", "a-b", "a b_1")]
    model = keras.Model(x, [layer(x) for layer in layers])
    report = tsp.export_saved_model(model, tmp_path / "net")
    assert set(report.renamed) == {"a b", "a_b", "a-b"} | (
        {"a b_1"} & set(report.renamed)
    )
    import tensorflow as tf

    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    found = serve(x=tf.constant(X))
    for layer, y in zip(layers, model(X), strict=True):
        name = report.renamed.get(layer.name, layer.name)
        np.testing.assert_allclose(found[name], y, rtol=1e-5, atol=1e-6)


def test_plain_names_are_not_copied(K):
    from tf_spline_prune.litert import Servable

    model = K.Sequential([K.Input((6,)), K.layers.Dense(2, name="scores")])
    assert Servable(model).model is model and "scores" not in Servable(model).renamed


CONTROLS = [
    "a\0b",
    "\x1b[31mred",
    "tab\there",
    "a\x7f",
    "two\nlines",
    "two\u2028lines",
    "\u202etac",
    "half \ud800",
    "next\x85",
]


@pytest.mark.parametrize("label", CONTROLS, ids=ascii)
@pytest.mark.parametrize("export", [tsp.export_saved_model, tsp.export_litert])
def test_a_label_is_one_line_of_text(tmp_path, label, export):
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"one line.*Received") as caught:
        export(model, tmp_path / "net.tflite", labels=[label, "cat"])
    assert str(caught.value).isprintable()  # it does not do what it warns of
    assert not list(tmp_path.iterdir())


def test_labels_of_many_scripts(tmp_path):
    import keras

    labels = ["Größe", "日本", "می‌خواهم", "👩‍🔬", "a b"]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    tsp.export_litert(model, tmp_path / "net.tflite", labels=labels)
    attached = tsp.litert.read_attachments(tmp_path / "net.tflite")["labels.txt"]
    assert attached.split("\n")[:-1] == labels


def test_a_file_of_labels_in_the_shell(tmp_path, capsys):
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.save(tmp_path / "net.keras")
    file, out = tmp_path / "labels.txt", tmp_path / "net.tflite"
    command = ["export", str(tmp_path / "net.keras"), "--litert", str(out)]
    file.write_bytes(b"cat\0\ndog\n")
    assert main([*command, "--labels", str(file)]) != 0
    assert "\\x00" in capsys.readouterr().err and not out.exists()
    file.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")  # as some editors begin a file
    assert main([*command, "--labels", str(file)]) == 0
    assert tsp.litert.read_attachments(out)["labels.txt"] == "cat\ndog\n"
