"""What a served version holds beside the model: preprocessing, labels, metadata."""

import hashlib
import json
import os

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ExportError

RNG = np.random.default_rng(0)
LABELS = ["ankle boot", "bag", "Mütze", '"quoted"', "e"]


def tiny(K, outputs=5):
    """Four numbers to five scores, and its affine map in float64."""
    i = K.Input((4,), name="x")
    model = zoo.settle(K.Model(i, K.layers.Dense(outputs, name="scores")(i)))
    kernel, bias = (np.float64(w) for w in model.get_weights())
    return model, lambda x: np.float64(x) @ kernel + bias


def ask(path, signature="serving_default", **inputs):
    import tensorflow as tf

    with tf.device("CPU:0"):
        function = tf.saved_model.load(str(path)).signatures[signature]
        tensors = {name: tf.constant(x) for name, x in inputs.items()}
        return {name: y.numpy() for name, y in function(**tensors).items()}


def spec(shape, dtype, name=None):
    import tensorflow as tf

    return tf.TensorSpec((None, *shape), dtype, name)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def metadata(path):
    return json.loads((path / "assets.extra" / "metadata.json").read_text("utf-8"))


def test_raw_bytes_are_scaled_inside_the_signature(K, tmp_path):
    model, affine = tiny(K)
    x = RNG.integers(0, 256, (3, 4)).astype("uint8")
    raw = spec((4,), "uint8", "pixels")
    scale = K.layers.Rescaling(1 / 255, offset=-0.5)
    report = tsp.export_saved_model(model, tmp_path, preprocess=scale, input_spec=raw)
    assert report.max_difference < 1e-5
    close(ask(report.path, pixels=x)["scores"], affine(x / 255 - 0.5))
    served = metadata(report.path)["signatures"]["serving_default"]
    assert served["inputs"] == {"pixels": {"shape": [None, 4], "dtype": "uint8"}}
    assert served["outputs"] == {"scores": {"shape": [None, 5], "dtype": "float32"}}


def test_a_keras_model_tells_what_it_takes(K, tmp_path):
    model, affine = tiny(K)
    photo = K.Input((4, 6), dtype="uint8", name="photo")
    y = K.layers.Rescaling(1 / 255)(photo)
    y = K.layers.Dense(1, use_bias=False)(y)
    shrink = zoo.settle(K.Model(photo, K.layers.Flatten()(y)), seed=3)
    x = RNG.integers(0, 256, (2, 4, 6)).astype("uint8")
    path = tsp.export_saved_model(model, tmp_path, preprocess=shrink).path
    (kernel,) = shrink.get_weights()
    expected = affine(((x / 255) @ np.float64(kernel))[..., 0])
    close(ask(path, photo=x)["scores"], expected)


def test_a_function_takes_what_the_model_takes(K, tmp_path):
    model, affine = tiny(K)
    path = tsp.export_saved_model(model, tmp_path, preprocess=lambda x: 2 * x + 1).path
    x = RNG.standard_normal((3, 4)).astype("float32")
    close(ask(path, x=x)["scores"], affine(2 * np.float64(x) + 1))


def test_an_unbuilt_sequential_and_the_other_flavour(K, tmp_path):
    import keras
    import tf_keras

    other = tf_keras if K is keras else keras
    model, affine = tiny(K)
    steps = other.Sequential([other.layers.Rescaling(0.5), other.layers.Flatten()])
    raw = spec((2, 2), "int32")
    path = tsp.export_saved_model(
        model, tmp_path, preprocess=steps, input_spec=raw
    ).path
    x = np.array([[[1, 2], [3, 4]]], "int32")
    close(ask(path, x=x)["scores"], affine([[0.5, 1, 1.5, 2]]))


def test_an_unbuilt_sequential_takes_what_the_model_takes(K, tmp_path):
    model, affine = tiny(K)
    steps = K.Sequential([K.layers.Rescaling(0.5)])
    path = tsp.export_saved_model(model, tmp_path, preprocess=steps).path
    close(ask(path, x=np.ones((1, 4), "float32"))["scores"], affine([[0.5] * 4]))


def test_words_are_looked_up_inside_the_signature(K, tmp_path):
    model, affine = tiny(K)
    lookup = K.layers.StringLookup(
        vocabulary=["ab", "cd", "ef"], output_mode="multi_hot"
    )
    raw = spec((2,), "string", "words")
    report = tsp.export_saved_model(
        model, tmp_path, preprocess=lookup, input_spec=raw, warmup=2
    )
    found = ask(report.path, words=[["cd", "ef"], ["ab", "none"]])["scores"]
    close(found, affine([[0, 0, 1, 1], [1, 1, 0, 0]]))


def test_dictionaries_in_and_out(K, tmp_path):
    L = K.layers
    ends = {"b": K.Input((3,), name="b"), "a": K.Input((2,), name="a")}
    y = L.Concatenate(name="both")([ends["a"], ends["b"]])
    model = K.Model(ends, {"both": y})

    def halves(raw):
        return {"a": raw["left"][:, :2], "b": raw["right"]}

    raw = {"right": spec((3,), "float32"), "left": spec((5,), "float32")}
    path = tsp.export_saved_model(
        model, tmp_path, preprocess=halves, input_spec=raw
    ).path
    left, right = np.ones((2, 5), "float32"), np.zeros((2, 3), "float32")
    found = ask(path, left=left, right=right)["both"]
    np.testing.assert_array_equal(found, [[1, 1, 0, 0, 0]] * 2)
    with pytest.raises(ValueError, match="cannot be run"):
        tsp.export_saved_model(model, tmp_path, preprocess=lambda raw: raw["a"])


def test_mixed_precision_with_everything(K, tmp_path):
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model, affine = tiny(K)
        scale = K.layers.Rescaling(1 / 256)
    finally:
        K.mixed_precision.set_global_policy("float32")
    x = RNG.integers(0, 256, (3, 4)).astype("uint8")
    report = tsp.export_saved_model(
        model,
        tmp_path,
        preprocess=scale,
        input_spec=spec((4,), "uint8"),
        labels=LABELS,
        warmup=1,
    )
    (scores,) = ask(report.path, x=x).values()
    assert scores.dtype == np.float32
    close(scores, affine(x / 256))  # eight bits are exact in float16


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"preprocess": "rescale"}, TypeError, "of type str"),
        ({"preprocess": lambda x: x.no_such_thing}, ValueError, "no_such_thing"),
        ({"preprocess": lambda x: np.sin(x)}, ValueError, "cannot be run"),
        ({"preprocess": lambda x: x[:, :3]}, ValueError, r"Received: \[\(None, 3\)\]"),
        ({"preprocess": lambda x: [x, x]}, ValueError, "does not give"),
        ({"input_spec": spec((4,), "uint8")}, ValueError, "without one"),
        ({"preprocess": abs, "input_spec": (None, 4)}, TypeError, "TensorSpec"),
        ({"labels": LABELS[:3]}, ValueError, "3 labels"),
        ({"labels": "abcde"}, ValueError, "'abcde'"),
        ({"labels": [*"abcd", "a"]}, ValueError, "no two"),
        ({"labels": [*"abcd", "e\n"]}, ValueError, "one line"),
        ({"labels": [*"abcd", " "]}, ValueError, r"What stands at \[4\] is ' '"),
        ({"labels": [0, 1, 2, 3, 4]}, ValueError, "names"),
        ({"warmup": 0}, ValueError, "Received: 0"),
        ({"warmup": 1001}, ValueError, "1 to 1000"),
        ({"warmup": True}, TypeError, "bool"),
        ({"warmup": "10"}, TypeError, "str"),
        ({"warmup": np.ones((2, 5))}, ValueError, r"\(2, 5\)"),
        ({"warmup": np.ones(4)}, ValueError, r"shape \(4,\)"),
        ({"warmup": np.ones((2, 4), "complex64")}, ValueError, "complex64"),
        ({"warmup": np.ones((0, 4))}, ValueError, "Received: 0"),
        ({"warmup": {"y": np.ones((2, 4))}}, ValueError, r"\['x'\]"),
        ({"plan": "plan.json"}, TypeError, "PruningPlan.load"),
    ],
    ids=[
        *("preprocess-str", "preprocess-raises", "preprocess-numpy", "too-narrow"),
        *("too-many", "spec-alone", "spec-tuple", "few-labels", "label-str"),
        *("label-twice", "label-lines", "label-blank", "label-ints", "warmup-0"),
        *("warmup-1001", "warmup-bool", "warmup-str", "warmup-shape", "warmup-axes"),
        *("warmup-dtype", "warmup-none", "warmup-name", "plan-path"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    arguments, error, said, tmp_path
):
    import keras

    model, _ = tiny(keras)
    with pytest.raises(error, match=said):
        tsp.export_saved_model(model, tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["two-outputs", "sequence"])
def test_labels_need_one_score_each(K, kind, tmp_path):
    i = K.Input((4, 5), name="x")
    flat = K.layers.Flatten()(i)
    ends = {"two-outputs": [K.layers.Dense(5)(flat), flat], "sequence": i}
    outputs = ends[kind] if kind != "sequence" else K.layers.Dense(5)(i)
    with pytest.raises(ValueError, match="score for each"):
        tsp.export_saved_model(K.Model(i, outputs), tmp_path / "new", labels=LABELS)
    assert not (tmp_path / "new").exists()


def test_classes_by_name_best_first(K, tmp_path):
    model, affine = tiny(K)
    path = tsp.export_saved_model(model, tmp_path / "net", labels=LABELS).path
    text = (path / "assets" / "labels.txt").read_text("utf-8")
    assert text.splitlines() == LABELS
    x = RNG.standard_normal((20, 4)).astype("float32")
    expected = affine(x)
    order = np.argsort(-expected, axis=1)
    moved = path.rename(tmp_path / "moved")  # the names travel with the version
    found = ask(moved, "classify", x=x)
    assert set(found) == {"classes", "scores"}
    names = [[word.decode() for word in row] for row in found["classes"]]
    assert names == [[LABELS[i] for i in row] for row in order]
    close(found["scores"], np.take_along_axis(expected, order, axis=1))
    close(ask(moved, x=x)["scores"], expected)
    assert set(metadata(moved)["signatures"]) == {"serving_default", "classify"}


@pytest.mark.parametrize("wrong", ["names", "order"])
def test_classes_are_compared_too(wrong, tmp_path, monkeypatch):
    """The scores of the wrong classes, and the worst class first."""
    import keras
    import tensorflow as tf

    original = tf.math.top_k

    def top_k(scores, k):
        best, order = original(scores, k)
        if wrong == "names":
            return best, order[:, ::-1]
        return best[:, ::-1], order[:, ::-1]

    monkeypatch.setattr(tf.math, "top_k", top_k)
    said = {"names": "the written model differ", "order": "best class first"}[wrong]
    with pytest.raises(ExportError, match=said):
        tsp.export_saved_model(tiny(keras)[0], tmp_path, labels=LABELS)
    assert list(tmp_path.iterdir()) == []


def test_the_metadata(K, tmp_path):
    from importlib.metadata import version

    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    small = plan.apply(model)
    labels, folder = list("abcde"), tmp_path / "net"
    report = tsp.export_saved_model(small, folder, labels=labels, warmup=1, plan=plan)
    found = metadata(report.path)
    file = report.path / "assets.extra" / "metadata.json"
    others = {p for p in report.path.rglob("*") if p.is_file()} - {file}
    assert {report.path / name for name in found["sha256"]} == others
    for name, digest in found["sha256"].items():
        content = (report.path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert tsp.PruningPlan.from_dict(found["plan"]) == plan
    # 12 inputs, what is left of 32 and 24 units, and 5 scores.
    a, b = plan.units["first"][1], plan.units["second"][1]
    assert found["model"]["macs"] == 12 * a + a * b + b * 5
    assert found["model"]["params"] == 12 * a + a * b + b * 5 + a + b + 5
    assert found["max_difference"] == report.max_difference
    assert found["keras"] == {"flavour": K.__name__, "version": K.__version__}
    assert found["tensorflow"] == version("tensorflow")
    assert found["tf_spline_prune"] == tsp.__version__
    again = tsp.export_saved_model(small, folder, labels=labels, warmup=1, plan=plan)
    differ = metadata(again.path)
    del found["sha256"], differ["sha256"]
    assert json.dumps(found) == json.dumps(differ)  # the order of the keys as well
    assert str(tmp_path) not in file.read_text("utf-8")


def test_a_version_that_is_there_is_left_alone(tmp_path):
    import keras

    model, _ = tiny(keras)
    tsp.export_saved_model(model, tmp_path, 3)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="version 3"):
        tsp.export_saved_model(model, tmp_path, 3, labels=LABELS, warmup=1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_that_is_read_only(tmp_path):
    import keras

    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("nothing is read-only for this user")
    with pytest.raises(PermissionError, match="Received"):
        tsp.export_saved_model(tiny(keras)[0], tmp_path, labels=LABELS, warmup=1)
    assert list(tmp_path.iterdir()) == []
