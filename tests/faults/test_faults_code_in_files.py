"""No file runs code, unless `safe_mode=False` says so.

Every payload leaves a mark: a file of the name that it is given. So what is refused
is seen not to have run, and what runs without safe mode is seen to be a payload.
"""

import importlib
import inspect
import json
import os
import sys
import zipfile

import h5py
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.cli._entry import main
from tf_spline_prune.compat import check_saved_model, load_model
from tf_spline_prune.compat.files._foreign_code import foreign_code
from tf_spline_prune.compat.files._model_files import ModelFile
from tf_spline_prune.errors import ModelError

pytestmark = pytest.mark.both_flavours

SAVED = "ignore:You are saving your model as an HDF5:UserWarning"


def plain(K, *layers):
    """A model of one layer, named `it`, and what a test adds."""
    x = inputs = K.Input((2,), name="given")
    for layer in (K.layers.Dense(2, name="it"), *layers):
        x = layer(x)
    return K.Model(inputs, x)


def changed(model, path, change, **dumped):
    """Save a model, and change the description in its file."""
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config, **dumped)
        return path
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config, **dumped).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def entry(config, name="it"):
    """The description of a layer."""
    (found,) = [e for e in config["config"]["layers"] if e["config"]["name"] == name]
    return found


def called_on(constant, module, class_name, config):
    """Change a description of tf_keras: one layer more, called on a constant."""
    more = {
        "module": module,
        "class_name": class_name,
        "config": {"name": "more"} | config,
        "registered_name": None,
        "name": "more",
        "inbound_nodes": constant,
    }
    return lambda config: config["config"]["layers"].append(more)


def constant(value, **kwargs):
    return [[["_CONSTANT_VALUE", -1, value, kwargs]]]


def refused(path, what, mark):
    """Assert that a file is refused by name, and that nothing ran."""
    with pytest.raises(ModelError, match=what) as caught:
        load_model(path)
    assert f"Received: {str(path)!r}" in str(caught.value)
    assert main(["inspect", str(path)]) != 0
    assert not mark.exists()


def runs_unsafely(path, mark):
    """Assert that the payload is real."""
    try:
        load_model(path, safe_mode=False)
    except ModelError:  # what it made is no model, but it ran
        pass
    assert mark.exists()


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


@pytest.fixture
def tfk():
    import tf_keras

    return tf_keras


# Python code in the file.


def marking(tfk, mark):
    """A Lambda layer that leaves its mark."""
    return tfk.layers.Lambda(
        eval(f"lambda x: (open({str(mark)!r}, 'w').close(), x)[1]")
    )


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize(
    "spelling", ["as saved", "no spaces", "escaped letter", "a second key"]
)
def test_a_lambda_is_seen_however_the_json_is_written(tfk, spelling, tmp_path, mark):
    separators = (",", ":") if spelling == "no spaces" else None
    model = plain(tfk, marking(tfk, mark))
    mark.unlink()
    path = changed(model, tmp_path / "e.h5", lambda c: None, separators=separators)
    with h5py.File(path, "a") as file:
        config = file.attrs["model_config"]
        if spelling == "escaped letter":
            config = config.replace('"lambda"', '"lambd\\u0061"').replace(
                "function_type", "function_typ\\u0065"
            )
        if spelling == "a second key":
            config = config.replace(
                '"function_type": ', '"function_type": "raw", "function_type": '
            )
        file.attrs["model_config"] = config
    refused(path, "Python code that the file carries", mark)
    runs_unsafely(path, mark)


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_lambda_is_seen_wherever_it_stands(K, ending, tmp_path, mark):
    def change(config):
        entry(config)["config"]["activation"] = {
            "class_name": "__lambda__",
            "config": {"value": ["4wAA", None, None]},
        }

    path = changed(plain(K), tmp_path / f"m{ending}", change)
    refused(path, "Python code that the file carries", mark)


@pytest.mark.filterwarnings(SAVED)
def test_a_lambda_is_named(K, tmp_path):
    layers = [K.Input((2,)), K.layers.Lambda(lambda x: 2 * x, name="twice")]
    K.Sequential(layers).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="in the Lambda layer 'twice'"):
        load_model(tmp_path / "m.keras")


def test_a_lambda_of_a_folder_is_seen(tfk, tmp_path, mark):
    plain(tfk, marking(tfk, mark)).save(tmp_path / "folder", save_format="tf")
    mark.unlink()
    refused(tmp_path / "folder", "Python code that the file carries", mark)
    runs_unsafely(tmp_path / "folder", mark)


# Functions of other modules.


def test_a_function_of_another_module_is_not_called(tfk, tmp_path, mark):
    function = {"module": "os", "class_name": "function", "config": "system"}
    change = called_on(
        constant(f"touch {mark}"),
        "keras.layers",
        "Lambda",
        {
            "function": {**function, "registered_name": "system"},
            "function_type": "function",
            "module": "os",
            "output_shape": None,
            "output_shape_type": "raw",
            "output_shape_module": None,
            "arguments": {},
        },
    )
    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, r"needs 'system' \(of the module 'os'\)", mark)
    runs_unsafely(path, mark)


def test_a_function_of_python_is_not_called(tfk, tmp_path, mark):
    change = called_on(
        constant(f"open({str(mark)!r}, 'w').close()"),
        "keras.layers",
        "Activation",
        {
            "activation": {
                "module": "builtins",
                "class_name": "function",
                "config": "eval",
                "registered_name": None,
            }
        },
    )
    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, r"needs 'eval' \(of the module 'builtins'\)", mark)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras.models", "load_model"),
        ("keras.utils", "plot_model"),
        ("keras.backend", "clear_session"),
    ],
)
def test_not_all_of_keras_may_be_called(K, module, name, tmp_path, mark):
    reference = {"module": module, "class_name": "function", "config": name}

    def change(config):
        entry(config)["config"]["activation"] = {**reference, "registered_name": name}

    path = changed(plain(K), tmp_path / "m.keras", change)
    refused(path, f"{module}.{name}", mark)


@pytest.mark.parametrize("where", ["loss", "metrics", "optimizer"])
def test_the_training_is_looked_at_too(K, where, tmp_path, mark):
    model = plain(K)
    model.compile("sgd", "mse")
    reference = {"module": "os", "class_name": "function", "config": "system"}

    def change(config):
        config["compile_config"][where] = {**reference, "registered_name": "system"}

    path = changed(model, tmp_path / "m.keras", change)
    refused(path, r"needs 'system' \(of the module 'os'\)", mark)


# Classes, and what importing them does.


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("model", "Layer"),
        ("model", "Adam"),  # registered by tf_keras, with its package
        ("model", "TensorShape"),  # a plain value elsewhere
        ("layer", "Layer"),
        ("initializer", "Zeros"),
    ],
)
def test_no_module_is_imported_because_a_file_names_it(
    K, where, name, tmp_path, mark, monkeypatch
):
    (tmp_path / "lying_beside.py").write_text(f"open({str(mark)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    reference = {
        "module": "lying_beside",
        "class_name": name,
        "config": {},
        "registered_name": name,
    }

    def change(config):
        if where == "initializer":
            entry(config)["config"]["kernel_initializer"] = reference
            return
        changed = entry(config) if where == "layer" else config
        changed.update(reference | {"config": changed["config"]})

    path = changed(plain(K), tmp_path / "m.keras", change)
    refused(path, r"needs .* \(of the module 'lying_beside'\)", mark)
    if K.__name__ == "tf_keras" and where == "model":
        runs_unsafely(path, mark)
    sys.modules.pop("lying_beside", None)


def test_layers_that_hold_other_code_are_refused(tmp_path, mark):
    import keras

    def change(config):
        it = entry(config)
        it["class_name"], it["config"]["filepath"] = "TFSMLayer", "folder"

    path = changed(plain(keras), tmp_path / "m.keras", change)
    refused(path, "a class that can hold any code", mark)


def test_a_layer_does_not_bring_the_graph_of_another_folder(tfk, tmp_path, mark):
    import tensorflow as tf
    import tf_keras.src.export.export_lib  # noqa: F401 -- as what exports does

    module = tf.Module()
    module.serve = tf.function(lambda x: x, [tf.TensorSpec((None, 2))])
    tf.saved_model.save(module, tmp_path / "beside")

    def change(config):
        entry(config).update(
            module="tf_keras.src.export.export_lib",
            class_name="ReloadedLayer",
            config={"name": "it", "filepath": str(tmp_path / "beside")},
            build_config=None,
        )

    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, "a class that can hold any code", mark)


def test_a_module_is_not_mixed_into_keras(tfk, tmp_path, mark):
    from tf_keras.src.layers.rnn import cell_wrappers

    def change(config):
        cell = tfk.saving.serialize_keras_object(tfk.layers.LSTMCell(2))
        entry(config).update(
            module="tf_keras.src.layers.rnn.cell_wrappers",
            class_name="DropoutWrapper",
            config={
                **{"name": "it", "cell": cell, "dropout_fn": None},
                **{"dropout_fn_type": "function", "dropout_fn_module": "os"},
            },
        )

    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, "call a function of the module 'os'", mark)
    assert not hasattr(cell_wrappers, "getpid")


# Operations of TensorFlow.


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_an_operation_that_writes_a_file_is_refused(tfk, ending, tmp_path, mark):
    change = called_on(
        [["_CONSTANT_VALUE", -1, str(mark), {"contents": "x"}]],
        "tf_keras.src.layers.core.tf_op_layer",
        "TFOpLambda",
        {"function": "io.write_file"},
    )
    path = changed(plain(tfk), tmp_path / f"m{ending}", change)
    refused(path, r"call `tf.io.write_file`", mark)
    runs_unsafely(path, mark)


@pytest.mark.parametrize(
    "symbol",
    ["io.read_file", "print", "py_function", "summary.write", "compat.v1.py_func"]
    + ["keras.utils.get_file", "raw_ops.WriteFile", "io.gfile.remove", "no.such"]
    + ["raw_ops.ImmutableConst"],  # of array_ops, and reads a file
)
def test_only_functions_that_compute_may_be_named(tfk, symbol, tmp_path, mark):
    change = called_on(
        constant("x"),
        "tf_keras.src.layers.core.tf_op_layer",
        "SlicingOpLambda",
        {"function": symbol},
    )
    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, f"call `tf.{symbol}`", mark)


def test_a_written_out_operation_is_refused(tfk, tmp_path, mark):
    node = {"name": "w", "op": "WriteFile", "input": ["a", "b"]}
    change = called_on(
        [[["it", 0, 0, {}]]],
        "tf_keras.src.engine.base_layer",
        "TensorFlowOpLayer",
        {"node_def": node, "constants": {"0": str(mark), "1": "x"}},
    )
    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, "the TensorFlow operation WriteFile", mark)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("InstanceMethod", {"attr_name": "__reduce__"}),
        ("InstanceProperty", {"attr_name": "__class__"}),
        ("ClassMethod", {"cls_symbol": "io.TFRecordWriter", "method_name": "write"}),
        ("ClassMethod", {"cls_symbol": "RaggedTensor", "method_name": "mro"}),
    ],
)
def test_methods_of_anything_are_refused(tfk, kind, config, tmp_path, mark):
    home = "tf_keras.src.layers.core.tf_op_layer"
    change = called_on(constant("x"), home, kind, config)
    path = changed(plain(tfk), tmp_path / "m.keras", change)
    refused(path, "call the method", mark)


# The graph of a SavedModel.


def writing(mark):
    """Something that writes a file when a SavedModel that holds it is loaded."""
    import tensorflow as tf

    class Writing(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(dtype="float32", shape=[], shared_name="w")

        def _initialize(self):
            tf.io.write_file(str(mark), "x")

    return Writing()


def test_a_graph_that_writes_a_file_is_refused(tfk, tmp_path, mark):
    model = plain(tfk)
    model.more = writing(mark)
    model.more.resource_handle  # noqa: B018 -- which makes it
    model.save(tmp_path / "folder", save_format="tf")
    mark.unlink(missing_ok=True)
    refused(tmp_path / "folder", "the TensorFlow operation WriteFile", mark)
    runs_unsafely(tmp_path / "folder", mark)


def test_a_graph_is_looked_at_before_it_is_compared(tmp_path, mark):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    plain(keras).save(tmp_path / "m.keras")

    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), name="given")])
        def serve(self, x):
            with tf.control_dependencies([tf.io.write_file(str(mark), "x")]):
                return {"it": tf.identity(x)}

    served = Served()
    tf.saved_model.save(served, tmp_path / "1", signatures=served.serve)
    arguments = ["compare", str(tmp_path / "m.keras"), str(tmp_path / "1")]
    assert main(arguments) != 0
    assert not mark.exists()
    main([*arguments, "--unsafe"])
    assert mark.exists()


def test_a_graph_that_maps_a_file_is_refused(tmp_path, mark):
    import keras
    import tensorflow as tf

    plain(keras).save(tmp_path / "m.keras")
    secret = tmp_path / "secret"
    np.arange(2, dtype="float32").tofile(secret)

    @tf.function(input_signature=[tf.TensorSpec((None, 2), name="given")])
    def serve(x):
        found = tf.raw_ops.ImmutableConst(
            dtype="float32", shape=[2], memory_region_name=str(secret)
        )
        return {"it": x * 0 + found}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, tmp_path / "1", signatures=serve)
    assert main(["compare", str(tmp_path / "m.keras"), str(tmp_path / "1")]) != 0
    with pytest.raises(ModelError, match="the TensorFlow operation ImmutableConst"):
        check_saved_model(tmp_path / "1")


@pytest.mark.parametrize("kind", ["old", "two graphs", "objects beside"])
def test_a_checkpoint_is_not_written_by_what_answers(kind, tmp_path, mark):
    import keras
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    keras.utils.set_random_seed(0)
    plain(keras).save(tmp_path / "m.keras")

    @tf.function(input_signature=[tf.TensorSpec((None, 2))])
    def saving(x):
        write = tf.raw_ops.SaveV2(
            prefix=str(mark), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
        )
        with tf.control_dependencies([write]):
            return tf.identity(x)

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder("float32", (None, 2))
        answer = saving(given)
        v1.saved_model.simple_save(
            session, str(tmp_path / "1"), {"given": given}, {"it": answer}
        )
    if kind != "old":
        path = tmp_path / "1" / "saved_model.pb"
        whole = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        whole.meta_graphs[0].object_graph_def.nodes.add().user_object.identifier = "x"
        if kind == "two graphs":
            more = whole.meta_graphs.add()
            more.CopyFrom(whole.meta_graphs[0])
            more.meta_info_def.tags[:] = ["another"]
        path.write_bytes(whole.SerializeToString())
    arguments = ["compare", str(tmp_path / "m.keras"), str(tmp_path / "1")]
    written = mark.with_name("mark.index")
    assert main(arguments) != 0
    assert not written.exists()
    main([*arguments, "--unsafe"])
    assert written.exists() == (kind == "old")  # TensorFlow takes the others amiss


# Other files.


@pytest.mark.parametrize("kind", ["a folder", "itself", "a device", "a pipe"])
def test_a_folder_does_not_lead_elsewhere(tfk, kind, tmp_path, mark):
    plain(tfk).save(tmp_path / "folder", save_format="tf")
    more = tmp_path / "folder" / "assets" / "more"
    if kind == "a pipe":
        os.mkfifo(more)
    else:
        (tmp_path / "elsewhere").mkdir()
        target = {"a folder": tmp_path / "elsewhere", "itself": ".."}
        more.symlink_to(target.get(kind, "/dev/zero"))
    refused(tmp_path / "folder", "links to other folders, devices or pipes", mark)


def test_a_folder_of_linked_files_is_taken(tfk, tmp_path):
    model = plain(tfk)
    model.save(tmp_path / "folder", save_format="tf")
    graph = tmp_path / "folder" / "saved_model.pb"
    graph.rename(tmp_path / "blob")
    graph.symlink_to("../blob")
    loaded = load_model(tmp_path / "folder")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.filterwarnings(SAVED)
def test_weights_that_lie_in_another_file_are_refused(K, tmp_path, mark):
    secret = tmp_path / "secret.bin"
    np.arange(4, dtype="float32").tofile(secret)
    path = tmp_path / "m.h5"
    plain(K).save(path)
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, thing: names.append(name))
        (kernel,) = [n for n in names if getattr(file[n], "shape", None) == (2, 2)]
        del file[kernel]
        file.create_dataset(kernel, (2, 2), "float32", external=[(secret, 0, 16)])
    refused(path, "read the file .*secret.bin", mark)
    if K.__name__ == "tf_keras":  # Keras 3 refuses it by itself
        assert load_model(path, safe_mode=False).get_weights()[0][1, 1] == 3


def test_a_vocabulary_is_not_read_from_another_file(K, tmp_path, mark):
    (tmp_path / "words").write_text("one\ntwo\n")
    reference = {
        "module": "keras.layers",
        "class_name": "StringLookup",
        "config": {"name": "it", "vocabulary": str(tmp_path / "words")},
        "registered_name": None,
    }
    path = changed(plain(K), tmp_path / "m.keras", lambda c: entry(c).update(reference))
    refused(path, "read the file .*words' for a vocabulary", mark)

    words = K.Sequential([K.Input((1,), dtype="string")])
    words.add(K.layers.StringLookup(vocabulary=["one", "two"]))
    words.save(path)
    assert load_model(path).layers[-1].get_vocabulary() == ["[UNK]", "one", "two"]


# Files that say two things.


def test_what_cannot_be_read_whole_is_refused(K, tmp_path, mark):
    path = tmp_path / "m.keras"
    plain(K).save(path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with pytest.warns(UserWarning, match="Duplicate"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("config.json", config)
    refused(path, "broken, or no model", mark)

    version = json.dumps({"keras_version": K.__version__})
    for levels in (400, 100_000):
        deep = tmp_path / "deep.keras"
        with zipfile.ZipFile(deep, "w") as archive:
            archive.writestr("metadata.json", version)
            archive.writestr("config.json", "[" * levels + "]" * levels)
        refused(deep, "broken, or no model", mark)


def test_a_folder_with_two_graphs_is_refused(tfk, tmp_path, mark):
    plain(tfk).save(tmp_path / "folder", save_format="tf")
    (tmp_path / "folder" / "saved_model.cpb").write_bytes(b"")
    refused(tmp_path / "folder", "another graph", mark)


# What is no code is no alarm.


def test_names_that_are_the_user_s_are_taken(K, tmp_path):
    @K.saving.register_keras_serializable("faults")
    def doubled(x):
        return 2 * x

    def halved(x):
        return x / 2

    model = plain(
        K,
        K.layers.Dense(2, activation=doubled),
        K.layers.Dense(2, activation=halved),
    )
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="needs 'halved'"):
        load_model(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", {"halved": halved})
    x = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert tsp.cost(loaded) == tsp.cost(model)


def test_ordinary_graphs_are_taken(tfk, tmp_path):
    L = tfk.layers
    words = L.TextVectorization(max_tokens=9, output_sequence_length=4)
    words.adapt(["a b", "b c"])
    x = inputs = tfk.Input((), dtype="string")
    x = L.GlobalMaxPooling1D()(L.Embedding(9, 3)(words(x)))
    model = tfk.Model(inputs, L.Dense(1)(L.BatchNormalization()(L.Dropout(0.5)(x))))
    model.save(tmp_path / "folder", save_format="tf")
    given = np.array(["a c", "b"])
    expected = model.predict(given, verbose=0)
    loaded = load_model(tmp_path / "folder")
    np.testing.assert_allclose(loaded.predict(given, verbose=0), expected, rtol=1e-6)


@pytest.mark.filterwarnings(SAVED)
@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
def test_ordinary_operations_of_tensorflow_are_taken(tfk, ending, tmp_path):
    import tensorflow as tf

    x = inputs = tfk.Input((4,))
    x = tf.nn.relu(tfk.layers.Dense(8, activation=tf.nn.leaky_relu)(x)) + 1
    x = tfk.backend.l2_normalize(x, axis=-1)[:, 1:7]
    x = tf.reshape(tf.concat([x, x], -1), (-1, 3, 4, 1))
    x = tf.reduce_mean(tf.image.resize(x, (2, 2)), axis=(1, 2))
    x = tf.where(x > 0, tf.math.exp(x), tf.zeros_like(x))
    model = tfk.Model(inputs, tf.linalg.matmul(x, tf.ones((1, 3))))
    model.compile("adam", "mse", metrics=["mae", tfk.metrics.MeanSquaredError()])
    path = tmp_path / f"m{ending}"
    model.save(path, save_format=None if ending else "tf")
    given = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(load_model(path)(given), model(given))


# What a class may need to be made.
ARGUMENTS = {
    **dict(activation="relu", alpha=0.3, axes=1, boundaries=[1], bin_boundaries=[0.0]),
    **dict(cropping=1, decay_rate=0.9, decay_steps=5, dims=(1,), filters=3, groups=1),
    **dict(initial_learning_rate=0.1, input_dim=3, kernel_size=2, key_dim=2, limit=1),
    **dict(l1=0.1, l2=0.1, n=2, num_bins=4, num_classes=3, num_heads=2, output_dim=4),
    **dict(output_shape=3, padding=1, pool_size=2, rate=0.1, scale=0.2, shape=(4,)),
    **dict(size=2, stddev=0.1, target_shape=(4,), units=3, values=[0.1, 0.2]),
    **dict(equation="ab,bc->ac", height=4, width=4, factor=0.1, max_value=2.0),
    **dict(learning_rate=0.1, precision=0.5, recall=0.5, specificity=0.5),
}
ROOMS = "layers initializers regularizers constraints losses metrics optimizers".split()


def at_hand(K):
    """What else a class may need."""
    return ARGUMENTS | {
        "layer": K.layers.LSTM(3),
        "cell": K.layers.LSTMCell(3),
        "cells": [K.layers.GRUCell(3)],
        "inner_optimizer": K.optimizers.Adam(),
        "fn": K.losses.mean_squared_error,
    }


def made(cls, arguments):
    """Make an object of a class of Keras, or None where that is not easy."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    needed = {
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    } - {"self"}
    try:
        return cls(**{name: arguments[name] for name in needed})
    except (KeyError, TypeError, ValueError, ImportError, AttributeError):
        return None


def found_in(K, config):
    """What the check finds in a description."""
    config = json.loads(json.dumps(config))
    return list(foreign_code(ModelFile(K.__name__, (config,)), {}))


@pytest.mark.filterwarnings("ignore")
def test_all_that_keras_can_describe_is_taken(K):
    alarms, count, arguments = {}, 0, at_hand(K)
    for room in [*ROOMS, "optimizers.schedules"]:
        home = importlib.import_module(f"{K.__name__}.{room}")
        for name, thing in vars(home).items():
            if not isinstance(thing, type) or name == "Lambda":
                continue
            try:
                config = K.saving.serialize_keras_object(made(thing, arguments))
                json.dumps(config)
            except (NotImplementedError, TypeError):  # base classes
                continue
            count += config is not None
            if found := found_in(K, config):
                alarms[f"{room}.{name}"] = found
    assert not alarms and count > 200


@pytest.mark.parametrize(
    "reference",
    [
        # A registered class beside a name that legacy code would call.
        {"class_name": "deserialize_keras_object", "registered_name": "Custom>Adam"},
        {"class_name": "deserialize_keras_object", "module": None},
        {"class_name": "layers.Lambda", "module": "tf_keras"},
        {"class_name": ["Dense"], "module": "keras.layers"},
        {"class_name": {"class_name": "__bytes__", "value": "Dense"}},
        {"class_name": "os", "module": "keras.src.utils.file_utils"},
        {"class_name": "Dense", "module": "keras_hub.unheard_of"},
        {"class_name": "Dense", "module": ""},
        {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess"},
        {"class_name": "function", "config": None, "module": "keras.activations"},
        {"class_name": "function", "config": "get", "module": "keras.activations"},
    ],
    ids=repr,
)
def test_names_that_are_looked_up_in_odd_ways_are_refused(K, reference):
    assert found_in(K, {"module": "keras.layers", "config": {}, **reference})


def test_all_activations_and_names_are_taken(K):
    alarms = {}
    for name, function in vars(K.activations).items():
        if not callable(function) or name in ("deserialize", "get", "serialize"):
            continue
        layer = K.saving.serialize_keras_object(K.layers.Dense(3, activation=function))
        for config in (layer, {"activation": name}):
            if found := found_in(K, config):
                alarms[name] = found
    named = {
        "loss": "mse MAE kld categorical_crossentropy",
        "metrics": "accuracy acc AUC mse",
        "optimizer": "adam SGD rmsprop",
        "kernel_initializer": "glorot_uniform GlorotUniform zeros he_normal uniform",
        "kernel_regularizer": "l1 l2 l1_l2 L1L2",
        "kernel_constraint": "non_neg max_norm NonNeg",
        "name": "system eval tf",
    }
    for key, names in named.items():
        for name in names.split():
            if found := found_in(K, {key: name}):
                alarms[name] = found
    assert not alarms
