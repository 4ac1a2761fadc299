"""`export_litert`: ways to store numbers, sparse files, fixed batches, refusals."""

import json
import zipfile

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    CalibrationError,
    CalibrationWarning,
    ExportError,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 12)).astype("float32")


def operations(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=plain,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter, [op["op_name"] for op in interpreter._get_ops_details()]


def dense_net(K, inputs=64, hidden=128, outputs=16):
    i = K.Input((inputs,), name="x")
    h = K.layers.Dense(hidden, activation="relu", name="hidden")(i)
    return zoo.settle(K.Model(i, K.layers.Dense(outputs, name="out")(h)))


def thinned(model, granularity, sparsity=0.8):
    return tsp.strip_masks(tsp.prune_once(model, sparsity, granularity=granularity))


@pytest.mark.parametrize(
    ("kind", "most", "less"),
    [("float16", 5e-3, 0.6), ("dynamic", 0.05, 0.4), ("int8", 0.05, 0.4)],
)
def test_smaller_numbers_smaller_files(K, kind, most, less, tmp_path):
    model = dense_net(K)
    data = RNG.standard_normal((200, 64)).astype("float32")
    whole = tsp.export_litert(model, tmp_path / "whole.tflite")
    report = tsp.export_litert(
        model, tmp_path / "small.tflite", kind, representative_data=data
    )
    assert report.quantize == kind and f"({kind})" in str(report)
    assert report.bytes < less * whole.bytes
    assert 1e-6 < report.max_difference < most
    found = tsp.litert.Runner(report.path).predict(data[:50])["out"]
    expected = np.asarray(model(data[:50]))
    assert np.abs(found - expected).max() < most * np.abs(expected).max()


def test_integers_in_and_out(K, tmp_path):
    model = zoo.mlp(K)
    path = tmp_path / "int8.tflite"
    tsp.export_litert(model, path, "int8", representative_data=X, integer_io=True)
    interpreter, _ = operations(path)
    (i,), (o,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert i["dtype"] == o["dtype"] == np.int8
    scale, zero = i["quantization"]
    integers = np.clip(np.round(X[:4] / scale) + zero, -128, 127).astype("int8")
    runner = tsp.litert.Runner(path)
    (raw,) = runner.run(integers)
    assert raw.dtype == np.int8
    scale, zero = o["quantization"]
    by_hand = (raw.astype("float32") - zero) * scale
    (answer,) = runner.predict(X[:4]).values()
    np.testing.assert_allclose(answer, by_hand, rtol=1e-6)
    expected = np.asarray(model(X[:4]))
    assert np.abs(answer - expected).max() < 0.1 * np.abs(expected).max()


def test_scales_of_a_shrunk_model_are_one_a_channel_and_bn_is_folded(K, tmp_path):
    L = K.layers
    i = K.Input((8, 8, 3))
    x = L.Conv2D(16, 3, use_bias=False, name="conv")(i)
    x = L.ReLU()(L.BatchNormalization(name="bn")(x))
    model = zoo.settle(K.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(x))))
    gone = [1, 5, 6]
    small = tsp.remove_units(model, {"conv": gone})
    data = RNG.standard_normal((128, 8, 8, 3)).astype("float32")
    path = tmp_path / "small.tflite"
    tsp.export_litert(small, path, "int8", representative_data=data)
    interpreter, names = operations(path)
    assert not {"MUL", "ADD", "SUB", "RSQRT"} & set(names)
    kernels = [
        detail["quantization_parameters"]
        for detail in interpreter.get_tensor_details()
        if tuple(detail["shape"]) == (13, 3, 3, 3)
    ]
    (scales,) = [kernel["scales"] for kernel in kernels if len(kernel["scales"])]
    bn = {w.name.split("/")[-1].split(":")[0]: np.asarray(w) for w in bn_of(model)}
    factor = bn["gamma"] / np.sqrt(bn["moving_variance"] + 1e-3)
    folded = np.asarray(model.get_layer("conv").kernel) * factor
    expected = np.delete(np.abs(folded).max((0, 1, 2)), gone) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


def bn_of(model):
    return model.get_layer("bn").weights


def test_sparse_only_where_it_is_smaller(K, tmp_path):
    model = dense_net(K)
    plain = tsp.export_litert(model, tmp_path / "a.tflite", sparse=True)
    assert not plain.sparse
    assert plain.bytes == tsp.export_litert(model, tmp_path / "b.tflite").bytes
    holes = thinned(model, "weight")
    sparse = tsp.export_litert(holes, tmp_path / "c.tflite", sparse=True)
    assert sparse.sparse and "sparse" in str(sparse)
    assert sparse.bytes < 0.5 * plain.bytes
    assert sparse.max_difference < 1e-5
    # What is written is the smaller one: here the sparse one would be larger.
    few = thinned(model, "weight", 0.35)
    once = tsp.litert.convert(few, sparse=True)
    twice = tsp.litert.convert(few)
    report = tsp.export_litert(few, tmp_path / "d.tflite", sparse=True)
    smaller = min(once, twice, key=len)
    assert report.path.read_bytes()[: len(smaller)] == smaller


@pytest.mark.parametrize(
    ("granularity", "quantize", "message"),
    [
        ("weight", "dynamic", "does not load files with"),
        ((16, 1), "dynamic", "does not load files with"),
        ("weight", "int8", "blocks of 16"),
        ((4, 1), "int8", "blocks of 16"),
        ((4, 1), "float16", "NaN"),
        ((16, 1), "float16", "NaN"),
    ],
    ids=str,
)
def test_sparse_files_that_are_known_to_be_broken(
    granularity, quantize, message, tmp_path
):
    """And they are: what the check refuses does fail in LiteRT."""
    import keras

    model = thinned(dense_net(keras), granularity)
    data = RNG.standard_normal((128, 64)).astype("float32")
    settings = {"representative_data": data, "sparse": True}
    with pytest.raises(ExportError, match=message):
        tsp.export_litert(model, tmp_path / "new" / "x.tflite", quantize, **settings)
    assert not (tmp_path / "new").exists()
    from tf_spline_prune.litert import _convert as conversion

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "sparse_fault", lambda model, quantize: None)
        with pytest.raises(ExportError, match="cannot run|the written model differ"):
            tsp.export_litert(model, tmp_path / "x.tflite", quantize, **settings)
    assert not (tmp_path / "x.tflite").exists()


@pytest.mark.parametrize(
    ("granularity", "quantize"),
    [("weight", "float16"), ((16, 1), "int8")],
    ids=["float16", "int8"],
)
def test_sparse_files_that_work(granularity, quantize, tmp_path):
    import keras

    model = thinned(dense_net(keras), granularity)
    data = RNG.standard_normal((128, 64)).astype("float32")
    report = tsp.export_litert(
        model, tmp_path / "x.tflite", quantize, representative_data=data, sparse=True
    )
    assert report.sparse and report.max_difference < 0.1


def test_what_travels_with_a_file(K, tmp_path):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    small, path = plan.apply(model), tmp_path / "x.tflite"
    names = [f"class {i}" for i in range(small.output_shape[-1])]
    report = tsp.export_litert(
        small,
        path,
        "int8",
        representative_data=X,
        labels=names,
        plan=plan,
    )
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["labels.txt", "metadata.json"]
        assert archive.read("labels.txt").decode().splitlines() == names
    known = json.loads(tsp.litert.read_attachments(path)["metadata.json"])
    assert known["quantize"] == "int8" and known["max_difference"] == (
        report.max_difference
    )
    assert known["keras"]["version"] == K.__version__
    assert known["model"]["macs"] == tsp.cost(small).macs
    assert tsp.PruningPlan.load(written(known["plan"], tmp_path)) == plan
    (shape,) = [
        end["shape"]
        for end in known["signatures"]["serving_default"]["inputs"].values()
    ]
    assert shape == [None, 12]
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(tsp.litert.convert(small, "int8", representative_data=X))
    assert tsp.litert.read_attachments(bare) == {}
    (one,), (other,) = (
        tsp.litert.Runner(file).predict(X).values() for file in (path, bare)
    )
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="one output of shape"):
        tsp.export_litert(small, tmp_path / "y.tflite", labels=names[:-1])
    with pytest.raises(TypeError, match="PruningPlan"):
        tsp.export_litert(small, tmp_path / "y.tflite", plan="plan.json")
    assert not (tmp_path / "y.tflite").exists()


def written(plan, folder):
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder / "plan.json"


def test_a_fixed_batch(K, tmp_path):
    model = zoo.mlp(K)
    report = tsp.export_litert(model, tmp_path / "x.tflite", batch_size=3)
    assert report.batch_size == 3 and "batch size 3" in str(report)
    runner = tsp.litert.Runner(report.path)
    (found,) = runner.predict(X[:7]).values()
    np.testing.assert_allclose(found, np.asarray(model(X[:7])), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        runner.run(X[:7])


def test_recurrent_layers_forget_between_inferences(K, tmp_path):
    """LiteRT's own LSTM kernel would not: it keeps its state."""
    L = K.layers
    i = K.Input((5, 3))
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(i)
    model = zoo.settle(K.Model(i, L.Dense(2)(L.GRU(4)(x))))
    unroll = [layer.unroll for layer in model._flatten_layers() if is_cell(layer)]
    x = RNG.standard_normal((128, 5, 3)).astype("float32")
    expected = np.asarray(model(x))
    for kind, most in ((None, 1e-5), ("dynamic", 0.05), ("int8", 0.15)):
        report = tsp.export_litert(
            model, tmp_path / "x.tflite", kind, representative_data=x
        )
        assert report.batch_size == (None if kind == "int8" else 1)
        (found,) = tsp.litert.Runner(report.path).predict(x).values()
        assert np.abs(found - expected).max() < most * np.abs(expected).max()
    after = [layer.unroll for layer in model._flatten_layers() if is_cell(layer)]
    assert after == unroll and not any(after)


def is_cell(layer):
    return hasattr(layer, "unroll")


def test_a_loop_that_cannot_be_unrolled(K, tmp_path):
    i = K.Input((None, 3))
    model = zoo.settle(K.Model(i, K.layers.LSTM(4)(i)))
    data = RNG.standard_normal((128, 5, 3)).astype("float32")
    with pytest.raises(ExportError, match="cannot calibrate loops"):
        tsp.export_litert(
            model, tmp_path / "x.tflite", "int8", representative_data=data
        )
    assert not list(tmp_path.iterdir())


def test_an_operation_without_a_counterpart_is_named(K, tmp_path):
    with pytest.raises(ExportError, match="BesselI0e"):
        tsp.export_litert(zoo.without_counterpart(K), tmp_path / "x.tflite")
    assert not list(tmp_path.iterdir())


def test_several_inputs_are_calibrated_by_name(K, tmp_path):
    z, a = K.Input((4,), name="z"), K.Input((3,), name="a")
    L = K.layers
    model = zoo.settle(K.Model([z, a], [L.Dense(3, name="zz")(z), L.Dense(2)(a)]))
    data = {
        "a": 100 * RNG.standard_normal((128, 3)).astype("float32"),
        "z": 0.01 * RNG.standard_normal((128, 4)).astype("float32"),
    }
    report = tsp.export_litert(
        model, tmp_path / "x.tflite", "int8", representative_data=data
    )
    # With the ranges exchanged, one output would be all wrong.
    assert report.max_difference < 0.05
    predict = tsp.litert.Runner(report.path).predict
    with pytest.raises(ValueError, match="must be named"):
        predict(data["a"])
    with pytest.raises(ValueError, match="same number of examples"):
        predict({**data, "a": data["a"][:5]})
    with pytest.raises(ValueError, match="at least one"):
        predict({name: x[:0] for name, x in data.items()})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"quantize": "int4"}, ValueError, "one of"),
        ({"quantize": "int8"}, ValueError, "representative_data"),
        ({"integer_io": True}, ValueError, "8-bit integers"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"tolerance": 0.0}, ValueError, "above 0"),
        ({"representative_data": X[:0]}, CalibrationError, "[Rr]eceived"),
        ({"representative_data": X[:, :5]}, CalibrationError, "shape"),
        ({"representative_data": X * np.nan}, CalibrationError, "finite"),
    ],
    ids=["kind", "none", "io", "batch", "tolerance", "empty", "shape", "nan"],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    settings, error, message, tmp_path
):
    import keras

    folder = tmp_path / "new"
    with pytest.raises(error, match=message):
        tsp.export_litert(zoo.mlp(keras), folder / "x.tflite", **settings)
    assert not folder.exists()


def test_few_representative_inputs(tmp_path):
    import keras

    with pytest.warns(CalibrationWarning, match="20 representative"):
        tsp.export_litert(
            zoo.mlp(keras), tmp_path / "x.tflite", "int8", representative_data=X[:20]
        )


def test_the_tolerance_decides(tmp_path):
    import keras

    path = tmp_path / "x.tflite"
    with pytest.raises(ExportError, match="at most 1e-06"):
        tsp.export_litert(zoo.mlp(keras), path, "float16", tolerance=1e-6)
    assert not path.exists()
    assert tsp.export_litert(zoo.mlp(keras), path, "float16", tolerance=1e-2)
