"""Reports: counts against hand-made ones, scores against NumPy, honest gaps."""

import json
import zlib

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ExportError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 12)).astype("float32")
Y = RNG.integers(0, 5, 50)


def narrowed(model):
    """`zoo.mlp` without 12 of its first 32 units and 9 of its second 24."""
    return tsp.remove_units(model, {"first": range(12), "second": range(9)})


def compiled(K, model):
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


def accuracy(model, y=Y):
    return np.mean(np.asarray(model(X)).argmax(-1) == y)


def test_what_is_counted_is_what_is_counted_by_hand(K):
    model = zoo.mlp(K)
    small = narrowed(model)
    report = tsp.report(model, small, num_threads=2)
    kernels = (12 * 32 + 32 * 24 + 24 * 5, 12 * 20 + 20 * 15 + 15 * 5)
    params = (kernels[0] + 32 + 24 + 5, kernels[1] + 20 + 15 + 5)
    assert report.pairs["macs"] == kernels
    assert report.pairs["params"] == params
    assert report.pairs["bytes"] == (4 * params[0], 4 * params[1])
    assert report.units == {"first": (32, 20), "second": (24, 15), "head": (5, 5)}
    assert [(b.layer, b.units) for b in report.barriers] == [("head", 5)]
    files = [tsp.litert.convert(one) for one in (model, small)]
    assert report.tflite_bytes == tuple(map(len, files))
    # A gzip file is a deflate stream with 18 bytes around it.
    streams = [zlib.compressobj(9, zlib.DEFLATED, -15) for _ in files]
    assert report.gzip_bytes == tuple(
        18 + len(s.compress(f) + s.flush()) for s, f in zip(streams, files, strict=True)
    )
    assert all(latency > 0 for latency in report.latency_us)
    assert report.levels["params"] == params[1] / params[0]
    assert not report.scores and not report.unmeasured and report.asked is None
    text = str(report)
    assert f"{kernels[0]:,}" in text and f"{kernels[1] / kernels[0]:.1%}" in text
    assert text.count("62.5%") == 2  # both layers, cut alike
    values = report.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["units"]["first"] == [32, 20] and values["num_threads"] == 2
    assert values["after"]["macs"] == kernels[1]


@pytest.mark.both_flavours
@pytest.mark.usefixtures("unconverted")
def test_scores_are_those_of_both_models(K):
    model = compiled(K, zoo.mlp(K))
    small = narrowed(model)
    weights = [w.copy() for w in model.get_weights()]
    report = tsp.report(model, small, data=(X, Y))
    assert report.scores["accuracy"] == pytest.approx(
        (accuracy(model), accuracy(small))
    )
    logits = np.asarray(small(X), "float64")
    likelihood = logits[np.arange(50), Y] - np.log(np.exp(logits).sum(-1))
    assert report.scores["loss"][1] == pytest.approx(-likelihood.mean(), rel=1e-5)
    assert not getattr(small, "compiled", False) and not getattr(
        small, "_is_compiled", False
    )
    assert all(map(np.array_equal, weights, model.get_weights()))
    difference = accuracy(small) - accuracy(model)
    assert difference and f"{difference:+.2g}" in str(report)
    heavy = tsp.report(model, small, data=(X, Y, np.full(50, 2.0)))
    assert heavy.scores["loss"][1] == pytest.approx(-2 * likelihood.mean(), rel=1e-5)
    # The other way round, and in batches of a set.
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    assert tsp.report(small, model, data=batches).scores["accuracy"] == (
        pytest.approx((accuracy(small), accuracy(model)))
    )


@pytest.mark.usefixtures("unconverted")
def test_a_measure_of_ones_own(K):
    model = zoo.mlp(K)
    small = narrowed(model)
    report = tsp.report(model, small, evaluate=accuracy)
    assert report.scores == {"score": (accuracy(model), accuracy(small))}
    report = tsp.report(
        model, small, evaluate=lambda m: {"wrong": 1 - accuracy(m), "nan": np.nan}
    )
    assert report.scores["wrong"] == (1 - accuracy(model), 1 - accuracy(small))
    assert report.to_dict()["scores"]["nan"] == [None, None]
    with pytest.raises(TypeError, match="one number.*Received: None"):
        tsp.report(model, small, evaluate=lambda m: None)
    with pytest.raises(ValueError, match="no metric in common"):
        tsp.report(model, small, evaluate=lambda m: {str(m.count_params()): 1.0})


@pytest.mark.usefixtures("unconverted")
def test_the_plan_says_what_was_asked(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", target_params=0.5, layers="first")
    report = tsp.report(model, plan.apply(model), plan=plan)
    assert report.asked == str(plan).split("\n\n")[3]
    assert report.asked.startswith("asked: at most 50.0%")
    assert report.asked in str(report)
    assert {b.layer for b in report.barriers} == {"second", "head"}
    assert report.to_dict()["plan"] == {
        "criterion": "magnitude",
        "budget": {"target_params": 0.5},
        "achieved": [report.before.params, report.after.params],
    }
    with pytest.raises(tsp.errors.PlanError, match="another model.*first: 20 instead"):
        tsp.report(model, narrowed(model), plan=plan)
    with pytest.raises(tsp.errors.PlanError):
        tsp.report(zoo.vgg(K), zoo.vgg(K), plan=plan)


@pytest.mark.usefixtures("unconverted")
def test_layers_that_vanished_or_are_new():
    import keras

    def net(name):
        layers = [keras.layers.Dense(7, name=name), keras.layers.Dense(2, name="head")]
        return zoo.settle(keras.Sequential([keras.Input((3,)), *layers]))

    report = tsp.report(net("old"), net("new"))
    assert report.units == {"old": (7, None), "new": (None, 7), "head": (2, 2)}
    rows = {
        line.split()[0]: line.split()[1:] for line in str(report).splitlines()[9:12]
    }
    assert rows == {
        "old": ["7", "none", "-"],
        "head": ["2", "2", "100.0%"],
        "new": ["none", "7", "-"],
    }


def test_what_cannot_be_converted_is_not_measured(monkeypatch):
    import keras

    model = zoo.mlp(keras)
    small = narrowed(model)
    with monkeypatch.context() as patch:
        patch.setattr(keras.config, "backend", lambda: "jax")
        report = tsp.report(model, small, evaluate=accuracy)
    assert report.tflite_bytes is report.gzip_bytes is report.latency_us is None
    assert "KERAS_BACKEND=tensorflow" in report.unmeasured["latency_us"]
    assert report.levels["latency_us"] is None and report.levels["macs"] < 1
    assert report.scores["score"][1] == accuracy(small)
    assert "not measured: A model is exported through TensorFlow" in str(report)
    assert "KERAS_BACKEND=tensorflow" in report.to_html()

    # The pruned one alone; and a runtime that does not take the file.
    def convert(one):
        if one is small:
            raise ExportError("No counterpart. Exchange it. Received: /home/me")
        return b"converted"

    monkeypatch.setattr("tf_spline_prune.reporting._report.convert", convert)
    report = tsp.report(model, small)
    assert set(report.unmeasured.values()) == {"No counterpart. Exchange it."}
    assert str(report).count("  not measured: No counterpart\n") == 3
    monkeypatch.setattr(
        "tf_spline_prune.reporting._report.convert", lambda one: b"no such file"
    )
    report = tsp.report(model, small)
    assert report.tflite_bytes == (12, 12) and set(report.unmeasured) == {"latency_us"}


def test_an_open_size_has_no_macs():
    import keras

    def net(width):
        layers = [keras.layers.Conv1D(width, 3), keras.layers.GlobalMaxPooling1D()]
        layers = [keras.Input((None, 4)), *layers, keras.layers.Dense(2)]
        return zoo.settle(keras.Sequential(layers))

    report = tsp.report(net(8), net(4))
    assert report.pairs["macs"] is None and report.levels["macs"] is None
    assert "MACs" in str(report) and "the size of an input is open" in str(report)
    assert report.latency_us is not None


@pytest.mark.usefixtures("unconverted")
@pytest.mark.parametrize("name", ["SplineEarlyBird", "MaskEarlyBird", "Architecture"])
def test_the_bound_decides_as_the_bird_does(name):
    import keras

    L = keras.layers
    keras.utils.set_random_seed(0)
    layers = [keras.Input((12,)), L.Dense(16), L.BatchNormalization(), L.ReLU()]
    model = compiled(keras, keras.Sequential([*layers, L.Dense(5)]))
    options = {
        "SplineEarlyBird": lambda: tsp.SplineEarlyBird(X, 0.1, 2, stop=False),
        "MaskEarlyBird": lambda: tsp.MaskEarlyBird(num_masks=3, stop=False),
        "Architecture": lambda: tsp.ArchitectureEarlyBird(
            threshold=0.9, lookback=2, stop=False
        ),
    }
    bird = options[name]()
    small = tsp.prune(model, "magnitude", sparsity=0.5)
    empty = tsp.report(model, small, evaluate=accuracy, bird=bird)
    assert empty.bird["records"] == {} and "no two epochs" in empty.to_html()
    model.fit(X, Y, epochs=8, verbose=0, callbacks=[bird])
    seen = tsp.report(model, small, evaluate=accuracy, bird=bird).bird
    assert seen["records"] == bird.records and seen["distance"] == bird.log_name
    # Each detector's own rule, said in distances.
    rule = np.mean if name == "Architecture" else np.max
    settled = [
        epoch
        for epoch, distances in sorted(seen["records"].items())
        if len(distances) == 2 and rule(distances) <= seen["bound"]
    ]
    assert seen["ticket_epoch"] == bird.ticket_epoch == (settled or [None])[0]
    assert settled


@pytest.mark.usefixtures("unconverted")
def test_a_bird_that_has_not_fired_and_one_without_a_bound():
    import keras

    model = compiled(keras, zoo.mlp(keras))
    bird = tsp.SplineEarlyBird(X, 1e-9, mode="plateau", tolerance=1e-9)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[bird])
    report = tsp.report(model, narrowed(model), bird=bird)
    assert report.bird["bound"] is None and report.bird["ticket_epoch"] is None
    assert "early bird: not found by epoch 3 (spline_distance)" in str(report)
    assert "threshold" not in report.to_html()


def wrong():
    import keras
    import tf_keras

    model = zoo.mlp(keras)
    small = narrowed(model)
    ready = compiled(keras, zoo.mlp(keras))
    return {
        "no model": ((np.zeros(3), small), {}, TypeError, "Expected a Keras model"),
        "flavours": ((model, zoo.mlp(tf_keras)), {}, TypeError, "flavour `keras`"),
        "inputs": ((model, zoo.vgg(keras)), {}, ValueError, "inputs of shapes"),
        "outputs": (
            (model, keras.Sequential([keras.Input((12,)), keras.layers.Dense(4)])),
            {},
            ValueError,
            "outputs of shapes",
        ),
        "plan": ((model, small), {"plan": {}}, TypeError, "PruningPlan"),
        "bird": ((model, small), {"bird": 3}, TypeError, "early-bird detector"),
        "threads": ((model, small), {"num_threads": 0}, ValueError, "from 1 to"),
        "both": (
            (ready, small),
            {"data": (X, Y), "evaluate": accuracy},
            ValueError,
            "either `data`",
        ),
        "evaluate": ((model, small), {"evaluate": 0.9}, TypeError, "function of a mod"),
        "compiled": ((model, small), {"data": (X, Y)}, ValueError, "Neither model is"),
        "labels": ((ready, small), {"data": X}, ValueError, "Metrics need labels"),
        "list": ((ready, small), {"data": [X]}, ValueError, "Metrics need labels"),
        "shape": ((ready, small), {"data": (X[:, :5], Y)}, ValueError, "does not fit"),
        "count": ((ready, small), {"data": (X, Y[:9])}, ValueError, "one label per"),
        "used up": ((ready, small), {"data": iter([(X, Y)])}, ValueError, "is used up"),
        "function": ((ready, small), {"data": zoo.mlp}, ValueError, "Calibration data"),
    }


WRONG = ("no model", "flavours", "inputs", "outputs", "plan", "bird", "threads", "both")
WRONG += ("evaluate", "compiled", "labels", "list", "shape", "count", "used up")


@pytest.mark.parametrize("case", [*WRONG, "function"])
def test_bad_input_is_refused_before_any_work(case, monkeypatch):
    models, options, kind, words = wrong()[case]
    work = []
    monkeypatch.setattr("tf_spline_prune.reporting._report.convert", work.append)
    with pytest.raises(kind, match=words):
        tsp.report(*models, **options)
    assert not work


def test_an_endless_set_is_refused():
    import keras
    import tensorflow as tf

    model = compiled(keras, zoo.mlp(keras))
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).repeat()
    with pytest.raises(tsp.errors.CalibrationError, match="never ends"):
        tsp.report(model, model, data=endless)


def test_what_one_is_compiled_with_cannot_be_made_anew():
    import keras

    class Own(keras.losses.Loss):
        def __init__(self, power):
            super().__init__()
            self.power = power

        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred**self.power, -1)

    model = zoo.mlp(keras)
    model.compile("sgd", Own(2))
    with pytest.warns(tsp.errors.SplinePruneWarning, match="Compile it"):
        with pytest.raises(tsp.errors.ModelError, match="cannot be recreated"):
            tsp.report(model, narrowed(model), data=(X, Y))
