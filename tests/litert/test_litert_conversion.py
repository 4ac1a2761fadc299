"""`convert` and `Runner` against Keras and against NumPy."""

import sys

import numpy as np
import pytest
import zoo

from tf_spline_prune.errors import ExportError, FlavourError, ModelError
from tf_spline_prune.litert import Runner, Servable, convert, interleaved_latencies


def two_inputs(K):
    """Inputs and outputs whose order is not that of the alphabet."""
    L = K.layers
    z, a = K.Input((4,), name="z"), K.Input((4,), name="a")
    x = L.Concatenate()([L.Dense(6, activation="relu", name="left")(z), a])
    return zoo.settle(
        K.Model([z, a], [L.Dense(3, name="zz")(x), L.Dense(3, name="aa")(x)])
    )


def mlp_by_hand(model, x):
    """Compute `zoo.mlp` in float64 NumPy."""
    *hidden, head = [layer.get_weights() for layer in model.layers]
    x = np.float64(x)
    for kernel, bias in hidden:
        x = np.maximum(x @ np.float64(kernel) + bias, 0.0)
    return x @ np.float64(head[0]) + head[1]


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", zoo.ALL)
def test_every_family_answers_as_in_keras(K, build):
    model = build(K)
    shape = (12,) if build is zoo.mlp else zoo.SHAPE
    x = np.random.default_rng(1).standard_normal((3, *shape)).astype("float32")
    (found,) = Runner(convert(model)).run(x)
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.both_flavours
def test_any_batch_size_equals_numpy(K):
    model = zoo.mlp(K)
    runner = Runner(convert(model))
    for batch in (1, 7, 2, 64):
        x = np.random.default_rng(batch).standard_normal((batch, 12))
        (found,) = runner.run(x)  # float64 is cast
        expected = mlp_by_hand(model, x.astype("float32"))
        assert found.shape == (batch, 5)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_inputs_and_outputs_are_matched_by_name(K):
    model = two_inputs(K)
    rng = np.random.default_rng(0)
    z, a = rng.standard_normal((2, 5, 4)).astype("float32")
    runner = Runner(convert(model))
    assert runner.input_names == ("a", "z")
    found = dict(zip(runner.output_names, runner.run({"z": z, "a": a}), strict=True))
    zz, aa = model([z, a])
    np.testing.assert_allclose(found["zz"], np.asarray(zz), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["aa"], np.asarray(aa), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="must be named"):
        runner.run([z, a])
    with pytest.raises(ValueError, match=r"Expected: \['a', 'z'\]"):
        runner.run({"z": z, "b": a})


def test_mixed_precision_is_converted_in_float32(K):
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = zoo.mlp(K)
    finally:
        K.mixed_precision.set_global_policy("float32")
    x = np.random.default_rng(0).standard_normal((4, 12)).astype("float32")
    (found,) = Runner(convert(model)).run(x)
    assert found.dtype == np.float32
    # Far closer to exact arithmetic than float16 can be.
    np.testing.assert_allclose(found, mlp_by_hand(model, x), rtol=1e-4, atol=1e-5)


def test_integer_inputs_and_open_sizes(K):
    L = K.layers
    tokens = K.Input((None,), dtype="int32", name="tokens")
    x = L.GlobalAveragePooling1D()(L.Embedding(50, 4)(tokens))
    model = zoo.settle(K.Model(tokens, x))
    runner = Runner(convert(model))
    for shape in ((2, 9), (3, 4)):
        ids = np.random.default_rng(0).integers(0, 50, shape)
        expected = model.get_weights()[0][ids].mean(axis=1)
        np.testing.assert_allclose(runner.run(ids)[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="dtype int32"):
        runner.run(np.zeros((2, 9), "float32"))
    assert runner.measure_latency(runs=3, warmup=0) > 0


@pytest.mark.parametrize("shape", [(12,), (2, 11), (0, 12), (1, 2, 12)])
def test_arrays_that_do_not_fit_are_refused(shape):
    import keras

    runner = Runner(convert(zoo.mlp(keras)))
    with pytest.raises(ValueError, match=r"Expected: shape \(None, 12\)"):
        runner.run(np.zeros(shape, "float32"))
    assert runner.run(np.zeros((2, 12), "float32"))[0].shape == (2, 5)


def test_a_fixed_batch_size_stays(K):
    i = K.Input(batch_shape=(2, 4))
    runner = Runner(convert(K.Model(i, K.layers.Dense(3)(i))))
    assert runner.run(np.zeros((2, 4)))[0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        runner.run(np.zeros((3, 4)))


def test_names_of_inputs_and_outputs(K):
    L = K.layers
    i, j = K.Input((4,), name="image-1"), K.Input((4,), name="class")
    model = K.Model([i, j], [L.Dense(2, name="a.b")(i), L.Dense(2, name="Top")(j)])
    servable = Servable(model)
    assert list(servable.inputs) == ["image_1", "tensor_class"]
    assert servable.outputs == ["a_b", "Top"]
    # Counters of our own tracing do not show in the names of a subclassed model.
    for _ in range(2):
        servable = Servable(zoo.subclassed(K))
        assert (list(servable.inputs), servable.outputs) == (["inputs"], ["outputs"])


@pytest.mark.both_flavours
def test_a_dictionary_of_inputs_and_outputs(K):
    L = K.layers
    z, a = K.Input((4,), name="z"), K.Input((4,), name="a")
    dense = L.Dense(3)
    model = K.Model({"z": z, "a": a}, {"y": dense(z), "b": dense(a)})
    x = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    runner = Runner(convert(model))
    given = {"z": x, "a": 2 * x}
    found = dict(zip(runner.output_names, runner.run(given), strict=True))
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(found["y"], x @ kernel + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["b"], 2 * x @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_latency_grows_with_the_work():
    import keras

    def net(width):
        return keras.Sequential(
            [keras.Input((width,)), keras.layers.Dense(width), keras.layers.Dense(1)]
        )

    small, large = (Runner(convert(net(width))) for width in (16, 2048))
    assert small.measure_latency() < large.measure_latency()
    with pytest.raises(ValueError, match="runs=0"):
        small.measure_latency(runs=0)


def test_a_file_is_run_as_its_bytes_are(tmp_path):
    import keras

    content = convert(zoo.mlp(keras))
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    x = np.ones((2, 12), "float32")
    expected = Runner(content).run(x)[0]
    np.testing.assert_array_equal(Runner(path).run(x)[0], expected)
    np.testing.assert_array_equal(Runner(str(path)).run(x)[0], expected)
    with pytest.raises(FileNotFoundError):
        Runner(tmp_path / "none.tflite")
    with pytest.raises(ValueError):
        Runner(b"no model")


def test_what_cannot_be_converted(K):
    with pytest.raises(FlavourError, match="Received: an object of type"):
        convert("model")
    with pytest.raises(ModelError, match="not built"):
        convert(K.Sequential([K.layers.Dense(3)]))
    model = zoo.mlp(K)
    model.layers[0].kernel.assign(np.full((12, 32), np.nan, "float32"))
    with pytest.raises(ModelError, match="NaN"):
        convert(model)
    words = K.Input((), dtype="string", name="words")
    length = K.layers.Lambda(_length, output_shape=())(words)
    with pytest.raises(ModelError, match="string input 'words'"):
        convert(K.Model(words, length))


def _length(words):
    import tensorflow as tf

    return tf.strings.length(words)


def test_the_converter_runs_only_on_tensorflow(monkeypatch):
    import keras

    model = zoo.mlp(keras)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
        convert(model)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_without_ai_edge_litert_tensorflow_runs_the_file(monkeypatch):
    import keras

    content = convert(zoo.mlp(keras))
    x = np.random.default_rng(0).standard_normal((3, 12)).astype("float32")
    expected = Runner(content).run(x)[0]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    runner = Runner(content)
    assert type(runner._interpreter).__module__.startswith("tensorflow")
    np.testing.assert_allclose(runner.run(x)[0], expected, rtol=1e-5, atol=1e-6)


def test_models_take_turns():
    class Clock:
        """Stands in for a runner whose time drifts from turn to turn."""

        def __init__(self, factor):
            self.factor = factor

        def measure_latency(self, runs, warmup):
            turns.append(self.factor)
            return self.factor * float(len(turns) // 3)

    turns = []
    first, second, third = interleaved_latencies(Clock(1), Clock(2), Clock(3))
    assert turns == [1, 2, 3] * 25
    # Calls 3n+1, 3n+2 and 3n+3 of turn n = 0..24; the median turn is n = 12.
    assert (first, second, third) == (12, 24, 39)
