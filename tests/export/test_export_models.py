"""Both export formats: answers, failures, and that nothing is left behind."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ExportError, FlavourError, ModelError


def to_saved_model(model, folder):
    return tsp.export_saved_model(model, folder)


def to_litert(model, folder):
    return tsp.export_litert(model, folder / "model.tflite")


both = pytest.mark.parametrize("export", [to_saved_model, to_litert])


def serve(path, **inputs):
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    tensors = {name: tf.constant(x) for name, x in inputs.items()}
    return {name: y.numpy() for name, y in signature(**tensors).items()}


def everything(folder):
    return sorted(p.name for p in folder.rglob("*"))


def python(code, *arguments):
    """Run code in a process that knows nothing of this one."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", [zoo.resnet, zoo.nested, zoo.subclassed])
def test_saved_model_answers_as_keras_does(K, build, tmp_path):
    model = build(K)
    report = tsp.export_saved_model(model, tmp_path / "served")
    assert report.path == tmp_path / "served" / "1"
    assert (report.path / "saved_model.pb").is_file()
    assert report.max_difference < 1e-5
    assert report.latency_us is None
    files = [p for p in report.path.rglob("*") if p.is_file()]
    assert report.bytes == sum(p.stat().st_size for p in files)
    (name,) = tsp.litert.Servable(model).inputs
    for batch in (1, 5):
        x = np.random.default_rng(batch).standard_normal((batch, *zoo.SHAPE))
        x = x.astype("float32")
        (found,) = serve(report.path, **{name: x}).values()
        np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.both_flavours
def test_litert_file_answers_as_keras_does(K, tmp_path):
    model = zoo.resnet(K)
    report = to_litert(model, tmp_path)
    assert report.path == tmp_path / "model.tflite"
    assert report.bytes == report.path.stat().st_size
    assert 0 < report.gzip_bytes < report.bytes
    assert report.max_difference < 1e-5
    assert report.latency_us > 0
    x = np.random.default_rng(1).standard_normal((3, *zoo.SHAPE)).astype("float32")
    (found,) = tsp.litert.Runner(report.path).run(x)
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-4, atol=1e-4)
    for part in ("model.tflite", f"{report.bytes:,} bytes", "per inference"):
        assert part in str(report)
    assert everything(tmp_path) == ["model.tflite"]


@pytest.mark.both_flavours
def test_both_formats_load_without_this_package_or_custom_objects(K, tmp_path):
    class Doubled(K.layers.Dense):
        def call(self, x):
            return 2.0 * super().call(x)

    x = np.random.default_rng(2).standard_normal((6, 12)).astype("float32")
    i = K.Input((12,), name="pixels")
    h = K.layers.Dense(8, activation="relu")(i)
    model = zoo.settle(K.Model(i, Doubled(3, name="scores")(h)))
    (w, b), (v, c) = (layer.get_weights() for layer in model.layers[1:])
    expected = 2 * (np.maximum(np.float64(x) @ w + b, 0) @ np.float64(v) + c)
    saved = to_saved_model(model, tmp_path / "served").path
    lite = to_litert(model, tmp_path).path
    np.savez(tmp_path / "given.npz", x=x, expected=expected)
    done = python(
        """
        import sys
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        def loaded():
            return {name.partition(".")[0] for name in sys.modules}

        saved, lite, given = sys.argv[1:]
        given = np.load(given)
        x, expected = given["x"], given["expected"]
        runner = Interpreter(lite).get_signature_runner("serving_default")
        found = runner(pixels=x)["scores"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert not loaded() & {"tf_spline_prune", "tensorflow", "keras", "tf_keras"}

        import tensorflow as tf

        signature = tf.saved_model.load(saved).signatures["serving_default"]
        found = signature(pixels=tf.constant(x))["scores"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert not loaded() & {"tf_spline_prune"}
        """,
        saved,
        lite,
        tmp_path / "given.npz",
    )
    assert done.returncode == 0, done.stderr


def test_several_inputs_and_outputs_keep_their_names(K, tmp_path):
    L = K.layers
    z, a = K.Input((4,), name="z"), K.Input((4,), name="a")
    zz, aa = L.Dense(3, name="zz"), L.Dense(3, name="aa")
    model = zoo.settle(K.Model([z, a], [zz(z), aa(a)]))
    x, y = np.random.default_rng(0).standard_normal((2, 5, 4)).astype("float32")
    found = serve(to_saved_model(model, tmp_path).path, z=x, a=y)
    assert set(found) == {"zz", "aa"}
    for layer, given in ((zz, x), (aa, y)):
        kernel, bias = layer.get_weights()
        expected = given @ kernel + bias
        np.testing.assert_allclose(found[layer.name], expected, rtol=1e-4, atol=1e-5)
    assert to_litert(model, tmp_path).max_difference < 1e-5


@both
def test_mixed_precision_is_exported_in_float32(K, export, tmp_path):
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = zoo.nested(K)
    finally:
        K.mixed_precision.set_global_policy("float32")
    before = [np.array(w) for w in model.get_weights()]
    report = export(model, tmp_path)
    assert report.max_difference < 1e-5
    if report.path.is_dir():
        (name,) = tsp.litert.Servable(model).inputs
        (found,) = serve(
            report.path, **{name: np.ones((2, *zoo.SHAPE), "float32")}
        ).values()
        assert found.dtype == np.float32
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    import keras

    model, folder = zoo.mlp(keras), tmp_path / "served"
    assert tsp.export_saved_model(model, folder).path.name == "1"
    assert tsp.export_saved_model(model, folder, version=7).path.name == "7"
    (folder / "notes").mkdir()
    kept = (folder / "7" / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="version 7"):
        tsp.export_saved_model(model, folder, version=7)
    assert (folder / "7" / "saved_model.pb").read_bytes() == kept
    assert tsp.export_saved_model(model, folder).path.name == "8"
    assert sorted(p.name for p in folder.iterdir()) == ["1", "7", "8", "notes"]


@pytest.mark.parametrize("version", [-1, 1.0, "1", True])
def test_a_version_is_a_number(version, tmp_path):
    import keras

    with pytest.raises(ValueError, match="Received"):
        tsp.export_saved_model(zoo.mlp(keras), tmp_path, version=version)
    assert everything(tmp_path) == []


def test_two_exports_into_one_folder_do_not_mix(K, tmp_path):
    one, two = zoo.mlp(K), zoo.settle(zoo.mlp(K), seed=9)
    x = np.ones((2, 12), "float32")
    for model, name in ((one, "one.tflite"), (two, "two.tflite")):
        tsp.export_litert(model, tmp_path / name)
        tsp.export_saved_model(model, tmp_path)
    for model, name, version in ((one, "one.tflite", "1"), (two, "two.tflite", "2")):
        expected = np.asarray(model(x))
        (found,) = tsp.litert.Runner(tmp_path / name).run(x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        (end,) = tsp.litert.Servable(model).inputs
        (found,) = serve(tmp_path / version, **{end: x}).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    tsp.export_litert(two, tmp_path / "one.tflite")  # a file is replaced
    (found,) = tsp.litert.Runner(tmp_path / "one.tflite").run(x)
    np.testing.assert_allclose(found, np.asarray(two(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.both_flavours
@both
def test_a_model_that_answers_differently_is_not_kept(K, export, tmp_path):
    class Moody(K.layers.Layer):
        """Computes something else at every call, as no written model can."""

        calls = 0

        def call(self, x):
            self.calls += 1
            return x + float(self.calls)

    i = K.Input((4,))
    model = K.Model(i, Moody()(i))
    (tmp_path / "model.tflite").write_bytes(b"earlier")
    with pytest.raises(ExportError, match="differently from call to call.*frozen"):
        export(model, tmp_path)
    assert everything(tmp_path) == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_bytes() == b"earlier"


@both
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite(K, export, value, tmp_path, monkeypatch):
    """NaN from the written model alone is a difference; on both sides it is not."""
    from tf_spline_prune.export import _comparison as comparison

    found = {"y": np.array([[1.0, value], [2.0, 3.0]])}
    assert comparison.relative_difference(found["y"], found["y"]) == 0.0
    assert not comparison.relative_difference(found["y"], np.ones((2, 2))) <= 1e-4
    original = tsp.litert.Servable.answers

    def broken(self, inputs, count):
        return [
            {name: np.where(y > y.min(), y, value) for name, y in outputs.items()}
            for outputs in original(self, inputs, count)
        ]

    monkeypatch.setattr(tsp.litert.Servable, "answers", broken)
    with pytest.raises(ExportError, match="differently"):
        export(zoo.mlp(K), tmp_path)
    assert everything(tmp_path) == []


def broken_weights(K):
    model = zoo.mlp(K)
    model.layers[1].bias.assign(np.full(24, np.nan, "float32"))
    return model


@both
@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda K: K.Sequential([K.layers.Dense(3)]), ModelError),
        (lambda K: K.layers.Dense(3), FlavourError),
        (lambda K: "model.keras", FlavourError),
        (broken_weights, ModelError),
    ],
    ids=["unbuilt", "layer", "path", "nan"],
)
def test_wrong_models_are_refused_before_anything_is_written(
    K, export, build, error, tmp_path
):
    folder = tmp_path / "new"
    with pytest.raises(error):
        export(build(K), folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["model", "model.lite", "model.keras", "m.tflite/x"])
def test_a_litert_file_has_its_ending(name, tmp_path):
    import keras

    with pytest.raises(ValueError, match="tflite"):
        tsp.export_litert(zoo.mlp(keras), tmp_path / name)
    assert everything(tmp_path) == []


@both
def test_a_folder_that_cannot_be_written_to(export, tmp_path):
    import keras

    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(OSError, match="Received"):
        export(zoo.mlp(keras), tmp_path / "file")
    assert everything(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"in the way"


@pytest.mark.slow
def test_a_full_disk_leaves_earlier_exports_alone(tmp_path):
    import keras

    to_saved_model(zoo.mlp(keras), tmp_path)
    to_litert(zoo.mlp(keras), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = python(
        """
        import pathlib, resource, signal, sys
        import keras
        import tf_spline_prune as tsp

        folder = pathlib.Path(sys.argv[1])
        model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512)])
        content = tsp.litert.convert(model)
        limit = len(content) // 2
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        for export, place in (
            (tsp.export_saved_model, folder),
            (tsp.export_litert, folder / "model.tflite"),
        ):
            try:
                export(model, place)
            except (OSError, tsp.errors.ExportError) as error:
                print("refused", repr(error))
        # The converter itself needs room; with enough of that, the file alone fails.
        tsp.export._export_litert.convert = lambda *_, **__: content
        try:
            tsp.export_litert(model, folder / "model.tflite")
        except OSError as error:
            print("refused", repr(error))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 3, done.stdout
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "model.tflite"]


def test_exports_are_silent(K, tmp_path, capfd, recwarn):
    model = zoo.mlp(K)
    to_saved_model(model, tmp_path)
    to_litert(model, tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    # What TensorFlow's C++ logs is the affair of TF_CPP_MIN_LOG_LEVEL.
    assert "Saved artifact" not in err and "Assets written" not in err
    assert not recwarn.list
