"""Exports of what is random or has a state: not frozen, and compared as what it is."""

import json

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import ExportError

X = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")


def model_of(K, layer, **told):
    x = K.Input((6,), name="x")
    y = K.layers.Dense(16, name="hidden")(x)
    return K.Model(x, K.layers.Dense(3, name="y")(layer(y, **told)))


def sampling(K):
    """A layer that draws numbers from TensorFlow, without any state."""
    import tensorflow as tf

    class Sampling(K.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    return Sampling()


def seeded(K):
    """A layer with a generator of its own, as a variational autoencoder has one."""
    if K.__name__ == "tf_keras":
        pytest.skip("`keras.random` is Keras 3")

    class Seeded(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = K.random.SeedGenerator(1)

        def call(self, x):
            return x + K.random.normal(K.ops.shape(x), seed=self.generator)

    return Seeded()


RANDOM = {
    "dropout": lambda K: model_of(K, K.layers.Dropout(0.5), training=True),
    "noise": lambda K: model_of(K, K.layers.GaussianNoise(1.0), training=True),
    "sampling": lambda K: model_of(K, sampling(K)),
    "seeded": lambda K: model_of(K, seeded(K)),
    "nested": lambda K: K.Sequential(
        [K.Input((6,)), model_of(K, K.layers.Dropout(0.5), training=True)]
    ),
}


def answers(run, count):
    return np.array([np.asarray(run()) for _ in range(count)])


def served(report):
    import tensorflow as tf

    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    return lambda: next(iter(serve(**{name: tf.constant(X)}).values()))


def same_law(found, expected):
    """Averages and spreads over 150 calls agree within six standard errors."""
    assert len({one.tobytes() for one in found}) > 130
    error = np.sqrt((found.var(0) + expected.var(0)) / len(found))
    assert (np.abs(found.mean(0) - expected.mean(0)) < 6 * error + 1e-6).all()
    np.testing.assert_allclose(found.std(0), expected.std(0), rtol=0.4)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_saved_model_is_as_random_as_the_model(K, tmp_path, kind):
    model = RANDOM[kind](K)
    before = [np.array(v.numpy()) for v in model.variables]
    report = tsp.export_saved_model(model, tmp_path / "net")
    after = [v.numpy() for v in model.variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    same_law(answers(served(report), 150), answers(lambda: model(X), 150))
    assert "differ by at most" not in str(report)
    text = (report.path / "assets.extra" / "metadata.json").read_text("utf-8")
    known = json.loads(text)
    assert known["compared"] == report.compared
    assert known["max_difference"] == report.max_difference
    if report.compared == "averages":
        assert report.max_difference is None and "random" in str(report)
    else:
        assert report.compared == "states" and "call to call" in str(report)


@pytest.mark.parametrize("kind", ["dropout", "sampling"])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_is_random_or_refused(K, tmp_path, kind, format):
    """tf_keras' operations have counterparts there, those of Keras 3 have none."""
    model = RANDOM[kind](K)
    file = tmp_path / f"net.{format}"
    export = tsp.export_litert if format == "tflite" else tsp.export_onnx
    if K.__name__ == "keras" and kind != "sampling":
        with pytest.raises(ExportError, match=r"call to call.*export_saved_model"):
            export(model, file)
        assert not list(tmp_path.iterdir())
        return
    report = export(model, file)
    assert report.compared == "averages" and report.max_difference is None
    if format == "tflite":
        runner = tsp.litert.Runner(file)

        def run():
            return runner.run(X)[0]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(file)

        def run():
            return session.run(None, {"x": X})[0]

    same_law(answers(run, 150), answers(lambda: model(X), 150))


def test_what_is_frozen_is_refused(K, monkeypatch):
    """Were a converter to fold the random numbers: averages alone would not tell."""
    from tf_spline_prune.export._comparison import compare
    from tf_spline_prune.litert import Servable

    for kind in ("dropout", "sampling"):
        servable = Servable(RANDOM[kind](K))
        frozen = {}

        def fold(inputs, servable=servable, frozen=frozen):
            return frozen or frozen.update(servable.predict(inputs)) or frozen

        with pytest.raises(ExportError, match="frozen"):
            compare(servable, fold)


def test_random_answers_that_are_others(K):
    """The same numbers, shifted by half a deviation: more than chance."""
    from tf_spline_prune.export._comparison import compare
    from tf_spline_prune.litert import Servable

    servable = Servable(model_of(K, sampling(K)))

    def shifted(inputs):
        return {n: y + 4 * y.std() for n, y in servable.predict(inputs).items()}

    assert compare(servable, servable.predict).compared == "averages"
    with pytest.raises(ExportError, match="more than chance"):
        compare(servable, shifted)


def test_what_is_not_random_is_compared_as_ever(K, tmp_path):
    model = model_of(K, K.layers.Dropout(0.5))
    report = tsp.export_saved_model(model, tmp_path / "net")
    assert report.compared == "answers" and "differ by at most" in str(report)
    assert len({one.tobytes() for one in answers(served(report), 5)}) == 1


def test_a_layer_that_is_told_to_train_does_not_make_the_others_train(K, tmp_path):
    """BatchNormalization beside a dropout that stays uses its moving statistics."""
    x = K.Input((6,), name="x")
    y = K.layers.BatchNormalization()(x)
    z = K.layers.Dropout(0.5)(y, training=True)
    model = K.Model(x, [y, z])
    report = tsp.export_saved_model(model, tmp_path / "net")
    import tensorflow as tf

    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    found = [serve(x=tf.constant(X)) for _ in range(3)]
    for one in found:  # mean 0, variance 1, epsilon 0.001
        kept = min(one.values(), key=lambda v: np.abs(v.numpy() - X).max())
        np.testing.assert_allclose(kept, X / np.sqrt(1.001), rtol=1e-4)


def test_a_stateful_layer_keeps_its_state(K, tmp_path):
    x = K.Input(batch_shape=(2, 3, 6), name="x")
    model = K.Model(x, K.layers.LSTM(4, stateful=True)(x))
    steps = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    report = tsp.export_saved_model(model, tmp_path / "net")
    import tensorflow as tf

    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    # The export has left the model at its start: both go on alike from there.
    for _ in range(3):
        (found,) = serve(x=tf.constant(steps)).values()
        np.testing.assert_allclose(found, model(steps), rtol=1e-5, atol=1e-6)
    assert report.compared == "states"
